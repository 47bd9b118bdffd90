"""Exporting a run as a directory in Hugging Face's format: `pretextlm export RUN DIR`.

    config.json   generation_config.json   model.safetensors (or shards and an index)
    tokenizer.json   tokenizer_config.json   special_tokens_map.json   README.md

A run that was imported and not trained since is written back unchanged: its own tokenizer and settings, and the same
bytes of every tensor; rows and layers that the import added are left out. After training they are kept, and settings
that we do not model (dropout, for example) keep their imported values. With eight-bit weights (int8.py), the matrices
of the blocks are quantized and everything else is unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm.errors import UserError
from pretextlm.files import AnyPath, atomic_directory
from pretextlm.hf import custom_code, int8
from pretextlm.hf.equivalent_weights import ADDED_TO_TABLE
from pretextlm.hf.export_format import export_format
from pretextlm.hf.export_tokenizer import has_task_class, write_json, write_tokenizer
from pretextlm.hf.model_card import model_card
from pretextlm.hf.provenance import Origin, kept, origin_of
from pretextlm.hf.safetensors_files import INDEX, WEIGHTS
from pretextlm.hf.state_dict import DISCRIMINATOR, Translated, trained_part, translated
from pretextlm.training.checkpoint import newest
from pretextlm.training.run_directory import Run

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pretextlm.model.config import ModelConfig

MAX_SHARD_BYTES = 5_000_000_000
ENOUGH_SPACE = "Give a place with enough space."
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Our names of dtypes and torch's."""
ADDED = ("embed_tokens.weight", "lm_head.weight", "lm_head.bias", "head_layers.bias")
"""Parameters with one row per token."""


@dataclass(frozen=True)
class Exported:
    """Result of an export.

    Attributes:
        directory, family: the directory and the model_type.
        architecture: Hugging Face's model class.
        lost: heads that the class has no parameters for.
        files: size of each file in bytes.
        untouched: the run is an import written back unchanged.
        dtype: of the weights that are not quantized.
        whole_bytes: bytes of all weights without quantization.
        comparison: result of `measure` for the weights as written.
    """

    directory: Path
    family: str
    architecture: str
    lost: tuple[str, ...]
    files: dict[str, int]
    untouched: bool
    dtype: str
    whole_bytes: int
    comparison: dict[str, Any] | None = None

    @property
    def weight_bytes(self) -> int:
        """Returns the bytes of the weight files."""
        return sum(size for name, size in self.files.items() if name.endswith(".safetensors"))


def export_model(
    run: AnyPath,
    out: AnyPath,
    *,
    family: str | None = None,
    dtype: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    part: str = DISCRIMINATOR,
    quantize: bool = False,
    measure: Callable[[Mapping[str, Tensor]], dict[str, Any]] | None = None,
) -> Exported:
    """Writes the newest weights of a run in Hugging Face's format, completely or not at all.

    Args:
        run: the run, or its directory.
        out: a new or empty directory.
        family: Hugging Face's model_type; by default the one it was imported as, or the first that fits its shape.
        dtype: "fp32", "bf16" or "fp16"; by default fp32, or that of an import that was not trained since.
        max_shard_bytes: a larger model is split into several files of at most this size (one tensor at least).
        part: "discriminator", the model itself, or the "generator" trained with it for replaced-token detection.
        quantize: write the matrices of the blocks as eight-bit integers.
        measure: called with the quantized weights under our names; returns what the model card says of them.

    Returns:
        The files that were written, and as which class of Hugging Face's.

    Raises:
        UserError: no family fits the model's shape; there is no such part; the directory is not empty; the disk is
            full.
    """
    run, out = Run.open(run), Path(out)
    place = run.directory
    found = newest(run.checkpoints)
    if found is None:
        raise UserError(f"{run.directory} has no checkpoint to export.", "Train it first.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists and is not empty.", "Give another directory.")
    origin = origin_of(place)
    untouched = origin is not None and not run.recipe.start and found.step == 0
    same_model = origin is not None and part == DISCRIMINATOR
    if origin is not None and untouched:
        if part != DISCRIMINATOR:
            raise UserError(
                f"The generator of {place} has not been trained.", "Train the run first, or export its discriminator."
            )
        config, weights = _as_it_came(origin, run.recipe.model, found.model())
    else:
        whole = run.load_model().state_dict() if run.recipe.tuning.lora else found.model()
        config, weights = trained_part(run.recipe, whole, part)
    task = run.recipe.task if has_task_class(run) and part == DISCRIMINATOR else None
    wanted = family or (origin.family if origin else None)
    if part == DISCRIMINATOR and not untouched:
        form = export_format(run.recipe, run.vocabulary.pad, family=family, origin=origin.family if origin else None)
        if not form.family:
            raise UserError(f"No other program can read this model: {form.reason}.", form.hint)
        wanted = form.family
    if part != DISCRIMINATOR and wanted is None:  # in the family of the model it was trained with
        judge = trained_part(run.recipe, found.model(), DISCRIMINATOR)
        wanted = translated(*judge, None, run.vocabulary.pad).family.name
    done = translated(config, weights, wanted, None if untouched else run.vocabulary.pad, task)
    chosen, config, theirs = done.family, done.config, done.theirs
    same = same_model and origin is not None and chosen.name == origin.family
    if untouched and origin is not None and origin.bare and same:
        theirs = {name.removeprefix(chosen.prefix): tensor for name, tensor in theirs.items()}
    dtype = dtype or (origin.dtype if untouched and origin else "fp32")
    values = _config(run, done.values, same, untouched)
    if untouched and origin is not None and same and origin.architectures:
        values["architectures"] = list(origin.architectures)
    if chosen.name == custom_code.NAME:
        values |= custom_code.settings(run.recipe, generator=part != DISCRIMINATOR)
    architecture = str(values["architectures"][0])
    whole_bytes = sum(tensor.numel() for tensor in theirs.values()) * _kind(dtype).itemsize
    compared = None
    if quantize:
        patterns = int8.quantizable(chosen, config)
        values[int8.KEY] = int8.settings(patterns, chosen.prefix, int8.format_of_config(config))
        theirs = int8.quantized_weights(theirs, patterns, chosen.prefix, int8.format_of_config(config), _kind(dtype))
        compared = (
            measure(_read_back(done, theirs, dtype, found.model())) if measure and part == DISCRIMINATOR else None
        )
    with atomic_directory(out, ENOUGH_SPACE) as partial:
        write_json(partial / "config.json", values | {"dtype": DTYPES[dtype], "torch_dtype": DTYPES[dtype]})
        _write_weights(partial, theirs, dtype, max_shard_bytes)
        if chosen.name == custom_code.NAME:
            custom_code.copy_to(partial)
        write_tokenizer(partial, run, untouched)
        if config.architecture != "encoder":
            write_json(partial / "generation_config.json", _generation(run, values))
        bits = {"dtype": dtype, **(compared or {})} if quantize else None
        card = model_card(run, done, architecture, origin, untouched, bits, step=found.step, part=part)
        (partial / "README.md").write_text(card, encoding="utf-8")
    files = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    as_it_came = untouched and not quantize and int8.KEY not in kept(place, "config.json")
    return Exported(out, chosen.name, architecture, done.lost, files, as_it_came, dtype, whole_bytes, compared)


def _read_back(
    done: Translated, theirs: Mapping[str, Tensor], dtype: str, whole: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Returns all weights under our names as loaded from the quantized model, completed from the run."""
    from pretextlm.model.families.base import weights_from_hf

    kind, shapes = _kind(dtype), {name: tensor.shape for name, tensor in done.ours.items()}
    rounded = {name: _stored(tensor, kind) for name, tensor in theirs.items()}
    theirs = {name: tensor.float() for name, tensor in int8.dequantized_weights(rounded).items()}
    read = weights_from_hf(done.family, done.config, theirs, shapes).weights
    whole = {name: t.new_zeros(t.shape) if name == ADDED_TO_TABLE else t for name, t in whole.items()}
    return {name: read[name] if name in read and read[name].shape == t.shape else t for name, t in whole.items()}


def _as_it_came(
    origin: Origin, config: ModelConfig, weights: Mapping[str, Tensor]
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Returns shape and weights without the rows and layers that the import added."""
    own = {name: tensor for name, tensor in weights.items() if name not in origin.drawn}
    cut = {name: tensor[: origin.vocab_size] if name in ADDED else tensor for name, tensor in own.items()}
    return config.model_copy(update={"vocab_size": origin.vocab_size}), cut


def _config(run: Run, values: Mapping[str, Any], same: bool, untouched: bool) -> dict[str, Any]:
    """Returns the values of config.json: those of the import if the model is still the same, updated by the current
    ones.
    """
    before = kept(run.directory, "config.json") if same else {}
    before.pop(int8.KEY, None)
    if untouched and same:
        return {**before, **values}
    known = run.vocabulary
    eos = known.eos if len(known.ends) == 1 else list(known.ends)
    ids = {"pad_token_id": known.pad, "bos_token_id": known.bos, "eos_token_id": eos}
    if run.recipe.model.architecture == "encoder":  # ModernBERT's configuration has defaults of its own vocabulary
        ids |= {"cls_token_id": known.cls, "sep_token_id": known.sep}
    if run.recipe.model.architecture == "encoder_decoder":
        ids |= {"decoder_start_token_id": known.start}
    named = {name: value for name, value in before.items() if value is not None or name not in ids}
    return {**ids, **named, **values}


def _generation(run: Run, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of generation_config.json."""
    named = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
    own = {name: values[name] for name in named if values.get(name) is not None}
    return kept(run.directory, "generation_config.json") or own


def _write_weights(directory: Path, tensors: Mapping[str, Tensor], dtype: str, limit: int) -> None:
    from safetensors.torch import save_file

    kind = _kind(dtype)
    sizes = {name: t.numel() * (kind if t.is_floating_point() else t.dtype).itemsize for name, t in tensors.items()}
    shards = list(_shards(sizes, limit))
    where: dict[str, str] = {}
    for nth, names in enumerate(shards, 1):
        file = WEIGHTS if len(shards) == 1 else f"model-{nth:05d}-of-{len(shards):05d}.safetensors"
        own = {name: _stored(tensors[name], kind).contiguous() for name in names}
        save_file(own, directory / file, metadata={"format": "pt"})
        where |= dict.fromkeys(names, file)
    if len(shards) > 1:
        write_json(directory / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where})


def _kind(dtype: str) -> torch.dtype:
    """Returns torch's dtype for our name."""
    import torch

    kind: torch.dtype = getattr(torch, DTYPES[dtype])
    return kind


def _stored(tensor: Tensor, kind: torch.dtype) -> Tensor:
    """Returns a tensor as written: integers unchanged, everything else in one dtype."""
    return tensor.to(kind) if tensor.is_floating_point() else tensor


def _shards(sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
    """Yields the names of the tensors of each file, in order, from the bytes of each."""
    names: list[str] = []
    size = 0
    for name, own in sizes.items():
        if names and size + own > limit:
            yield names
            names, size = [], 0
        names.append(name)
        size += own
    yield names
