"""Exporting a run as a directory in Hugging Face's format: `pretextlm export RUN DIR`.

    config.json   generation_config.json   model.safetensors (or shards and an index)
    tokenizer.json   tokenizer_config.json   special_tokens_map.json   README.md

A run that was imported and not trained since is written back unchanged: its own tokenizer and settings, and the same
bytes of every tensor; rows and layers that the import added are left out. After training they are kept, and settings
that we do not model (dropout, for example) keep their imported values. With eight-bit weights (int8.py), the matrices
of the blocks are quantized and everything else is unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm.errors import UserError
from pretextlm.files import ENOUGH_SPACE, AnyPath, atomic_directory
from pretextlm.hf import custom_code, int8
from pretextlm.hf.check_export import SKIPPED, Written, check_export, missing_library
from pretextlm.hf.equivalent_weights import ADDED_TO_TABLE, POSITIONS
from pretextlm.hf.export_config import config_values, generation_values
from pretextlm.hf.export_format import export_format, leaves_bare
from pretextlm.hf.export_hashes import write_hashes
from pretextlm.hf.export_tokenizer import write_json, write_tokenizer
from pretextlm.hf.model_card import model_card
from pretextlm.hf.provenance import Origin, kept, origin_of
from pretextlm.hf.sentence_transformers_files import write_embedding_files
from pretextlm.hf.state_dict import DISCRIMINATOR, GENERATOR, Translated, trained_part, translated
from pretextlm.hf.task_heads import exported_task, head_out
from pretextlm.hf.untrained import LM_HEAD, untrained_heads
from pretextlm.hf.weight_files import DTYPES, sizes, stored, torch_dtype, write_weights
from pretextlm.tasks.sentence_embedding import SentenceEmbedding
from pretextlm.training.run_directory import Run

if TYPE_CHECKING:
    from torch import Tensor

    from pretextlm.attention_mask import AttentionKind
    from pretextlm.model.config import ModelConfig
    from pretextlm.model.transformer import Transformer

MAX_SHARD_BYTES = 5_000_000_000
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
        checked: what transformers was seen to read from it, or why that was not checked.
        comparison: result of `measure` for the weights as written.
        reason: why no class of transformers reads it, if it leaves with its own code unasked.
    """

    directory: Path
    family: str
    architecture: str
    lost: tuple[str, ...]
    files: dict[str, int]
    untouched: bool
    dtype: str
    whole_bytes: int
    checked: str
    comparison: dict[str, Any] | None = None
    reason: str = ""

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
    check: bool = True,
    allow_non_finite: bool = False,
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
        check: load the directory with transformers, if it is installed, and compare its outputs (check_export.py).
        allow_non_finite: write weights that are NaN or infinite, too.

    Returns:
        The files that were written, and as which class of Hugging Face's.

    Raises:
        UserError: no family fits the model's shape; there is no such part; the directory is not empty; the disk is
            full; transformers reads something else from it than was written.
    """
    run, out = Run.open(run), Path(out)
    found = run.checkpoint
    if found is None:
        raise UserError(f"{run.directory} has no checkpoint to export.", "Train it first.")
    refuse_used(out)
    model = run.load_model(allow_non_finite=allow_non_finite)
    origin = origin_of(run.directory)
    untouched = origin is not None and not run.recipe.start and found.step == 0
    done = _translated(run, model.state_dict(), family, part, origin if untouched else None)
    same = origin is not None and part == DISCRIMINATOR and done.family.name == origin.family
    theirs, values = done.theirs, config_values(run, done, same, untouched)
    if untouched and origin is not None and same:
        if origin.bare:
            theirs = {name.removeprefix(done.family.prefix): tensor for name, tensor in theirs.items()}
        values |= {"architectures": list(origin.architectures)} if origin.architectures else {}
    dtype = dtype or (origin.dtype if untouched and origin else "fp32")
    if done.family.name == custom_code.NAME and not (untouched and same):
        values |= custom_code.settings(run.recipe, generator=part != DISCRIMINATOR)
    whole_bytes = sum(tensor.numel() for tensor in theirs.values()) * torch_dtype(dtype).itemsize
    compared = None
    if quantize:
        theirs, values[int8.KEY] = _quantized(done, theirs, dtype)
        compared = measure(_read_back(done, theirs, dtype, model.state_dict())) if measure else None
    values |= {"dtype": DTYPES[dtype], "torch_dtype": DTYPES[dtype]}
    with atomic_directory(out, ENOUGH_SPACE, sum(sizes(theirs, dtype).values())) as partial:
        write_json(partial / "config.json", values)
        write_weights(partial, theirs, dtype, max_shard_bytes)
        if done.family.name == custom_code.NAME:
            custom_code.copy_to(partial)
        write_tokenizer(partial, run, untouched)
        if isinstance(run.recipe.task, SentenceEmbedding):
            write_embedding_files(partial, run.recipe.task, done.config.hidden_size, run.recipe.data.length)
        if done.config.architecture != "encoder":
            write_json(partial / "generation_config.json", generation_values(run, values))
        bits = {"dtype": dtype, **(compared or {})} if quantize else None
        architecture = str(values["architectures"][0])
        card = model_card(run, done, architecture, origin, untouched, bits, step=found.step, part=part)
        (partial / "README.md").write_text(card, encoding="utf-8")
        checked = missing_library(values) if check else f"{SKIPPED}as asked"
        if not checked:
            checked = check_export(partial, written_model(run, model, done, theirs, values, part, not untouched))
        write_hashes(partial)
    files = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    as_it_came = untouched and not quantize and int8.KEY not in kept(run.directory, "config.json")
    return Exported(
        out,
        done.family.name,
        architecture,
        done.lost,
        files,
        as_it_came,
        dtype,
        whole_bytes,
        checked,
        compared,
        done.reason,
    )


def refuse_used(out: Path) -> None:
    """Refuses a place that is not a new or empty directory.

    Raises:
        UserError: it is something else.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists and is not empty.", "Give another directory.")


def _translated(
    run: Run, weights: Mapping[str, Tensor], family: str | None, part: str, unchanged: Origin | None
) -> Translated:
    """Returns one model of a run under the names of the family that is asked for, or of its own.

    Args:
        run: the run.
        weights: all of its tensors.
        family: that is asked for.
        part: "discriminator" or "generator".
        unchanged: origin of a run that was not trained since its import.
    """
    pad, source = run.vocabulary.pad, origin.family if (origin := origin_of(run.directory)) else None
    task = exported_task(run.recipe) if part == DISCRIMINATOR else None
    if part == DISCRIMINATOR and unchanged is not None:
        return translated(*_as_it_came(unchanged, run.recipe.model, weights), family or source, None, task)
    if unchanged is not None:
        raise UserError(
            f"The generator of {run.directory} has not been trained.",
            "Train the run first, or export its discriminator.",
        )
    form = export_format(run.recipe, pad, family=family, origin=source)  # a generator leaves in its judge's family
    if not form.family:
        raise UserError(f"No other program can read this model: {form.reason}.", form.hint)
    predicts = part == DISCRIMINATOR and task is None
    bare = predicts and (leaves_bare(run.recipe) or LM_HEAD in untrained_heads(run))
    done = translated(*trained_part(run.recipe, weights, part), form.family, pad, task, bare)
    return done if family else replace(done, reason=form.reason)


def _quantized(done: Translated, theirs: Mapping[str, Tensor], dtype: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns (the tensors with eight-bit matrices, their description for config.json)."""
    patterns, prefix = int8.quantizable(done.family, done.config), done.family.prefix
    form = int8.format_of(done.family, done.config)
    tensors = int8.quantized_weights(theirs, patterns, prefix, form, torch_dtype(dtype))
    return tensors, int8.settings(patterns, prefix, form)


def _read_back(
    done: Translated, theirs: Mapping[str, Tensor], dtype: str, whole: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Returns all weights under our names as loaded from the written tensors, completed from the run."""
    from pretextlm.model.families.base import weights_from_hf

    kind, shapes = torch_dtype(dtype), {name: tensor.shape for name, tensor in done.ours.items()}
    rounded = {name: stored(tensor, kind) for name, tensor in theirs.items()}
    theirs = {name: tensor.float() for name, tensor in int8.dequantized_weights(rounded).items()}
    head = done.head.maps() if done.head else ()
    read = weights_from_hf(done.family, done.config, theirs, shapes, head).weights
    whole = {name: t.new_zeros(t.shape) if name == ADDED_TO_TABLE else t for name, t in whole.items()}
    return {name: _completed(name, read[name], t) if name in read else t for name, t in whole.items()}


def _completed(name: str, read: Tensor, whole: Tensor) -> Tensor:
    """Returns a tensor with the rows that were not written: of positions the first ones, of tokens the last ones."""
    import torch

    if read.shape == whole.shape:
        return read
    missing = len(whole) - len(read)
    return torch.cat([whole[:missing], read] if name in POSITIONS else [read, whole[len(read) :]])


def written_model(
    run: Run,
    model: Transformer,
    done: Translated,
    theirs: Mapping[str, Tensor],
    values: Mapping[str, Any],
    part: str = DISCRIMINATOR,
    own_tokenizer: bool = True,
) -> Written:
    """Returns what a written directory must compute: the run's model, with rounded weights if they were rounded.

    Args:
        run: the run.
        model: it; its weights are replaced by those that were written.
        done: the model under the family's names.
        theirs: the tensors that were written.
        values: of config.json.
        part: which model of the run.
        own_tokenizer: whether the tokenizer was written from the run's.
    """
    task = run.recipe.task if done.head is not None else None
    own: Any = model if part == DISCRIMINATOR else model.heads[GENERATOR]
    changed = head_out(task, own.state_dict()) if task else {}
    dtype = next(ours for ours, name in DTYPES.items() if name == values["dtype"])
    if dtype != "fp32" or int8.KEY in values:
        changed = _read_back(done, theirs, dtype, {**own.state_dict(), **changed})
    for name, tensor in changed.items():
        own.get_parameter(name).data = tensor
    looks_back = done.config.architecture == "decoder" and values.get("visibility") != "bidirectional"
    attention: AttentionKind = "causal" if looks_back else "bidirectional"
    return Written(run, own, values, task, attention, own_tokenizer)


def _as_it_came(
    origin: Origin, config: ModelConfig, weights: Mapping[str, Tensor]
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Returns shape and weights without the rows and layers that the import added."""
    own = {name: tensor for name, tensor in weights.items() if name not in origin.drawn}
    cut = {name: tensor[: origin.vocab_size] if name in ADDED else tensor for name, tensor in own.items()}
    return config.model_copy(update={"vocab_size": origin.vocab_size}), cut
