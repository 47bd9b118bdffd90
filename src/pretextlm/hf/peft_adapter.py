"""Exporting the adapters of a run in peft's format: `pretextlm export RUN DIR --adapter`.

    adapter_config.json          rank, scale, the matrices they belong to, in the published family's names
    adapter_model.safetensors    base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight …
    tokenizer.json …             of the run
    README.md                    how to load it, with the names of the labels, which peft has no place for

They belong to the model that the run started from, as `pretextlm export START` writes it or as it was published. The
head of a task was trained completely and is written as one of peft's modules_to_save.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm.errors import UserError, missing_extra
from pretextlm.files import ENOUGH_SPACE, atomic_directory
from pretextlm.hf import custom_code
from pretextlm.hf.check_export import SKIPPED, check_adapter, missing_library
from pretextlm.hf.export_format import export_format
from pretextlm.hf.export_hashes import write_hashes
from pretextlm.hf.export_model import Exported, refuse_used, written_model
from pretextlm.hf.export_tokenizer import write_json, write_tokenizer
from pretextlm.hf.model_card import adapter_card
from pretextlm.hf.provenance import origin_of
from pretextlm.hf.state_dict import DISCRIMINATOR, Translated, trained_part, translated
from pretextlm.hf.task_heads import exported_task
from pretextlm.hf.tokenizer_settings import SETTINGS
from pretextlm.training.run_directory import ORIGIN, Run

if TYPE_CHECKING:
    from torch import Tensor

    from pretextlm.model.families.shared.tensor_maps import TensorMap

ROOT = "base_model.model."
"""peft's prefix of every name."""
PARTS = {
    ".lora_A.default.weight": ".lora_A.weight",
    ".lora_B.default.weight": ".lora_B.weight",
    ".lora_magnitude_vector.default.weight": ".lora_magnitude_vector",
}
"""Suffixes of an adapter's tensors in a run's checkpoint, and in peft's file."""
TASK_TYPES = {"sequence": "SEQ_CLS", "token": "TOKEN_CLS", "span": "QUESTION_ANS"}
"""peft's task types; it has none for multiple choice."""
HUB = "hf:"


def export_adapter(
    place: Path, out: Path, *, family: str | None = None, base: str = "", check: bool = True
) -> Exported:
    """Write the newest adapters of a run, atomically.

    Args:
        place: the run directory.
        out: a new or empty directory.
        family: Hugging Face's model_type; by default the one it was imported as, or the first that fits its shape.
        base: directory or hub name of the model that the run started from; by default the import it started from.
        check: load the adapters onto the base with peft, if it is a directory, and compare the outputs.

    Returns:
        Description of the written files.

    Raises:
        UserError: the run trained no adapters, or one on a matrix that is not a separate parameter of the family; peft
            is missing, or reads something else from the files than was written.
    """
    run = Run.open(place)
    lora, found = run.recipe.tuning.lora, run.checkpoint
    if lora is None or not run.recipe.start:
        message = "has no adapters" if lora is None else "did not start from another run, so its adapters fit none"
        raise UserError(f"{place} {message}.", "Export the complete model: leave out --adapter.")
    if found is None:
        raise UserError(f"{place} has no checkpoint to export.", "Train it first.")
    refuse_used(out)
    try:
        from peft import LoraConfig
    except ImportError:
        raise missing_extra("peft", "lora", "Exporting adapters") from None
    from safetensors.torch import save_file

    origin, model = origin_of(place), run.load_model()
    config, weights = trained_part(run.recipe, model.state_dict(), DISCRIMINATOR)
    form = export_format(run.recipe, run.vocabulary.pad, family=family, origin=origin.family if origin else None)
    if not form.family:
        raise UserError(f"No other program can read this model: {form.reason}.", form.hint)
    done = translated(config, weights, form.family, run.vocabulary.pad, exported_task(run.recipe))
    maps = [one for pattern in done.family.maps(done.config) for one in pattern.expanded(done.config)]
    tensors, holders = _adapters(found.model(), maps, done.family.name)
    head = {one.theirs: done.theirs[one.theirs] for one in done.head.maps()} if done.head else {}
    tensors |= {f"{ROOT}{name}": tensor.contiguous() for name, tensor in head.items()}
    base = base or _base(run)
    settings = LoraConfig(
        base_model_name_or_path=base,
        task_type=_task_type(run),
        inference_mode=True,
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        target_modules=_short([one.theirs for one in holders], maps),
        modules_to_save=_saved(done) or None,
        fan_in_fan_out=any(one.transposed for one in holders),
        use_rslora=lora.kind == "rslora",
        use_dora=lora.kind == "dora",
    )
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    with atomic_directory(out, ENOUGH_SPACE, size) as partial:
        settings.save_pretrained(str(partial))
        _sort_lists(partial / "adapter_config.json")
        save_file(tensors, partial / "adapter_model.safetensors", metadata={"format": "pt"})
        write_tokenizer(partial, run, (place / ORIGIN / SETTINGS).exists())
        (partial / "README.md").write_text(adapter_card(run, done, base), encoding="utf-8")
        checked = missing_library({}) if check and Path(base).is_dir() and base else f"{SKIPPED}{_why_not(check, base)}"
        if not checked:
            own = custom_code.settings(run.recipe) if done.family.name == custom_code.NAME else {}
            written = written_model(run, model, done, done.theirs, {**done.values, **own, "dtype": "float32"})
            checked = check_adapter(partial, base, written)
        write_hashes(partial)
    files = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    architecture = str(done.values["architectures"][0])
    return Exported(out, done.family.name, architecture, done.lost, files, False, "fp32", size, checked)


def _base(run: Run) -> str:
    """Returns the published model that a run started from; "" if it started from one that was trained here."""
    start, origin = Run.open(run.recipe.start), origin_of(run.directory)
    found = start.checkpoint
    if origin is None or start.recipe.start or found is None or found.step:
        return ""
    if origin.source.startswith(HUB):
        return origin.source.removeprefix(HUB)
    return str(Path(origin.source).resolve()) if Path(origin.source).is_dir() else ""


def _why_not(check: bool, base: str) -> str:
    if not check:
        return "as asked"
    if not base:
        return "the model below the adapters is not known; export the run's start and name it by --base"
    return f"{base} is not a directory"


def _sort_lists(path: Path) -> None:
    """Sorts the lists of an adapter_config.json, which peft writes in the order of a set."""
    values = json.loads(path.read_text(encoding="utf-8"))
    lists = {name: sorted(value) for name, value in values.items() if isinstance(value, list)}
    write_json(path, values | lists)


def _adapters(
    weights: Mapping[str, Tensor], maps: list[TensorMap], family: str
) -> tuple[dict[str, Tensor], list[TensorMap]]:
    """Returns (the adapters' tensors in peft's names, the matrices they belong to)."""
    holder = {name: one for one in maps for name in one.ours}
    tensors: dict[str, Tensor] = {}
    holders: dict[str, TensorMap] = {}
    for name, tensor in weights.items():
        for ours, theirs in PARTS.items():
            if not name.endswith(ours):
                continue
            one = holder[f"{name.removesuffix(ours)}.weight"]
            if len(one.ours) > 1:
                parts = ", ".join(part.split(".")[-2] for part in one.ours)
                raise UserError(
                    f"A model of the family {family!r} holds {parts} in one matrix, {one.theirs}: an adapter of one of "
                    "them has no place there.",
                    "Export the complete model: leave out --adapter. Or train with other tuning.lora.targets.",
                )
            holders[one.theirs] = one
            of_rows = "lora_A" not in ours  # B and the magnitudes have the matrix's rows, A has its columns
            tensor = one.reordered(tensor) if of_rows else tensor
            tensors[f"{ROOT}{_module(one.theirs)}{theirs}"] = tensor.contiguous()
    return tensors, [*holders.values()]


def _short(names: list[str], maps: list[TensorMap]) -> list[str]:
    """Returns the matrices by the suffixes that peft matches; full names where a suffix would match more."""
    ends = sorted({".".join(_inner(name)) for name in names})
    meant = {one.theirs for one in maps if _module(one.theirs).endswith(tuple(f".{end}" for end in ends))}
    weights = {name for name in meant if name.endswith(".weight")}
    return ends if weights == set(names) else [_module(name) for name in names]


def _inner(name: str) -> Iterator[str]:
    """Yields the parts of a name after the layer index."""
    parts = _module(name).split(".")
    number = max((place for place, part in enumerate(parts) if part.isdecimal()), default=-1)
    yield from parts[number + 1 :]


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _saved(done: Translated) -> list[str]:
    """Returns the modules that are written completely: the head's."""
    if done.head is None:
        return []
    dense, out = done.head.dense, done.head.out
    one_module = dense and dense.split(".")[0] == out.split(".")[0]
    return [out.split(".")[0]] if one_module else [name for name in (dense, out) if name]


def _task_type(run: Run) -> Any:
    """Returns peft's task type of the model; None if peft has none."""
    kind = run.recipe.task.head_kind if run.recipe.task else None
    if kind:
        return TASK_TYPES.get(kind)
    return "CAUSAL_LM" if run.recipe.model.architecture == "decoder" else None
