"""Pictures: reading files of every kind, the cache, and fitting to a size."""

import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveasim.errors import InvalidTypeError, InvalidValueError, SceneError
from foveasim.images.picture import Picture, PictureCache, fit_picture, read_picture
from foveasim.scenes.source import open_scenes


def flat(value: object, size: tuple[int, int] = (16, 24)) -> np.ndarray:
    return np.broadcast_to(np.asarray(value, np.uint8), (*size, 3)).copy()


def save(path: Path, value: object = 100, size: tuple[int, int] = (16, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(flat(value, size)).save(path)
    return path


def picture(height: int, width: int, px_per_deg: float = 2.0) -> Picture:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Picture(image, 3, "test", px_per_deg)


def centre_of_mass(image: np.ndarray) -> tuple[float, float]:
    weight = image[..., 0].astype(float)
    y, x = np.mgrid[0.5 : image.shape[0], 0.5 : image.shape[1]]
    return float((weight * x).sum() / weight.sum()), float((weight * y).sum() / weight.sum())


def test_a_file_keeps_its_pixels(tmp_path: Path) -> None:
    values = picture(16, 24).image
    Image.fromarray(values).save(tmp_path / "a.png")
    found = open_scenes(str(tmp_path / "a.png")).picture(0)
    assert np.array_equal(found.image, values)
    assert found.name == "a.png"


def test_names_outside_ascii(tmp_path: Path) -> None:
    path = save(tmp_path / "Küche 台所 🍳" / "Ånd.png", 42)
    assert open_scenes(path).picture(0).image.max() == 42
    assert open_scenes(path.parent).picture(0).name == "Ånd.png"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:4, :4] = 255  # white corner, top left when upright
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(undo(upright))).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_picture(tmp_path / "turned.png").image, upright)


def png16(path: Path, values: np.ndarray) -> Path:
    """Write 16-bit grey or RGB, which Pillow cannot do for RGB."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, 0 if values.ndim == 2 else 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 16 * 24).astype(np.uint16).reshape(16, 24)
    grey = read_picture(png16(tmp_path / "grey.png", ramp)).image
    assert np.array_equal(grey, np.repeat(np.rint(ramp[..., None] / 257).astype(np.uint8), 3, axis=2))
    colour = read_picture(png16(tmp_path / "colour.png", np.stack([ramp, ramp // 2, ramp // 4], 2))).image
    assert np.abs(colour[..., 0].astype(int) - ramp // 257).max() <= 1
    assert np.abs(colour[..., 2].astype(int) - ramp // 257 // 4).max() <= 1
    Image.fromarray(ramp).save(tmp_path / "grey.tif")
    assert np.array_equal(read_picture(tmp_path / "grey.tif").image, grey)


def test_float_and_32_bit_grey(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 24), 0.5, np.float32)).save(tmp_path / "half.tif")
    assert np.all(read_picture(tmp_path / "half.tif").image == 128)
    Image.fromarray(np.full((16, 24), 300.0, np.float32)).save(tmp_path / "large.tif")
    with pytest.raises(SceneError, match=r"large\.tif.*float grey outside of 0 to 1"):
        read_picture(tmp_path / "large.tif")
    Image.fromarray(np.full((16, 24), 1 << 20, np.int32)).save(tmp_path / "deep.tif")
    with pytest.raises(SceneError, match="32-bit grey"):
        read_picture(tmp_path / "deep.tif")


def test_grey_palette_bits_and_cmyk_become_rgb(tmp_path: Path) -> None:
    Image.new("L", (24, 16), 77).save(tmp_path / "grey.png")
    assert np.all(read_picture(tmp_path / "grey.png").image == 77)
    Image.new("1", (24, 16), 1).save(tmp_path / "bits.png")
    assert np.all(read_picture(tmp_path / "bits.png").image == 255)
    Image.fromarray(flat((200, 30, 60))).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    assert np.all(read_picture(tmp_path / "palette.png").image == (200, 30, 60))
    Image.new("CMYK", (24, 16), (0, 255, 255, 0)).save(tmp_path / "inks.tif")  # magenta and yellow: red
    assert np.all(read_picture(tmp_path / "inks.tif").image == (255, 0, 0))
    Image.new("CMYK", (24, 16), (0, 255, 255, 0)).save(tmp_path / "inks.jpg", quality=100)
    assert np.abs(read_picture(tmp_path / "inks.jpg").image.astype(int) - (255, 0, 0)).max() <= 4


@pytest.mark.parametrize("alpha, expected", [(0, 128), (255, 240), (128, 184)])
def test_transparency_lies_over_mid_grey(tmp_path: Path, alpha: int, expected: int) -> None:
    Image.new("RGBA", (24, 16), (240, 240, 240, alpha)).save(tmp_path / "rgba.png")
    Image.new("LA", (24, 16), (240, alpha)).save(tmp_path / "la.png")
    for name in ("rgba.png", "la.png"):
        assert np.abs(read_picture(tmp_path / name).image.astype(int) - expected).max() <= 1


def test_transparent_palette_entries_lie_over_mid_grey(tmp_path: Path) -> None:
    image = Image.new("P", (24, 16), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(0, (0, 0, 12, 16))
    image.save(tmp_path / "hole.png", transparency=0)
    found = read_picture(tmp_path / "hole.png").image
    assert np.all(found[:, :12] == 128)
    assert np.all(found[:, 12:] == (0, 255, 0))


def test_an_animated_picture_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.fromarray(flat(value)) for value in (10, 200)]
    for name in ("moving.webp", "moving.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert np.all(open_scenes(tmp_path / name).picture(0).image == 10)


def test_a_bomb_is_not_decoded(tmp_path: Path) -> None:
    for side in (10_100, 15_000, 60_000):  # above this bound, above Pillow's, and far above both
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        body = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
        body += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
        path = tmp_path / f"bomb{side}.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
        with pytest.raises(SceneError, match=rf"bomb{side}.*100 megapixels.*Scale it down"):
            open_scenes(path)


def test_large_pictures_within_the_bound_do_not_warn(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 9_900, 9_900, 8, 2, 0, 0, 0)  # 98 megapixels, over Pillow's warning
    body = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    body += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    (tmp_path / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert len(open_scenes(tmp_path / "large.png")) == 1


def test_files_that_are_no_pictures_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    save(tmp_path / "tiny.png", size=(7, 100))
    for name, why in (
        ("empty.png", "not an image"),
        ("text.jpg", "not an image"),
        ("tiny.png", "100 x 7 px is too small"),
    ):
        with pytest.raises(SceneError, match=rf"{name}: .*{why}"):
            open_scenes(tmp_path / name)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_truncated_file_raises_when_it_is_decoded(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(picture(64, 64).image).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SceneError, match=rf"cut\.{suffix}: "):
        open_scenes(path).picture(0)


# The cache


def test_the_cache_is_bounded_and_drops_the_least_recently_used() -> None:
    one, size = picture(16, 24), 16 * 24 * 3
    cache = PictureCache(2 * size)
    cache.put(0, one)
    cache.put(1, one)
    assert cache.get(0) is one
    cache.put(2, one)
    assert cache.get(1) is None
    assert cache.get(0) is one
    assert cache.get(2) is one
    assert cache.bytes == 2 * size
    cache.put(0, one)
    assert cache.bytes == 2 * size
    cache.put(9, picture(100, 100))  # larger than the bound: not kept, and nothing is dropped for it
    assert len(cache) == 2
    assert PictureCache(0).get(0) is None
    assert len(pickle.loads(pickle.dumps(cache))) == 0


# Fitting


@pytest.mark.parametrize(
    "fit, scale", [("crop", 96 / 60), ("pad", 128 / 200), ("stretch", (96 / 60 * 128 / 200) ** 0.5)]
)
def test_px_per_deg_is_scaled_along(fit: str, scale: float) -> None:
    fitted = fit_picture(picture(60, 200, 2.0), (96, 128), fit)
    assert fitted.size == (96, 128)
    assert fitted.px_per_deg == pytest.approx(2.0 * scale)
    assert (fitted.label, fitted.name) == (3, "test")
    assert fitted.image.flags.c_contiguous


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_picture_of_the_right_size_is_returned_itself(fit: str) -> None:
    one = picture(96, 128)
    assert fit_picture(one, (96, 128), fit) is one
    assert fit_picture(one, None, fit) is one


def test_crop_keeps_the_centre_and_the_aspect_ratio() -> None:
    image = np.zeros((60, 200, 3), np.uint8)
    image[20:40, 90:110] = 255  # a centred square of a third of the height
    fitted = fit_picture(Picture(image, -1, "", 1.0), (120, 120)).image
    assert centre_of_mass(fitted) == pytest.approx((60, 60), abs=0.05)
    assert (fitted[60, :, 0] > 127).sum() == 40
    assert (fitted[:, 60, 0] > 127).sum() == 40


def test_crop_is_centred_to_parts_of_a_pixel() -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    image[4:6, 4:6] = 255
    fitted = fit_picture(Picture(image, -1, "", 1.0), (100, 75)).image  # 7.5 columns are seen
    assert centre_of_mass(fitted) == pytest.approx((37.5, 50), abs=0.6)


def test_crop_without_scaling_is_a_slice() -> None:
    one = picture(96, 200)
    fitted = fit_picture(one, (96, 100))
    assert np.array_equal(fitted.image, one.image[:, 50:150])
    assert fitted.px_per_deg == one.px_per_deg


def test_pad_adds_mid_grey_bars_around_the_whole_picture() -> None:
    one = picture(48, 96)
    fitted = fit_picture(one, (96, 96), "pad")
    assert np.array_equal(fitted.image[24:72], one.image)
    assert np.all(fitted.image[:24] == 128)
    assert np.all(fitted.image[72:] == 128)


def test_shrinking_averages_areas() -> None:
    fine = np.zeros((64, 64, 3), np.uint8)
    fine[::2, ::2] = 255
    fine[1::2, 1::2] = 255
    shrunk = fit_picture(Picture(fine, -1, "", 1.0), (16, 16)).image
    assert np.abs(shrunk.astype(int) - 127.5).max() <= 1


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(8, 8), (97, 31), (16, 300), (1000, 8), (96, 96)])
@pytest.mark.parametrize("shape", [(8, 8), (8, 1000), (123, 45), (640, 480)])
def test_a_flat_picture_stays_flat(fit: str, size: tuple[int, int], shape: tuple[int, int]) -> None:
    fitted = fit_picture(Picture(flat(128, shape), -1, "", 1.0), size, fit)
    assert fitted.size == size
    assert np.all(fitted.image == 128)


def test_a_long_thin_picture_needs_little_memory() -> None:
    thin = Picture(flat(9, (8, 200_000)), -1, "", 1.0)  # scaled as a whole it would be 200 GB
    assert fit_picture(thin, (1600, 1600)).image.max() == 9


@pytest.mark.parametrize("fit", ["stretched", "", None])
def test_an_unknown_fit_is_refused(fit: str) -> None:
    with pytest.raises(InvalidValueError, match="crop, pad, stretch"):
        fit_picture(picture(16, 24), (96, 96), fit)


@pytest.mark.parametrize("size", [(96,), 96, (96.0, 96.0), (0, 96), (7, 96), "96"])
def test_a_wrong_size_is_refused(size: object) -> None:
    with pytest.raises((InvalidValueError, InvalidTypeError), match="size must"):
        fit_picture(picture(16, 24), size)  # type: ignore[arg-type]


def test_a_picture_checks_itself() -> None:
    with pytest.raises(InvalidTypeError, match="uint8"):
        Picture(np.zeros((16, 24, 3), np.float32), -1, "x", 1.0)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match=r"\(H, W, 3\)"):
        Picture(np.zeros((16, 24), np.uint8), -1, "x", 1.0)
    with pytest.raises(InvalidValueError, match="px_per_deg"):
        Picture(np.zeros((16, 24, 3), np.uint8), -1, "x", float("nan"))
    assert Picture(np.zeros((3, 24, 16), np.uint8).transpose(), -1, "x", 1.0).image.flags.c_contiguous
