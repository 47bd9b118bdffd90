"""Geometry of the figures: numbers in, coordinates out. `figures.html` renders them as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pretextlm.metric import Better
from pretextlm.report import format as form
from pretextlm.report.measures import MANY, Measure, Measured
from pretextlm.report.read import Condition, Run, Study, number, table

WIDTH, HEIGHT = 340.0, 214.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 16.0, 14.0, 36.0
ROW, HEAD, FOOT = 46.0, 6.0, 34.0
PAD = 10.0
MAX_POINTS = 160

Point = tuple[float, float]
Kind = Literal["loss", "accuracy"]


@dataclass(frozen=True)
class Tick:
    """A position on an axis with its label."""

    at: float
    text: str


@dataclass(frozen=True)
class Curve:
    """Line of one run: an SVG path and its last point."""

    path: str
    end: Point
    title: str


@dataclass(frozen=True)
class Panel:
    """Learning curves of one condition against one measure of effort, with the axis label `y_label`."""

    index: int
    title: str
    y_label: str
    x_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    curves: list[Curve]
    final: str


@dataclass(frozen=True)
class Row:
    """One condition in a dot chart: mean, interval and every seed."""

    index: int
    name: str
    text: str
    y: float
    mean: float
    low: float | None
    high: float | None
    seeds: list[float]


@dataclass(frozen=True)
class DotChart:
    """One measure of all conditions on one scale."""

    title: str
    sentence: str
    better: Better | None
    height: float
    ticks: list[Tick]
    rows: list[Row]
    reference: Tick | None


@dataclass(frozen=True)
class Scale:
    """A linear map from values to coordinates."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(self.start + share * (self.stop - self.start), 2)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Returns about `about` round numbers within [low, high]: steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def learning_curves(study: Study) -> list[list[Panel]]:
    """Returns per condition a panel against seconds and one against tokens; conditions without a curve are omitted.

    With many conditions, only against the unit of the budget. All panels of one kind share the horizontal axis: budgets
    are comparable, losses are not.
    """
    efforts = ["seconds", "tokens"]
    if len(study.conditions) > MANY:
        efforts = ["seconds" if table(study.plan, "budget").get("seconds") else "tokens"]
    reach = {effort: _reach(study, effort) for effort in efforts}
    columns = [
        [_panel(i, condition, effort, reach[effort]) for effort in efforts]
        for i, condition in enumerate(study.conditions)
    ]
    return [[panel for panel in column if panel is not None] for column in columns if any(column)]


def task_curves(study: Study) -> list[list[Panel]]:
    """Returns per condition of one task a panel of the loss and, if there is one, of the accuracy, against tokens.

    All panels of one kind share both axes: it is the same task on the same records.
    """
    reach = _reach(study, "tokens")
    kinds: list[tuple[Kind, tuple[float, float]]] = []
    for kind in ("loss", "accuracy"):
        values = [y for run in study.runs for _, y in _points(run, "tokens", kind)]
        if values:
            kinds.append((kind, (min(values), max(values))))
    columns = [
        [_panel(i, condition, "tokens", reach, kind, span) for kind, span in kinds]
        for i, condition in enumerate(study.conditions)
    ]
    return [[panel for panel in column if panel is not None] for column in columns if any(column)]


def forgetting_curves(study: Study) -> list[list[Panel]]:
    """Returns per condition a panel of the loss on each store monitored for forgetting, against tokens."""
    stores = dict.fromkeys(str(line.get("store")) for run in study.runs for line in run.forgetting)
    points = {
        (run.path, store): _thinned([line for line in run.forgetting if line.get("store") == store], "tokens", "loss")
        for run in study.runs
        for store in stores
    }
    reach = max((x for found in points.values() for x, _ in found), default=0.0)
    columns = []
    for index, condition in enumerate(study.conditions):
        column = []
        for store in stores:
            losses = [y for (_, of), found in points.items() if of == store for _, y in found]
            lines = [(run, points[run.path, store]) for run in condition.runs]
            span = min(losses, default=0.0), max(losses, default=0.0)
            column.append(_drawn(index, condition.label, f"loss on {store}", lines, "tokens", reach, "loss", span))
        columns.append([panel for panel in column if panel is not None])
    return [column for column in columns if column]


def _reach(study: Study, effort: str) -> float:
    return max((x for run in study.runs for x, _ in _points(run, effort)), default=0.0)


def _of(line: Mapping[str, Any], kind: Kind) -> float | None:
    """Returns the loss of a validation line (for a distilled task, of its labels alone), or its accuracy."""
    if kind == "accuracy":
        return next((number(value) for name, value in line.items() if name.endswith("_accuracy")), None)
    own = next((number(line[name]) for name in ("class_loss", "tag_loss") if name in line), None)
    return number(line.get("loss")) if own is None else own


def _points(run: Run, effort: str, kind: Kind = "loss") -> list[Point]:
    return _thinned(run.validation, effort, kind)


def _thinned(lines: Sequence[Mapping[str, Any]], effort: str, kind: Kind) -> list[Point]:
    """Returns (effort, loss or accuracy) of each line that has both, subsampled if there are very many."""
    pairs = [(number(line.get(effort)), _of(line, kind)) for line in lines]
    points = [(x, y) for x, y in pairs if x is not None and y is not None]
    stride = max(1, math.ceil(len(points) / MAX_POINTS))
    return [*points[:-1:stride], *points[-1:]]


def _panel(
    index: int,
    condition: Condition,
    effort: str,
    reach: float,
    kind: Kind = "loss",
    span: tuple[float, float] | None = None,
) -> Panel | None:
    lines = [(run, _points(run, effort, kind)) for run in condition.runs]
    return _drawn(index, condition.label, kind, lines, effort, reach, kind, span)


def _drawn(
    index: int,
    title: str,
    y_label: str,
    lines: Sequence[tuple[Run, list[Point]]],
    effort: str,
    reach: float,
    kind: Kind,
    span: tuple[float, float] | None,
) -> Panel | None:
    """Build the curves of some runs.

    Args:
        reach: end of the horizontal axis.
        span: range of the vertical axis; by default that of the curves.

    Returns:
        The panel, or None if no run has two points.
    """
    lines = [(run, points) for run, points in lines if len(points) > 1]
    if not lines or reach <= 0:
        return None
    losses = [y for _, points in lines for _, y in points]
    low, high = span or (min(losses), max(losses))
    margin = 0.06 * (high - low) or 0.5
    x = Scale(0.0, reach, LEFT, WIDTH - RIGHT)
    y = Scale(low - margin, high + margin, HEIGHT - BOTTOM, TOP)
    final = sum(points[-1][1] for _, points in lines) / len(lines)
    label = "seconds of training" if effort == "seconds" else "tokens read"
    return Panel(
        index=index,
        title=title,
        y_label=y_label,
        x_label=label,
        x_ticks=[Tick(x(v), form.tick(v)) for v in ticks(0.0, reach, 6)],
        y_ticks=[Tick(y(v), form.tick(v)) for v in ticks(low - margin, high + margin, 5)],
        curves=[_curve(run, points, x, y, kind) for run, points in lines],
        final=_said(final, kind),
    )


def _said(value: float, kind: Kind) -> str:
    return f"{value:.2f}" if kind == "loss" else form.metric(value, "share")


def _curve(run: Run, points: Sequence[Point], x: Scale, y: Scale, kind: Kind) -> Curve:
    placed = [(x(a), y(b)) for a, b in points]
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in placed)
    last = points[-1][1]
    end = f"{last:.3f} nats per target" if kind == "loss" else f"{form.metric(last, 'share')} right"
    return Curve(path, placed[-1], f"seed {run.seed}: {end} at the end")


def dot_chart(measure: Measure, chance: float | None = None, order: Sequence[int] | None = None) -> DotChart:
    """Build the chart of one of the common measures. An accuracy starts at zero, other measures at their minimum.

    Args:
        chance: value of random guessing.
        order: order of the rows as indices of conditions; by default the study's.

    Returns:
        The chart.
    """
    shown_order = list(order or [])
    rows = sorted(measure.measured, key=lambda m: shown_order.index(m.index) if m.index in shown_order else m.index)
    fraction = measure.unit in form.FRACTIONS
    low, high = _domain(measure.measured, fraction, chance)
    x = Scale(low, high, PAD, WIDTH - PAD)
    steps = ticks(low, high, 5)
    shown = [f"{100 * v:g}%" if fraction else form.tick(v) for v in steps]
    entry = measure.entry
    return DotChart(
        title=entry.title,
        sentence=entry.sentence,
        better=measure.better,
        height=HEAD + ROW * len(measure.measured) + FOOT,
        ticks=[Tick(x(v), text) for v, text in zip(steps, shown, strict=True)],
        rows=[_row(k, measured, measure.unit, x) for k, measured in enumerate(rows)],
        reference=None if chance is None else Tick(x(chance), "chance"),
    )


def _domain(measured: Sequence[Measured], fraction: bool, chance: float | None) -> tuple[float, float]:
    values = [v for m in measured for v in m.values]
    edges = [e for m in measured if m.interval for e in (m.interval.low, m.interval.high)]
    if fraction:
        top = max([*values, *edges, (chance or 0.0), 0.01])
        return 0.0, min(1.0, top * 1.06)
    low, high = min(values), max(values)
    reach = high - low or abs(high) * 0.1 or 1.0
    # Two seeds can have an interval many times the data: it may leave the chart, the data may not.
    low, high = max(min([low, *edges]), low - 2 * reach), min(max([high, *edges]), high + 2 * reach)
    if chance is not None:
        low, high = min(low, chance), max(high, chance)
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def _row(k: int, measured: Measured, unit: str, x: Scale) -> Row:
    interval, half = measured.interval, measured.half_width
    text = form.metric(measured.summary.mean, unit)
    if half is not None:
        text = f"{text} ±{form.THIN}{form.spread(half, measured.summary.mean, unit)}"
    return Row(
        index=measured.index,
        name=measured.condition.label,
        text=text,
        y=HEAD + ROW * k,
        mean=x(measured.summary.mean),
        low=None if interval is None else x(max(interval.low, x.low)),
        high=None if interval is None else x(min(interval.high, x.high)),
        seeds=[x(v) for v in measured.values] if measured.summary.n > 1 else [],
    )
