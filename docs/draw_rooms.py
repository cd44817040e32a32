#!/usr/bin/env python3
"""Draw the rooms of foveasim and the arrows between them, and list the rooms in CONTRIBUTING.md.

python docs/draw_rooms.py           write docs/rooms.svg and the table in CONTRIBUTING.md
python docs/draw_rooms.py --check   say what is out of date, and write nothing

The source is read by tests/house/rooms.py, by which the tests hold that imports run one way.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "house"))

from rooms import arrows, between_rooms, modules, promises, purposes  # noqa: E402

PICTURE = ROOT / "docs" / "rooms.svg"
PAGE = ROOT / "CONTRIBUTING.md"
TABLE = re.compile(r"(<!-- rooms: .*? -->\n)(.*?)(<!-- end of rooms -->)", re.DOTALL)

STAGES = {
    "foveasim": ("THE EYE", "#3b6ea5"),
    "foveasim.scanpath": ("GAZE", "#7a5ba8"),
    "foveasim.drawing": ("SHOW", "#6b6f76"),
    "foveasim.envs": ("ENVS", "#2f8f83"),
    "foveasim.agents": ("ACT", "#c0562f"),
    "foveasim.agents.contract": ("JUDGE", "#a8872a"),
    "foveasim.agents.scanpath_model": ("TRAIN", "#b0446c"),
    "foveasim.experiments": ("REPORT", "#4d7d34"),
    "foveasim.viewer": ("WATCH", "#3b6ea5"),
    "foveasim.bench": ("DOORS", "#6b6f76"),
}
"""The room with which a part of the house begins, what that part is called there, and its colour."""

ROW, BOX, LEFT, TOP, WIDTH = 29, 232, 270, 88, 960
CAPTIONS = (
    (
        1,
        "imports",
        (
            "only from rooms that stand above; the thicker, the more modules",
            "not drawn: to foveasim/, and what follows from others",
        ),
    ),
    (-1, "names", ("in registries and lazy faces:", "imported when somebody asks")),
)
Pair = tuple[str, str]


def content(files: Mapping[str, Path]) -> list[str]:
    """Return what the picture says, a line each: the rooms with their purposes, imports (->) and promises (~>)."""
    said = [f"{name}: {purpose}" for name, purpose in purposes(files).items()]
    said += [f"{here} -> {there}" for here, there in sorted(between_rooms(arrows(files)))]
    return said + [f"{here} ~> {there}" for here, there in sorted(between_rooms(promises(files)))]


def table(files: Mapping[str, Path]) -> str:
    """Return the rooms as a Markdown table."""
    rows = ["| room | holds |", "| --- | --- |"]
    for name, purpose in purposes(files).items():
        path = files[name].parent.relative_to(ROOT).as_posix()
        rows.append(f"| [`{path}/`]({path}) | {purpose.replace('``', '`')} |")
    return "\n".join([*rows, ""])


def implied(pairs: Mapping[Pair, int]) -> set[Pair]:
    """Return the arrows that follow from others: A to C where A leads to B, and B by whatever way to C."""
    leads: dict[str, set[str]] = {}
    for here, there in pairs:
        leads.setdefault(here, set()).add(there)

    def reached(start: str) -> set[str]:
        found, waiting = set[str](), [*leads.get(start, ())]
        while waiting:
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting += leads.get(one, ())
        return found

    beyond = {name: reached(name) for name in leads}
    return {
        (here, there) for here, there in pairs if any(there in beyond.get(one, ()) for one in leads[here] - {there})
    }


def arc(y: float, end: float, side: int, colour: str, style: str) -> str:
    """Return an arc from one box to another, on their right (side 1) or left (-1)."""
    edge = LEFT + BOX if side > 0 else LEFT
    out = edge + side * (14 + (21 if side > 0 else 15) * (abs(end - y) / ROW) ** (0.88 if side > 0 else 0.78))
    return (
        f'<path d="M{edge} {y:.1f} C{out:.1f} {y:.1f} {out:.1f} {end:.1f} {edge + side * 7} {end:.1f}" '
        f'stroke="{colour}" marker-end="url(#{"to" if side > 0 else "by"}-{colour[1:]})" {style}/>'
    )


def spread(pairs: Mapping[Pair, int], row: Mapping[str, int]) -> Iterator[tuple[Pair, float, float]]:
    """Yield arrows with the height where each begins and ends: those of one box stand apart, the longest outermost."""
    ends: dict[tuple[str, int], list[tuple[int, Pair, int]]] = {}
    for pair in pairs:
        span = row[pair[1]] - row[pair[0]]
        ends.setdefault((pair[0], span > 0), []).append((span, pair, 0))
        ends.setdefault((pair[1], span < 0), []).append((-span, pair, 1))
    height: dict[tuple[Pair, int], float] = {}
    for (name, below), held in ends.items():
        # Nearest to the middle of the box are the arrows that go farthest.
        held.sort(key=lambda one: -abs(one[0]))
        for place, (_, pair, end) in enumerate(held):
            away = min(10.0, 1.5 + 9 * place / max(3, len(held)))
            height[pair, end] = TOP + row[name] * ROW + (away if below else -away)
    for pair in pairs:
        yield pair, height[pair, 0], height[pair, 1]


def picture(files: Mapping[str, Path]) -> str:
    """Return the picture, SVG."""
    said = purposes(files)
    row = {name: number for number, name in enumerate(said)}
    part, parts = ("", ""), {}
    for name in said:
        part = STAGES.get(name, part)
        parts[name] = part
    imports, named = between_rooms(arrows(files)), between_rooms(promises(files))
    # All stand on the root, so that arrows to it would say nothing.
    solid = {pair: count for pair, count in imports.items() if pair not in implied(imports) and pair[1] != "foveasim"}
    colours = sorted({colour for _, colour in STAGES.values()})
    bottom = TOP + len(said) * ROW
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + 6}" '
        f'viewBox="0 0 {WIDTH} {bottom + 6}" font-family="Helvetica, Arial, sans-serif" fill="none">',
        "<title>The rooms of foveasim, and which imports which</title>",
        "<desc>",
        *(escape(line) for line in content(files)),
        "</desc>",
        "<defs>",
    ]
    for side, colour in ((side, colour) for side in ("to", "by") for colour in colours):
        drawn.append(
            f'<marker id="{side}-{colour[1:]}" viewBox="0 0 8 8" refX="1" refY="4" markerWidth="7" markerHeight="7" '
            f'markerUnits="userSpaceOnUse" orient="{180 if side == "to" else 0}">'
            f'<path d="M0 0 L8 4 L0 8 z" fill="{colour}"/></marker>'
        )
    drawn += ["</defs>", f'<rect width="{WIDTH}" height="{bottom + 6}" fill="#ffffff"/>']
    for side, head, lines in CAPTIONS:
        at = f'x="{LEFT + BOX + 8 if side > 0 else LEFT - 8}" text-anchor="{"start" if side > 0 else "end"}"'
        drawn.append(f'<text {at} y="24" font-size="14" font-weight="bold" fill="#222">{head}</text>')
        for number, line in enumerate(lines):
            drawn.append(f'<text {at} y="{41 + 15 * number}" font-size="12" fill="#555">{line}</text>')
    for (here, _), begin, end in spread(named, row):
        drawn.append(arc(begin, end, -1, parts[here][1], 'stroke-width="1" stroke-dasharray="1.5 2.5"'))
    for (here, there), begin, end in spread(solid, row):
        thick = min(5.0, 0.7 + 0.3 * imports[here, there])
        drawn.append(arc(begin, end, 1, parts[here][1], f'stroke-width="{thick:.1f}" stroke-opacity="0.8"'))
    shown = ("", "")
    for name, number in row.items():
        label, colour = parts[name]
        y = TOP + number * ROW
        folder = files[name].parent.relative_to(ROOT).as_posix()
        drawn.append(
            f'<rect x="{LEFT}" y="{y - 12}" width="{BOX}" height="24" rx="4" fill="#ffffff"/>'
            f'<rect x="{LEFT}" y="{y - 12}" width="{BOX}" height="24" rx="4" fill="{colour}" fill-opacity="0.14" '
            f'stroke="{colour}"/><text x="{LEFT + 10}" y="{y + 4}" font-size="13" fill="#111">{folder}/</text>'
        )
        if (label, colour) != shown:
            drawn.append(
                f'<text x="{LEFT + BOX - 8}" y="{y + 4}" font-size="10" font-weight="bold" letter-spacing="1" '
                f'text-anchor="end" fill="{colour}">{label}</text>'
            )
        shown = label, colour
    return "\n".join([*drawn, "</svg>", ""])


def faults(files: Mapping[str, Path]) -> list[str]:
    """Return what the committed picture and table say otherwise than the source."""
    text = PICTURE.read_text(encoding="utf-8") if PICTURE.is_file() else ""
    inside = re.search(r"<desc>\n(.*?)\n</desc>", text, re.DOTALL)
    drawn = set(inside[1].splitlines()) if inside else set[str]()
    now = {escape(line) for line in content(files)}
    found = [f"docs/rooms.svg does not show: {line}" for line in sorted(now - drawn)]
    found += [f"docs/rooms.svg still shows: {line}" for line in sorted(drawn - now)]
    listed = TABLE.search(PAGE.read_text(encoding="utf-8"))
    if listed is None or listed[2] != table(files):
        found.append("the table of rooms in CONTRIBUTING.md is not what the rooms say of themselves")
    return found


def main() -> int:
    """Write, or check."""
    files = modules()
    if sys.argv[1:] == ["--check"]:
        wrong = faults(files)
        print("\n".join([*wrong, "Run: python docs/draw_rooms.py"] if wrong else ["up to date"]))
        return 1 if wrong else 0
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 2
    PICTURE.write_text(picture(files), encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TABLE.sub(lambda match: match[1] + table(files) + match[3], page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
