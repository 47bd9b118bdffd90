"""Loss over CPU seconds as a picture: the rivals' training, where they end, and where ours ends at each budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from statistics import fmean
from typing import Any

from pretextlm.report.figures import Scale, ticks
from pretextlm.report.format import tick

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 420, 56, 20, 106, 44
OURS, RIVALS = "#0b6e4f", ("#b3541e", "#7a5195", "#4c6a92")
STYLE = "text{font:12px system-ui,sans-serif;fill:#333}.t{font-weight:600;font-size:14px}.g{stroke:#ddd}"
SKIPPED = 0.12
"""Share of a rival's steps whose losses are far above all else."""

Point = tuple[float, float]


def draw(found: Mapping[str, Any]) -> str:
    """An SVG file's text."""
    tokens, pace = found["tokens"], found["prices"]["pretextlm"]["rate"]
    budgets = [(entry["share"] * tokens / pace, [run["loss"] for run in entry["runs"]]) for entry in found["ours"]]
    mine = [(seconds, fmean(losses)) for seconds, losses in budgets]
    seeds = [(seconds, loss) for seconds, losses in budgets for loss in losses]
    curves = [_late(rival["runs"][-1]["curve"], tokens / rival["rate"]) for rival in found["rivals"]]
    ends = [[(tokens / rival["rate"], run["loss"]) for run in rival["runs"]] for rival in found["rivals"]]
    everything = [*mine, *seeds, *(p for line in curves + ends for p in line)]
    low, high = min(y for _, y in everything), max(y for _, y in everything)
    margin = 0.05 * (high - low)
    x = Scale(0.0, 1.03 * max(a for a, _ in everything), LEFT, WIDTH - RIGHT)
    y = Scale(low - margin, high + margin, HEIGHT - BOTTOM, TOP)
    parts = [_axes(x, y, found["setting"]["objective"].replace("_", " "))]
    names = [rival["name"] for rival in found["rivals"]]
    for index, (name, curve, end) in enumerate(zip(names, curves, ends, strict=True)):
        parts.append(_line(curve, x, y, RIVALS[index], "3 2") + _dots(end, x, y, RIVALS[index]))
        what = "training, and validation at the end" if curve else "validation at the end"
        parts.append(_key(index + 1, f"{name}: {what}", RIVALS[index]))
    parts.append(_line(sorted(mine), x, y, OURS) + _dots(seeds, x, y, OURS))
    parts.append(_key(0, "pretextlm: validation at the end of each budget", OURS))
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    white = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}><style>{STYLE}</style>{white}{"".join(parts)}</svg>\n'


def _late(curve: Sequence[Sequence[float]], seconds: float) -> list[Point]:
    return [(share * seconds, loss) for share, loss in curve if share > SKIPPED]


def _axes(x: Scale, y: Scale, title: str) -> str:
    across = "".join(
        f'<line class="g" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(v)}" y2="{y(v)}"/>'
        f'<text x="{LEFT - 8}" y="{y(v) + 4}" text-anchor="end">{tick(v)}</text>'
        for v in ticks(y.low, y.high, 6)
    )
    down = "".join(
        f'<text x="{x(v)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick(v)}</text>'
        for v in ticks(0.0, x.high, 8)
    )
    middle = (LEFT + WIDTH - RIGHT) / 2
    label = f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">CPU seconds of training, one thread</text>'
    return across + down + label + f'<text class="t" x="{LEFT}" y="20">{title}: loss in nats per target</text>'


def _line(points: Sequence[Point], x: Scale, y: Scale, color: str, dashes: str = "") -> str:
    path = "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in points or [(x.low, y.low)])
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<path d="{path}" fill="none" stroke="{color}" stroke-width="2"{dashed}/>'


def _dots(points: Sequence[Point], x: Scale, y: Scale, color: str) -> str:
    return "".join(f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3.5" fill="{color}"/>' for a, b in points)


def _key(place: int, text: str, color: str) -> str:
    at = 40 + 18 * place
    circle = f'<circle cx="{WIDTH - RIGHT - 8}" cy="{at - 4}" r="4" fill="{color}"/>'
    return f'{circle}<text x="{WIDTH - RIGHT - 18}" y="{at}" text-anchor="end">{escape(text)}</text>'
