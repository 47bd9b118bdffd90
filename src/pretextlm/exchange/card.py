"""The model card of an exported run, written from the run directory: data, objective, cost, scores, limits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm.errors import UserError

if TYPE_CHECKING:
    from pretextlm.exchange.origin import Origin
    from pretextlm.training.run import Run


def model_card(run: Run, family: str, architecture: str, origin: Origin | None, untouched: bool) -> str:
    """README.md of an exported run.

    Args:
        family, architecture: as written to config.json.
        origin: where it was imported from.
        untouched: it was not trained since.
    """
    objective = run.recipe.objective
    parts = [_front(run, family), f"# {_plain(run.recipe.name)}\n"]
    tokens = origin.vocab_size if untouched and origin else run.recipe.model.vocab_size
    parts.append(f"A {family} model ({architecture}) written by pretextlm. {_shape(run, tokens)}\n")
    parts += ["## Data\n", *_data(run, origin, untouched)]
    parts += ["## Objective\n"]
    if untouched:
        parts.append("Not trained here: the weights are those it was imported with.\n")
    else:
        parts.append(f"{objective.title} ({objective.paper}). A model so trained learns {objective.learns}.\n")
        options = {key: value for key, value in run.recipe.dump()["objective"].items() if key != "name"}
        parts.append(f"```json\n{json.dumps({'name': objective.name, **options}, indent=1)}\n```\n")
    parts += ["## Cost\n", *_cost(run, untouched)]
    parts += ["## Scores\n", *_scores(run)]
    parts += ["## Limits\n", *_limits(run, origin, untouched)]
    return "\n".join(parts)


def _front(run: Run, family: str) -> str:
    tasks = {"encoder": "fill-mask", "decoder": "text-generation", "encoder_decoder": "text2text-generation"}
    task = tasks[run.recipe.model.architecture]
    return f"---\nlibrary_name: transformers\npipeline_tag: {task}\ntags:\n- pretextlm\n- {family}\n---\n"


def _shape(run: Run, tokens: int) -> str:
    shape = run.recipe.model
    return (
        f"{shape.num_hidden_layers} layers of width {shape.hidden_size}, {shape.num_attention_heads} heads, "
        f"{tokens:,} tokens."
    )


def _data(run: Run, origin: Origin | None, untouched: bool) -> Iterator[str]:
    if origin is not None:
        yield f"Weights imported from `{_plain(origin.source)}`; what they were trained on is said there.\n"
    if untouched:
        return
    manifest = _json(Path(run.recipe.data.store) / "manifest.json") if run.recipe.data.store else {}
    if not manifest:
        yield f"Trained on the store `{_plain(run.recipe.data.store)}`, which is not at hand.\n"
        return
    yield "| source | licence | documents | bytes |\n|---|---|--:|--:|"
    for source in manifest.get("sources", []):
        cells = (
            source.get("name"),
            source.get("licence") or "not stated",
            source.get("documents"),
            source.get("bytes"),
        )
        yield "| " + " | ".join(_plain(f"{c:,}" if isinstance(c, int) else str(c)) for c in cells) + " |"
    yield ""


def _cost(run: Run, untouched: bool) -> Iterator[str]:
    cost = _json(run.directory / "cost.json")
    if untouched or not cost:
        yield "None here.\n" if untouched else "The run is not finished, so its cost is not known.\n"
        return
    yield (
        f"{cost['parameters']:,} parameters, {cost['steps']:,} steps, {cost['tokens']:,} tokens of text, "
        f"{cost['flops']:.3g} floating-point operations, {cost['seconds']:,.0f} seconds on {_plain(cost['device'])}.\n"
    )


def _scores(run: Run) -> Iterator[str]:
    metrics = _json(run.directory / "evaluation.json").get("metrics", {})
    if not metrics:
        yield f"Not evaluated. `pretextlm evaluate {_plain(run.directory.name)}` measures it.\n"
        return
    yield "| measure | value | ± | unit | better |\n|---|--:|--:|---|---|"
    for name, metric in metrics.items():
        error = "" if metric.get("stderr") is None else f"{metric['stderr']:.4f}"
        yield f"| {name} | {metric['value']:.4f} | {error} | {metric.get('unit', '')} | {metric.get('better', '')} |"
    yield ""


def _limits(run: Run, origin: Origin | None, untouched: bool) -> Iterator[str]:
    positions = run.recipe.model.positions
    if positions.kind == "learned":
        yield f"* It reads at most {positions.max_positions - positions.offset} tokens."
    elif not untouched:
        yield f"* It was trained on rows of {run.recipe.data.length} tokens; longer texts are untried."
    if origin is not None and not untouched and origin.drawn:
        yield "* Its language-model head was not in the imported checkpoint and has been trained here alone."
    if origin is not None and not untouched and origin.added_tokens:
        yield f"* {len(origin.added_tokens)} special tokens were added to its tokenizer; most have not been trained."
    if origin is not None and origin.not_carried:
        yield f"* Not carried over from the imported checkpoint: {', '.join(map(_plain, origin.not_carried[:12]))}."
    heads = sorted(run.recipe.objective.heads(run.recipe.model))
    if heads:
        yield f"* Heads of the objective that this format may have no place for: {', '.join(heads)}."
    yield "* It has been measured on the text and by the measures above and nothing else."
    yield "* It may repeat what is wrong or harmful in its data.\n"


def _plain(text: object) -> str:
    """Text that cannot break out of its line, cell or code in Markdown."""
    return re.sub(r"[\s|`<>\[\]]+", " ", str(text)).strip()[:300]


def _json(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, UserError):
        return {}
    return values if isinstance(values, dict) else {}
