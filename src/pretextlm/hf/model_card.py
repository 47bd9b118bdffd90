"""The model card of an exported run, written from the run directory: data, objective, cost, scores, limitations."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm import __version__
from pretextlm.errors import UserError
from pretextlm.hf import custom_code
from pretextlm.hf.provenance import kept
from pretextlm.hf.state_dict import DISCRIMINATOR
from pretextlm.hf.untrained import LM_HEAD, untrained_heads
from pretextlm.metric import amount_read
from pretextlm.plain_files import read_json
from pretextlm.printable import printable
from pretextlm.tasks.sentence_embedding import SentenceEmbedding
from pretextlm.training.run_directory import ORIGIN
from pretextlm.training.run_manifest import provenance_of

if TYPE_CHECKING:
    from pretextlm.hf.provenance import Origin
    from pretextlm.hf.state_dict import Translated
    from pretextlm.training.run_directory import Run

FINE_TUNED = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
}
"""Suffix of a class name → the hub's pipeline tag."""
HUB = "hf:"
"""Prefix of a hub model in the source of an import."""


def model_card(
    run: Run,
    done: Translated,
    architecture: str,
    origin: Origin | None,
    untouched: bool,
    quantised: Mapping[str, Any] | None = None,
    *,
    step: int = 0,
    part: str = DISCRIMINATOR,
) -> str:
    """Returns the README.md of an exported run.

    Args:
        run: the run.
        done: the model as written.
        architecture: Hugging Face's model class in config.json.
        origin: provenance of an imported run.
        untouched: it was not trained since the import.
        quantised: if its matrices are eight-bit: "dtype" of the rest, and what `compression` measured.
        step: of the run whose weights were written.
        part: the written model of a run that trains two.
    """
    family = done.family.name
    embeds = isinstance(run.recipe.task, SentenceEmbedding)
    parts = [_front(done, architecture, origin, embeds), f"# {_plain(run.recipe.name)}\n"]
    parts.append(f"A {family} model ({architecture}) written by pretextlm {__version__}. {_shape(done)}\n")
    parts.append(_use(done, architecture, embeds))
    parts += ["## Data\n", *_readable("manifest.json of its store", _data(run, origin, untouched))]
    parts += ["## Objective\n", *_objective(run, untouched, part)]
    parts += ["## Cost\n", *_readable("cost.json", _cost(run, untouched, step))]
    shrunk = [*_readable("run.json", _pruned(run)), *_quantised(quantised)]
    parts += ["## Made smaller\n", *shrunk, ""] if shrunk else []
    parts += ["## Scores\n", *_readable("evaluation.json", _scores(run, quantised))]
    parts += ["## Limits\n", *_limits(run, done, origin, untouched)]
    return "\n".join(parts)


def adapter_card(run: Run, done: Translated, base: str) -> str:
    """Returns the README.md of exported adapters.

    Args:
        run: the run.
        done: the complete model, whose class and labels the adapters are for.
        base: the model below them; "" if it is not known.
    """
    architecture = str(done.values["architectures"][0])
    labels = {name: done.values[name] for name in ("id2label", "label2id") if name in done.values}
    numbered = {int(number): label for number, label in labels.get("id2label", {}).items()}
    options = f", num_labels={len(numbered)}, id2label={numbered!r}, label2id={labels['label2id']!r}" if labels else ""
    name = _plain(base) or "BASE"
    start = _plain(Path(run.recipe.start).name)
    below = "" if base else f"BASE is the run `{start}` as `pretextlm export {start} BASE` writes it.\n"
    return "\n".join(
        [
            f"---\nlibrary_name: peft\n{f'base_model: {json.dumps(name)}' if base else ''}\ntags:\n- pretextlm\n---\n",
            f"# {_plain(run.recipe.name)}\n",
            f"Adapters for a {done.family.name} model ({architecture}), written by pretextlm {__version__}.\n{below}",
            "```python\nfrom peft import PeftModel\nfrom transformers import AutoTokenizer, " + architecture + "\n",
            'tokenizer = AutoTokenizer.from_pretrained("DIRECTORY")',
            f"base = {architecture}.from_pretrained({json.dumps(name)}{options})",
            'model = PeftModel.from_pretrained(base, "DIRECTORY")\n```\n',
            "## Objective\n",
            *_objective(run, False, DISCRIMINATOR),
            "## Scores\n",
            *_readable("evaluation.json", _scores(run, None)),
        ]
    )


def _readable(file: str, lines: Iterator[str]) -> list[str]:
    """Returns lines made of a file's values; a remark if these are of other types than we write, as in a broken run."""
    try:
        return list(lines)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return [f"Not known: the {file} of the run is damaged.\n"]


def _front(done: Translated, architecture: str, origin: Origin | None, embeds: bool) -> str:
    tasks = {"encoder": "fill-mask", "decoder": "text-generation", "encoder_decoder": "text2text-generation"}
    task = tasks[done.config.architecture]
    if architecture == custom_code.BARE or (task == "fill-mask" and not architecture.endswith("MaskedLM")):
        task = "feature-extraction"
    task = next((named for ending, named in FINE_TUNED.items() if architecture.endswith(ending)), task)
    name = origin.source.removeprefix(HUB) if origin and origin.source.startswith(HUB) else ""
    base = f"base_model: {json.dumps(name)}\n" if name else ""
    task, library = ("sentence-similarity", "sentence-transformers") if embeds else (task, "transformers")
    tags = "".join(f"- {tag}\n" for tag in dict.fromkeys(("pretextlm", done.family.name)))
    return f"---\nlibrary_name: {library}\n{base}pipeline_tag: {task}\ntags:\n{tags}---\n"


def _shape(done: Translated) -> str:
    shape = done.config
    layers = f"{shape.num_hidden_layers} layers"
    if shape.architecture == "encoder_decoder":
        layers = f"{shape.num_hidden_layers} encoder and {shape.num_decoder_layers} decoder layers"
    parameters = sum(tensor.numel() for tensor in done.theirs.values())
    return (
        f"{layers} of width {shape.hidden_size}, {shape.num_attention_heads} heads, {shape.vocab_size:,} tokens; "
        f"{parameters:,} parameters."
    )


def _use(done: Translated, architecture: str, embeds: bool) -> str:
    code = ""
    if done.family.name == custom_code.NAME:  # its classes are in the directory: an Auto class finds them there
        architecture, code = architecture.replace("Pretext", "AutoModel", 1), ", trust_remote_code=True"
        architecture = architecture.replace("AutoModelModel", "AutoModel")
    if embeds:
        return (
            "```python\nfrom sentence_transformers import SentenceTransformer\n\n"
            f'model = SentenceTransformer("DIRECTORY"{code})\n'
            'vectors = model.encode(["A text.", "Another one."])\n```\n'
        )
    return (
        f"```python\nfrom transformers import AutoTokenizer, {architecture}\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("DIRECTORY"{code})\n'
        f'model = {architecture}.from_pretrained("DIRECTORY"{code})\n```\n'
    )


def _objective(run: Run, untouched: bool, part: str) -> Iterator[str]:
    recipe = run.recipe
    objective, training = recipe.training_objective, recipe.training
    if untouched:
        yield "Not trained here: the weights are those it was imported with.\n"
        return
    yield f"{objective.title} ({objective.paper}). {objective.summary}\n"
    if part != DISCRIMINATOR:
        yield f"This is its {part}: the masked language model whose proposals the model itself learnt to judge.\n"
    table = recipe.dump()["task" if recipe.task else "objective"]
    options = {key: value for key, value in table.items() if key != "name"}
    yield f"```json\n{json.dumps({'name': objective.name, **options}, indent=1)}\n```\n"
    begun = "imported weights" if recipe.start else f"weights drawn from seed {recipe.seed}"
    if recipe.start and not (run.directory / ORIGIN).is_dir():
        begun = f"the weights of the run `{_plain(Path(recipe.start).name)}`"
    budget = training.budget
    rows = f"Rows of {recipe.data.length} tokens, {training.batch_tokens:,} tokens a step"
    if recipe.task is not None:
        rows = f"Examples of {recipe.data.length} tokens at most, {training.batch_rows:,} a step"
    yield (
        f"Begun from {begun}. {rows}, "
        f"{training.optimizer} with learning rate {training.learning_rate:g} ({training.schedule}), "
        f"budget {budget.size:,.10g} {budget.kind}, seed {recipe.seed}.\n"
    )


def _data(run: Run, origin: Origin | None, untouched: bool) -> Iterator[str]:
    if origin is not None:
        yield f"Weights imported from `{_plain(origin.source)}`; what they were trained on is said there.\n"
    if untouched:
        return
    if run.recipe.task is not None:
        yield f"Fine-tuned on the records of `{_plain(Path(run.recipe.data.train).name)}`.\n"
        return
    manifest = _json(Path(run.recipe.data.store) / "manifest.json") if run.recipe.data.store else {}
    if not manifest:
        yield f"Trained on the store `{_plain(Path(run.recipe.data.store).name)}`, which is not at hand.\n"
        return
    if run.recipe.start and origin is None:
        before = _plain(Path(run.recipe.start).name)
        yield f"The run `{before}`, whose weights this one began from, was trained before on data of its own.\n"
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


def _cost(run: Run, untouched: bool, step: int) -> Iterator[str]:
    cost = _json(run.directory / "cost.json")
    if untouched:
        yield "None here.\n"
        return
    if run.fallback:
        broken = "; ".join(run.fallback["broken_checkpoints"])
        yield f"The weights are those of step {step:,}, since newer ones are broken: {broken}.\n"
    if not cost:
        yield f"The weights are those of step {step:,} of a run that has not ended, so its cost is not known.\n"
        return
    energy = cost.get("energy_joules")
    yield (
        f"{cost['steps']:,} steps, {cost['tokens']:,} tokens of text, {cost['flops']:.3g} floating-point operations, "
        f"{cost['seconds']:,.0f} seconds on {_plain(cost['device'])}"
        + (f", {energy:,.0f} joules" if energy else "")
        + (f"; {cost['parameters']:,} parameters were trained.\n" if cost.get("parameters") else ".\n")
    )


def _pruned(run: Run) -> Iterator[str]:
    """Yields lines on the pruning and its effect."""
    pruned = provenance_of(run.directory).get("pruned")
    for one in pruned if isinstance(pruned, list) else []:
        parameters = one["parameters"]
        yield (
            f"* Pruned: {_plain(one['what'])}. {parameters['before']:,} parameters before, {parameters['after']:,} "
            f"after, {parameters['zero']:,} of them zero. {_compared(one)}"
        )
    if pruned and run.metrics():
        yield "* Trained on after that, which changes pruned weights too."


def _quantised(quantised: Mapping[str, Any] | None) -> Iterator[str]:
    if quantised is not None:
        yield (
            "* The matrices of the blocks are eight-bit integers with one scale for each output channel "
            f"(the format of compressed-tensors); embedding, head and norms are {quantised['dtype']}. "
            f"{_compared(quantised)}"
        )


def _compared(measured: Mapping[str, Any]) -> str:
    """Returns a sentence on the loss or the scores before and after (compression/comparison.py)."""
    scores, loss = measured.get("scores"), measured.get("loss")
    if scores:
        pairs = (f"{name} before {_value(one['before'])}, after {_value(one['after'])}" for name, one in scores.items())
        return f"{'; '.join(pairs)} (standard errors)."
    if not loss:
        reason = _plain(measured.get("not_measured") or "no text was at hand")
        return f"The loss before and after was not measured: {reason}."
    before, after, change = (_value(loss[name]) for name in ("before", "after", "change"))
    return f"Held-out loss before {before}, after {after} nats per target; change {change} (standard errors)."


def _value(metric: Mapping[str, Any]) -> str:
    return f"{metric['value']:.4f}" + (f" ± {metric['stderr']:.4f}" if metric["stderr"] is not None else "")


def _scores(run: Run, quantised: Mapping[str, Any] | None) -> Iterator[str]:
    evaluation = _json(run.directory / "evaluation.json")
    metrics = evaluation.get("metrics", {})
    if not metrics:
        yield f"Not evaluated. `pretextlm evaluate {_plain(run.directory.name)}` measures it.\n"
        return
    if quantised:
        yield "Measured before the weights were rounded:\n"
    if read := amount_read(evaluation.get("settings", {})):
        yield f"Of the held-out text, {read} were read. Standard errors are over documents.\n"
    yield "| measure | value | ± | unit | better |\n|---|--:|--:|---|---|"
    for name, metric in metrics.items():
        error = "" if metric.get("stderr") is None else f"{metric['stderr']:.4f}"
        cells = (name, f"{metric['value']:.4f}", error, metric.get("unit", ""), metric.get("better", ""))
        yield f"| {' | '.join(map(_plain, cells))} |"
    yield ""


def _limits(run: Run, done: Translated, origin: Origin | None, untouched: bool) -> Iterator[str]:
    positions = done.config.positions
    if positions.kind in ("learned", "sinusoidal"):
        yield f"* It reads at most {positions.max_position_embeddings - positions.offset} tokens."
    if not untouched:
        yield f"* It was trained here on rows of {run.recipe.data.length} tokens; longer texts are untried here."
    prefix = run.recipe.training_objective.decoder_attention == "prefix"
    one_way = done.config.architecture == "decoder" and done.family.name != custom_code.NAME
    if not untouched and one_way and prefix:
        yield "* It was trained to see the first part of a text in both directions; in transformers it only looks back."
    if done.reason:
        yield f"* It is read with the code beside it, since no class of transformers fits: {_plain(done.reason)}."
    if origin is not None and not untouched:
        yield from _of_an_import(run, done, origin)
    if origin is not None and origin.not_carried:
        yield f"* Not carried over from the imported checkpoint: {', '.join(map(_plain, origin.not_carried[:12]))}."
    if origin is not None and "quantization_config" in kept(run.directory, "config.json"):
        yield "* The imported weights were eight-bit integers: these are what those stand for, not more exact."
    lost = [name for name in done.lost if name != "language model" or LM_HEAD not in untrained_heads(run)]
    if lost:
        yield f"* Heads that were trained with it and that this format has no place for: {', '.join(lost)}."
    if _json(run.directory / "evaluation.json").get("metrics"):
        yield "* It has been measured by the measures above, on held-out text like that above, and by nothing else."
    else:
        yield "* It has not been measured."
    yield "* It may repeat what is wrong or harmful in its data.\n"


def _of_an_import(run: Run, done: Translated, origin: Origin) -> Iterator[str]:
    """Yields lines on the tokens and layers that the import added and that only training here has trained."""
    untrained = untrained_heads(run)
    added = any(name in done.ours for name in origin.drawn if not name.startswith("heads."))
    if added and LM_HEAD in untrained:
        yield "* Its language-model head is untrained: what it predicts is random. Its hidden states can be used."
    elif added:
        yield "* Its language-model head was not in the imported checkpoint and has been trained here alone."
    drawn = sorted({name.split(".")[1] for name in origin.drawn if name.startswith("heads.") and name in done.ours})
    for name in drawn:
        how = "untrained" if name in untrained else "trained here alone"
        yield f"* Not in the imported checkpoint and {how}: the head {name}."
    if origin.added_tokens:
        yield (
            f"* {len(origin.added_tokens)} special tokens were added to its tokenizer; those that the objective does "
            "not use have not been trained."
        )


def _plain(text: object) -> str:
    """Returns text that can neither leave its line, cell or code span in Markdown nor command a terminal."""
    return printable(re.sub(r"[\s|`<>\[\]]+", " ", str(text)).strip()[:300])


def _json(path: Path) -> Mapping[str, Any]:
    try:
        values = read_json(path)
    except (OSError, ValueError, UserError):
        return {}
    return values if isinstance(values, dict) else {}
