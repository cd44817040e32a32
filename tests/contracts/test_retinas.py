"""What every retina of the registry keeps to: purity, no leak, symmetry, lanes apart, any size and fixation, errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from foveasim.errors import InvalidTypeError, InvalidValueError, UnknownNameError
from foveasim.eye.masks import Disc, Patches, TwoSpot
from foveasim.eye.pyramid import Pyramid
from foveasim.eye.receptors import LogPolar, Multiscale, Window
from foveasim.eye.retina import RETINAS, Full, Prepared, Retina, fresh_arrays, make_retina
from foveasim.rng import Key
from foveasim.types import Glimpse, Scene

EYES: dict[str, Retina] = {name: make_retina(name) for name in RETINAS} | {
    "pyramid-paper": Pyramid(preset="paper"),
    "pyramid-shallow": Pyramid(half_deg=0.5, levels=2),
    "disc-image-mean": Disc(fill="image_mean"),
    "disc-blur": Disc(fill="blur", hidden_ratio=0.5),
    "disc-degrees": Disc(radius_deg=3.3),
    "disc-point": Disc(radius_deg=0.0),
    "two_spot-blur": TwoSpot(fill="blur"),
    "two_spot-image-mean": TwoSpot(fill="image_mean", hidden_ratio=0.95),
    "patches-odd": Patches(patch_px=7, hidden_ratio=0.35),
    "patches-blur": Patches(fill="blur"),
    "patches-image-mean": Patches(fill="image_mean"),
    "window-pixels": Window(size_deg=None, patch_px=9),
    "window-fine": Window(size_deg=1.1, patch_px=31),
    "window-one": Window(size_deg=0.05, patch_px=1),
    "multiscale-fine": Multiscale(size_deg=0.7, patch_px=5, scales=3),
    "log_polar-coarse": LogPolar(rings=5, wedges=16, fovea_deg=0.3),
}
SEEING_ALL = {"full", "pyramid", "pyramid-paper", "pyramid-shallow", "log_polar", "log_polar-coarse"}
SIZE = (61, 50)
EDGES = ((0.0, 0.0), (50.0, 61.0), (0.0, 61.0), (25.0, 0.0), (50.0, 30.2), (12.3, 40.9), (24.99, 30.5), (49.5, 0.5))


def eyes(applies: Callable[[Retina], bool]) -> pytest.MarkDecorator:
    """Run a test with every eye that it applies to."""
    chosen = {name: eye for name, eye in EYES.items() if applies(eye)}
    return pytest.mark.parametrize("eye", chosen.values(), ids=chosen.keys())


every_eye = eyes(lambda _: True)


def scene_of(image: Tensor, px_per_deg: float | list[float] = 3.5) -> Scene:
    lanes = len(image)
    scale = torch.tensor(px_per_deg if isinstance(px_per_deg, list) else [px_per_deg] * lanes)
    return Scene(image, torch.full((lanes,), -1), scale, ("",) * lanes, torch.zeros(lanes))


def noise(lanes: int, size: tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (lanes, *size, 3), dtype=np.uint8))


def points(*xy: tuple[float, float]) -> Tensor:
    return torch.tensor(xy, dtype=torch.float32)


def look(eye: Retina, scene: Scene, fixation_px: Tensor, seed: int = 3) -> Glimpse:
    return eye(scene, fixation_px, Key.of(seed, len(fixation_px)) if eye.needs_key else None)


def assert_same(one: Glimpse, other: Glimpse) -> None:
    torch.testing.assert_close(one.image, other.image, atol=0, rtol=0)
    torch.testing.assert_close(one.acuity, other.acuity, atol=0, rtol=0)
    assert (one.patch is None) == (other.patch is None)
    if one.patch is not None and other.patch is not None:
        torch.testing.assert_close(one.patch, other.patch, atol=0, rtol=0)


@every_eye
def test_a_glimpse_is_registered_with_the_scene_and_pure(eye: Retina) -> None:
    scene = scene_of(noise(len(EDGES)))
    before, fixation = scene.image.clone(), points(*EDGES)
    glimpse = look(eye, scene, fixation)
    assert glimpse.image.shape == scene.image.shape
    assert glimpse.acuity.shape == scene.image.shape[:3]
    assert glimpse.image.dtype == glimpse.acuity.dtype == torch.uint8
    assert glimpse.image.is_contiguous()
    glimpse.image.fill_(0)
    assert torch.equal(scene.image, before)
    assert torch.equal(fixation, points(*EDGES))
    assert not torch.equal(look(eye, scene, fixation).image, glimpse.image)


@every_eye
def test_a_uniform_scene_stays_uniform_at_any_gaze(eye: Retina) -> None:
    colours = torch.tensor([[0, 0, 0], [255, 255, 255], [1, 128, 254], [77, 3, 200]], dtype=torch.uint8)
    fixation = points(*EDGES)
    for size in (SIZE, (50, 97)):
        image = colours.repeat(2, 1)[:, None, None].expand(-1, *size, -1).contiguous()
        for shift in range(4):
            assert torch.equal(look(eye, scene_of(image), fixation.roll(shift, 0)).image, image)


@every_eye
def test_the_same_key_gives_the_same_glimpse(eye: Retina) -> None:
    scene, fixation = scene_of(noise(4)), points(*EDGES[:4])
    assert_same(look(eye, scene, fixation), look(replace(eye), scene, fixation))
    moved = torch.equal(look(eye, scene, fixation).image, look(eye, scene, fixation, seed=99).image)
    assert moved != eye.needs_key


@every_eye
def test_no_hidden_pixel_is_read_unless_the_retina_says_so(eye: Retina, request: pytest.FixtureRequest) -> None:
    zooms = (None, 0.5, 1.3, 2.0) if eye.zoomable else (None,)
    hidden_somewhere, changed = False, False
    for zoom in zooms:
        for size in (SIZE, (50, 97)):
            scene = scene_of(noise(len(EDGES), size), 2.9)
            key = Key.of(5, len(EDGES))
            stretch = None if zoom is None else torch.full((len(EDGES),), zoom)
            seen = eye.sense(eye.prepare(scene), points(*EDGES), key, stretch)
            hidden = (seen.acuity == 0)[..., None]
            other = scene_of(torch.where(hidden, 255 - scene.image // 2, scene.image), 2.9)
            again = eye.sense(eye.prepare(other), points(*EDGES), key, stretch)
            hidden_somewhere |= bool(hidden.any())
            if eye.leaks:
                changed |= not torch.equal(seen.image, again.image)
            else:
                assert_same(seen, again)
    label = request.node.callspec.id
    assert hidden_somewhere == (label not in SEEING_ALL - {"log_polar", "log_polar-coarse"} and "blur" not in label)
    assert changed == eye.leaks


@eyes(lambda eye: not isinstance(eye, Window | LogPolar))  # receptors average boxes
def test_where_acuity_is_full_and_a_retina_hides_the_scene_itself_is_shown(eye: Retina) -> None:
    scene = scene_of(noise(len(EDGES)))
    glimpse = look(eye, scene, points(*EDGES))
    sharp = glimpse.acuity == 255
    assert bool(sharp.any())
    assert torch.equal(glimpse.image[sharp], scene.image[sharp])


@every_eye
def test_lanes_do_not_touch_each_other(eye: Retina) -> None:
    scene = scene_of(noise(len(EDGES)), [3.5, 1.0, 7.7, 3.5, 2.2, 3.51, 12.0, 3.5])
    together = look(eye, scene, points(*EDGES), seed=40)
    for lane, point in enumerate(EDGES):
        alone = scene_of(scene.image[lane : lane + 1], [float(scene.px_per_deg[lane])])
        glimpse = look(eye, alone, points(point), seed=40 + lane)
        assert torch.equal(glimpse.image[0], together.image[lane])
        assert torch.equal(glimpse.acuity[0], together.acuity[lane])


# Places drawn at random are not transposed, nor is the fixated pixel of a wide first ring.
@eyes(lambda eye: not eye.needs_key and eye != EYES["log_polar-coarse"])
@pytest.mark.parametrize("size", [(61, 50), (50, 97)])
def test_a_transposed_scene_gives_the_transposed_glimpse(eye: Retina, size: tuple[int, int]) -> None:
    image, fixation = noise(len(EDGES), size), points(*EDGES)
    there = look(eye, scene_of(image), fixation)
    back = look(eye, scene_of(image.transpose(1, 2)), fixation.flip(1))
    inexact = EYES["pyramid-paper"], EYES["disc-blur"]  # convolved in float32, so rounding may differ
    assert torch.equal(back.acuity.transpose(1, 2), there.acuity)
    torch.testing.assert_close(
        back.image.transpose(1, 2).short(), there.image.short(), atol=int(eye in inexact), rtol=0
    )


# A grid of pixels halves symmetrically where its sides are 1 more than a multiple of 2**5.
MIRRORED = ["full", "pyramid", "disc", "disc-blur", "disc-degrees", "disc-image-mean", "log_polar", "window-pixels"]


@pytest.mark.parametrize("name", MIRRORED)
@pytest.mark.parametrize("axis", [1, 2])
def test_a_mirrored_scene_gives_the_mirrored_glimpse(name: str, axis: int) -> None:
    height, width = size = (97, 65)
    fixation = points((0.5, 0.5), (32.5, 48.5), (10.5, 90.5), (64.5, 3.5))
    mirrored = fixation.clone()
    mirrored[:, 2 - axis] = (height if axis == 1 else width) - fixation[:, 2 - axis]
    image = noise(len(fixation), size)
    there = look(EYES[name], scene_of(image), fixation)
    back = look(EYES[name], scene_of(image.flip(axis)), mirrored)
    torch.testing.assert_close(back.image.flip(axis).short(), there.image.short(), atol=int("blur" in name), rtol=0)
    assert torch.equal(back.acuity.flip(axis), there.acuity)


RADIAL = ["pyramid", "pyramid-shallow", "pyramid-paper", "disc", "disc-degrees", "disc-point", "log_polar"]
CONCENTRIC = [*RADIAL, "log_polar-coarse", "multiscale", "multiscale-fine", "window", "window-pixels", "window-fine"]


@pytest.mark.parametrize("name", CONCENTRIC)
@pytest.mark.parametrize("px_per_deg", [1.3, 3.5, 20.0])
def test_acuity_is_greatest_where_the_eye_looks_and_never_rises_outwards(name: str, px_per_deg: float) -> None:
    acuity = look(EYES[name], scene_of(noise(len(EDGES)), px_per_deg), points(*EDGES)).acuity.short()
    height, width = SIZE
    for lane, (x, y) in enumerate(EDGES):
        column, row = min(int(x), width - 1), min(int(y), height - 1)
        assert acuity[lane, row, column] == acuity[lane].max() > 0
        along = (acuity[lane, row, column:], acuity[lane, row, : column + 1].flip(0))
        across = (acuity[lane, row:, column], acuity[lane, : row + 1, column].flip(0))
        assert all(bool((ray.diff() <= 0).all()) for ray in (*along, *across))
        if name in RADIAL:
            down, right = torch.meshgrid(torch.arange(height) - row, torch.arange(width) - column, indexing="ij")
            order = (down**2 + right**2).flatten().argsort()
            assert bool((acuity[lane].flatten()[order].diff() <= 0).all())


@every_eye
@pytest.mark.parametrize("size", [(8, 8), (8, 31), (33, 9), (17, 64), (96, 96)])
def test_any_size_will_do(eye: Retina, size: tuple[int, int]) -> None:
    if isinstance(eye, Pyramid) and eye.preset == "paper" and min(size) < 48:
        with pytest.raises(InvalidValueError, match=f"at least 48 px a side; got {size[0]} x {size[1]}"):
            look(eye, scene_of(noise(1, size)), points((1, 1)))
        return
    image = noise(1, size)
    for point in ((0.0, 0.0), (float(size[1]), float(size[0])), (size[1] / 2, size[0] / 2)):
        assert look(eye, scene_of(image), points(point)).image.shape == image.shape


@pytest.mark.parametrize("name", list(RETINAS))
def test_big_scenes_and_many_lanes(name: str) -> None:
    assert look(EYES[name], scene_of(noise(1, (700, 500)), 25.0), points((499.9, 3.0))).acuity.shape == (1, 700, 500)
    many = look(EYES[name], scene_of(noise(100, (16, 20))), torch.rand(100, 2) * 16)
    assert many.image.shape == (100, 16, 20, 3)


@every_eye
def test_gaze_beyond_the_edge_stops_at_the_edge(eye: Retina) -> None:
    scene = scene_of(noise(5))
    beyond = look(eye, scene, points((-3, 20), (1e30, 7), (12, -1e30), (50.0, 61.0), (1e9, 1e9)))
    held = look(eye, scene, points((0, 20), (49.5, 7), (12, 0.2), (49.9, 60.1), (49.5, 60.5)))
    assert_same(beyond, held)


@every_eye
def test_a_scene_in_another_memory_layout_looks_the_same(eye: Retina) -> None:
    image = noise(2)
    strided = image.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not strided.is_contiguous()
    assert_same(look(eye, scene_of(strided), points(*EDGES[:2])), look(eye, scene_of(image), points(*EDGES[:2])))


@every_eye
def test_arrays_and_tensors_say_the_same(eye: Retina) -> None:
    prepared, key = eye.prepare(scene_of(noise(3))), Key.of(1, 3)
    fixation = points(*EDGES[3:6])
    arrays = eye.sense_arrays(prepared, fixation.numpy(), key, None)
    if arrays is None:
        return
    glimpse = eye.sense(prepared, fixation, key)
    assert np.array_equal(arrays[0], glimpse.image.numpy())
    assert np.array_equal(arrays[1], glimpse.acuity.numpy())


@every_eye
def test_a_plan_notes_what_has_been_seen_on_the_way(eye: Retina) -> None:
    prepared, key, rng = eye.prepare(scene_of(noise(3))), Key.of(1, 3), np.random.default_rng(0)
    known = rng.integers(0, 256, (3, *SIZE), dtype=np.uint8)
    coverage = rng.random((2, 3), dtype=np.float32)
    expected, before = known.copy(), coverage[0].copy()
    for place in (EDGES[:3], EDGES[3:6]):
        fixation = points(*place).numpy()
        plan = eye.plan(prepared, fixation, key, None)
        if plan is None or not plan.widens:
            return
        image, acuity = fresh_arrays(3, SIZE)
        for first, last in ((0, 1), (1, 3)):
            plan.kernel(*plan.arguments, image, acuity, known, coverage, first, last)
        alone = eye.sense_arrays(prepared, fixation, key, None)
        assert alone is not None
        assert np.array_equal(image, alone[0])
        assert np.array_equal(acuity, alone[1])
        expected = np.maximum(expected, alone[1])
        assert np.array_equal(known, expected)
        np.testing.assert_allclose(coverage[0], expected.mean((1, 2), dtype=np.float64) / 255, rtol=1e-6)
        assert np.array_equal(coverage[1], before)
        before = coverage[0].copy()


@every_eye
def test_lanes_that_share_scenes_see_what_lanes_with_their_own_see(eye: Retina) -> None:
    assert eye.shares
    scale, rows = torch.tensor([3.0, 4.0, 3.0, 5.0]), torch.tensor([2, 0, 2, 3])
    scene = replace(scene_of(noise(4)), px_per_deg=scale)
    whole = eye.prepare(scene)
    shared = replace(whole, px_per_deg=scale[rows], rows=rows)
    own = eye.prepare(replace(scene, image=scene.image[rows], px_per_deg=scale[rows]))
    fixation, key = points(*EDGES[1:5]), Key.of(1, 4)
    assert_same(eye.sense(shared, fixation, key), eye.sense(own, fixation, key))
    assert_same(eye.sense(shared.unshared(), fixation, key), eye.sense(own, fixation, key))
    some = torch.tensor([1, 2])
    few = (fixation[some], Key(key.seed[some], key.episode[some], key.step[some]))
    assert_same(eye.sense(shared.take(some), *few), eye.sense(own.take(some), *few))
    if eye.zoomable:
        zoom = torch.tensor([1.0, 2.0, 0.5, 1.0])
        assert_same(eye.sense(shared, fixation, key, zoom), eye.sense(own, fixation, key, zoom))


def test_a_subclass_shares_only_if_it_says_so() -> None:
    class Inverted(Disc):
        pass

    class Knowing(Disc):
        shares = True

    assert (Disc().shares, Inverted().shares, Knowing().shares) == (True, False, True)


@eyes(lambda eye: eye.zoomable)
def test_a_zoom_of_1_is_none_and_one_of_2_is_never_sharper_where_the_eye_looks(eye: Retina) -> None:
    prepared, fixation = eye.prepare(scene_of(noise(4))), points(*EDGES[4:])
    assert_same(eye.sense(prepared, fixation), eye.sense(prepared, fixation, zoom=torch.ones(4)))
    wide = eye.sense(prepared, fixation, zoom=torch.tensor([2.0, 1.0, 2.0, 1.0]))
    plain = eye.sense(prepared, fixation)
    assert torch.equal(wide.image[1::2], plain.image[1::2])
    peak = wide.acuity.flatten(1).amax(1).short() - plain.acuity.flatten(1).amax(1).short()
    assert bool((peak <= 0).all())
    assert eye == EYES["window-one"] or not torch.equal(wide.acuity[::2], plain.acuity[::2])


@every_eye
def test_scaled_refuses_nonsense_and_by_1_changes_nothing(eye: Retina) -> None:
    fixation = points(*EDGES[:2])
    assert_same(look(eye.scaled(1.0), scene_of(noise(2)), fixation), look(eye, scene_of(noise(2)), fixation))
    for factor in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InvalidValueError, match="factor"):
            eye.scaled(factor)


@every_eye
def test_prepared_lanes_can_be_taken_and_put(eye: Retina) -> None:
    prepared, key = eye.prepare(scene_of(noise(3), [3.5, 1.5, 6.0])), Key.of(4, 3)
    fixation = points(*EDGES[3:6])
    whole = eye.sense(prepared, fixation, key)
    order = torch.tensor([2, 0, 1])
    taken = eye.sense(prepared.take(order), fixation[order], Key(key.seed[order], key.episode, key.step))
    assert torch.equal(taken.image, whole.image[order])
    other = eye.prepare(scene_of(noise(1, seed=9), 2.0))
    expected = eye.sense(other, fixation[2:], Key(key.seed[2:], key.episode[2:], key.step[2:]))
    prepared.put(2, other)
    mixed = eye.sense(prepared, fixation, key)
    assert torch.equal(mixed.image[2:], expected.image)
    assert torch.equal(mixed.image[:2], whole.image[:2])


def test_full_sees_everything() -> None:
    scene = scene_of(noise(2))
    glimpse = look(Full(), scene, points((0, 0), (50, 61)))
    assert torch.equal(glimpse.image, scene.image)
    assert bool((glimpse.acuity == 255).all())


@every_eye
def test_images_are_checked(eye: Retina) -> None:
    def see(image: Tensor) -> Glimpse:
        return look(eye, scene_of(image), torch.ones(len(image), 2))

    with pytest.raises(InvalidTypeError, match="uint8"):
        see(noise(1).float())
    with pytest.raises(InvalidValueError, match=r"Add a batch axis: scene.image\[None\]"):
        see(noise(1)[0])
    with pytest.raises(InvalidValueError, match=r"Channels come last: use .permute\(0, 2, 3, 1\)"):
        see(noise(1).permute(0, 3, 1, 2))
    with pytest.raises(InvalidValueError, match=r"scene\.image"):
        see(noise(1)[..., :1])


@every_eye
def test_fixations_are_checked(eye: Retina) -> None:
    def see(fixation: object) -> Glimpse:
        return eye(scene_of(noise(2)), fixation, Key.of(0, 2))  # type: ignore[arg-type]  # that is what is tested

    with pytest.raises(InvalidValueError, match=r"Add a batch axis: fixation_px\[None\]"):
        see(torch.ones(2))
    with pytest.raises(InvalidValueError, match=r"must be \(2, 2\); got \(3, 2\)"):
        see(torch.ones(3, 2))
    with pytest.raises(InvalidValueError, match="fixation_px must be finite; lane 1"):
        see(points((1, 1), (float("nan"), 1)))
    with pytest.raises(InvalidTypeError, match="fixation_px"):
        see("centre")


@pytest.mark.parametrize("scale", [[3.5], [3.5, 0.0], [3.5, -1.0], [3.5, float("nan")], [3.5, float("inf")]])
def test_px_per_deg_is_checked(scale: list[float]) -> None:
    with pytest.raises(InvalidValueError, match=r"scene.px_per_deg must be \(2,\), finite and above 0"):
        Disc()(scene_of(noise(2), scale), torch.ones(2, 2))


@pytest.mark.parametrize("eye", [TwoSpot(), Patches()])
def test_a_key_is_asked_for_where_one_is_needed(eye: Retina) -> None:
    scene, fixation = scene_of(noise(2)), torch.ones(2, 2)
    with pytest.raises(InvalidValueError, match=r"draws random numbers; give key=Key.of\(seed, lanes\)"):
        eye(scene, fixation)
    with pytest.raises(InvalidValueError, match="key must have 2 lanes; got 1"):
        eye(scene, fixation, Key.of(0, 1))
    for sense in (eye.sense, lambda *given: eye.sense_arrays(*given, None)):
        with pytest.raises(InvalidValueError, match="draws random numbers"):
            sense(eye.prepare(scene), fixation if sense == eye.sense else fixation.numpy(), None)


@pytest.mark.parametrize("eye", [Pyramid(), Disc(), Window()])
def test_a_retina_refuses_what_another_prepared(eye: Retina) -> None:
    with pytest.raises(InvalidValueError, match="prepared comes from another retina"):
        replace(eye).sense(eye.prepare(scene_of(noise(1))), torch.ones(1, 2))


def test_names_lead_to_retinas() -> None:
    assert make_retina("disc", hidden_ratio=0.5) == Disc(hidden_ratio=0.5)
    assert make_retina("foveasim.eye.masks:Disc") == Disc()
    eye = Disc()
    assert make_retina(eye) is eye
    assert make_retina(eye, fill="blur") == Disc(fill="blur")
    for name in RETINAS:
        assert make_retina(name).name == name


def test_wrong_names_and_options_are_explained() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'pyramid'"):
        make_retina("piramid")
    with pytest.raises(InvalidTypeError, match="hiden_ratio"):
        make_retina("disc", hiden_ratio=0.5)
    with pytest.raises(InvalidTypeError, match=r"no option 'hiden_ratio'\. It takes fill, hidden_ratio, radius_deg"):
        make_retina(Disc(), hiden_ratio=0.5)
    with pytest.raises(InvalidTypeError, match=r"retina must be a name or a .*Retina; got 5"):
        make_retina(5)  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(InvalidTypeError, match="retina must be"):
        make_retina("foveasim.rng:Key.of", seed=1)


@dataclass(frozen=True)
class Backwards(Retina):
    """A retina of a user's own: the least that one must write."""

    name = "backwards"

    def prepare(self, scene: Scene) -> Prepared:
        return Prepared(scene.image, scene.px_per_deg)

    def sense(
        self, prepared: Prepared, fixation_px: Tensor, key: Key | None = None, zoom: Tensor | None = None
    ) -> Glimpse:
        return Glimpse(prepared.image.flip(2), torch.full_like(prepared.image[..., 0], 255))


def test_a_retina_of_ones_own() -> None:
    scene = scene_of(noise(2))
    glimpse = make_retina(Backwards())(scene, torch.ones(2, 2))
    assert torch.equal(glimpse.image, scene.image.flip(2))


@pytest.mark.gpu
@every_eye
def test_the_accelerator_agrees_with_the_kernels(eye: Retina) -> None:
    image, fixation, key = noise(len(EDGES)), points(*EDGES), Key.of(3, len(EDGES))
    here = eye(scene_of(image), fixation, key)
    there_scene = scene_of(image)
    there = eye(
        Scene(
            image.cuda(),
            there_scene.label.cuda(),
            there_scene.px_per_deg.cuda(),
            there_scene.name,
            there_scene.time_ms.cuda(),
        ),
        fixation.cuda(),
        Key.of(3, len(EDGES), device="cuda"),
    )
    torch.testing.assert_close(there.image.cpu().short(), here.image.short(), atol=1, rtol=0)
    torch.testing.assert_close(there.acuity.cpu(), here.acuity, atol=0, rtol=0)
    if here.patch is not None and there.patch is not None:
        torch.testing.assert_close(there.patch.cpu().short(), here.patch.short(), atol=1, rtol=0)
