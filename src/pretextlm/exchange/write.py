"""A run as a directory that any reader of Hugging Face's format understands: `pretextlm export RUN DIR`.

    config.json   generation_config.json   model.safetensors (or shards and an index)
    tokenizer.json   tokenizer_config.json   special_tokens_map.json   README.md

A run that was imported and not trained since is written back as it came: its own tokenizer and settings, the same bytes
of every tensor we carried; rows and layers that the import added are left out. After training they stay, and the
values that we do not model (dropout, for example) are those it came with.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm.errors import UserError
from pretextlm.exchange.card import model_card
from pretextlm.exchange.origin import Origin, kept, origin_of
from pretextlm.exchange.tensors import INDEX, WEIGHTS
from pretextlm.files import flush
from pretextlm.training.checkpoint import newest
from pretextlm.training.run import ORIGIN, Run

if TYPE_CHECKING:
    from torch import Tensor

    from pretextlm.data.vocabulary import Vocabulary
    from pretextlm.model.config import ModelConfig
    from pretextlm.model.families.base import Family

MAX_SHARD_BYTES = 5_000_000_000
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Our names of number formats and torch's."""
ADDED = ("embed_tokens.weight", "lm_head.weight", "lm_head.bias", "head_layers.bias")
"""Parameters with a row for each token."""

USUAL = ("bert", "llama", "gpt2", "t5", "bart")
"""Families tried first where several have a place for a model."""
SHAPES = {
    "encoder": "bert: model.final_norm=false model.norm={kind='layer',weight=true,bias=true,place='after',eps=1e-12} "
    "model.positions={kind='learned',max_positions=512} model.attention={normalise_heads=false,bias=true,"
    "output_bias=true} model.feed_forward={activation='gelu',bias=true} model.type_vocab_size=2 "
    "model.head={dense=true,activation='gelu',norm=true,bias=true}",
    "decoder": "llama: model.norm={weight=true} model.attention={normalise_heads=false} "
    "model.feed_forward={activation='silu',gated=true} model.embedding={norm=false}",
    "encoder_decoder": "t5: model.norm={weight=true} model.positions={kind='relative'} "
    "model.attention={normalise_heads=false,scale=1.0} model.feed_forward={activation='relu'} "
    "model.embedding={norm=false}",
}
"""Overrides of a recipe that make a run of each architecture a model of a published family."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes: directory; family; files: bytes of each; untouched: whether it is an import written back as it came.
    """

    directory: Path
    family: str
    files: dict[str, int]
    untouched: bool


def export_run(
    place: Path,
    out: Path,
    *,
    family: str | None = None,
    dtype: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Exported:
    """Write the newest weights of a run in Hugging Face's format, whole or not at all.

    Args:
        place: the run directory.
        out: a new or empty directory.
        family: Hugging Face's model_type; by default the one it was imported as, or the first that its shape fits.
        dtype: "fp32", "bf16" or "fp16"; by default fp32, or that of an import that was not trained since.
        max_shard_bytes: a model with more is cut into several files of at most so many bytes (one tensor at least).

    Raises:
        UserError: no family has a place for a model of this shape; the directory is not empty; the disk is full.
    """
    run = Run.open(place)
    found = newest(run.checkpoints)
    if found is None:
        raise UserError(f"{place} has no checkpoint to export.", "Train it first.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists and is not empty.", "Give another directory.")
    origin = origin_of(place)
    untouched = origin is not None and not run.recipe.start and found.step == 0
    config, weights = run.recipe.model, found.model()
    if untouched and origin is not None:
        config, weights = _as_it_came(origin, config, weights)
    chosen, theirs = _translated(config, weights, family or (origin.family if origin else None))
    if untouched and origin is not None and origin.bare and chosen.name == origin.family:
        theirs = {name.removeprefix(chosen.prefix): tensor for name, tensor in theirs.items()}
    dtype = dtype or (origin.dtype if untouched and origin else "fp32")
    values = _config(run, chosen, config, weights, origin if origin and chosen.name == origin.family else None)
    if untouched and origin is not None and chosen.name == origin.family and origin.architectures:
        values["architectures"] = list(origin.architectures)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        _write_json(partial / "config.json", values | {"dtype": DTYPES[dtype], "torch_dtype": DTYPES[dtype]})
        _write_weights(partial, theirs, dtype, max_shard_bytes)
        _write_tokenizer(partial, run, untouched)
        if config.architecture != "encoder":
            _write_json(partial / "generation_config.json", _generation(run, values))
        card = model_card(run, chosen.name, str(values["architectures"][0]), origin, untouched)
        (partial / "README.md").write_text(card, encoding="utf-8")
        for path in [*partial.iterdir(), partial]:
            flush(path)
        partial.replace(out)
    except OSError as error:
        raise UserError(f"Cannot write {out}: {error.strerror}.", "Give a place with enough space.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    files = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    return Exported(out, chosen.name, files, untouched)


def _as_it_came(
    origin: Origin, config: ModelConfig, weights: Mapping[str, Tensor]
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Without the rows and layers that the import added."""
    own = {
        name: tensor for name, tensor in weights.items() if name not in origin.drawn and not name.startswith("heads.")
    }
    cut = {name: tensor[: origin.vocab_size] if name in ADDED else tensor for name, tensor in own.items()}
    return config.model_copy(update={"vocab_size": origin.vocab_size}), cut


def _translated(
    config: ModelConfig, weights: Mapping[str, Tensor], name: str | None
) -> tuple[Family, dict[str, Tensor]]:
    """The family and the tensors under its names. Raises UserError when there is none."""
    from pretextlm.model.families.base import FAMILIES

    if name is not None:
        family: Family = FAMILIES[name]()
        return family, _fitting(family, config, weights)
    for known in (*USUAL, *(other for other in FAMILIES if other not in USUAL)):
        family = FAMILIES[known]()
        try:
            return family, _fitting(family, config, weights)
        except (UserError, KeyError, ValueError, AttributeError):
            continue
    raise UserError(
        "No published family has a model of this shape, so no other program could read it.",
        f"Train one that has the shape of a family with these overrides, {SHAPES[config.architecture]}",
    )


def _fitting(family: Family, config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    from pretextlm.model.families.base import values_out, weights_out

    if config.architecture not in family.classes.values():
        raise UserError(
            f"The family {family.name!r} has no model of architecture {config.architecture!r}.",
            "Export it as another family.",
        )
    own = tuple(f"heads.{head.head}." for head in family.heads)
    carried = {
        name: tensor for name, tensor in weights.items() if not name.startswith("heads.") or name.startswith(own)
    }
    values_out(family, config, carried)
    return weights_out(family, config, carried)


def _config(
    run: Run, family: Family, config: ModelConfig, weights: Mapping[str, Tensor], origin: Origin | None
) -> dict[str, Any]:
    """Values of config.json: what it came with, under what the model is now."""
    from pretextlm.model.families.base import values_out

    before = kept(run.directory, "config.json") if origin else {}
    values = before | values_out(family, config, weights)
    if origin:
        return values
    ids = {"pad_token_id": run.vocabulary.pad, "bos_token_id": run.vocabulary.bos, "eos_token_id": run.vocabulary.eos}
    if config.architecture == "encoder_decoder":
        ids |= {"decoder_start_token_id": run.vocabulary.pad}
    return {**ids, **values}


def _generation(run: Run, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of generation_config.json."""
    named = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
    own = {name: values[name] for name in named if values.get(name) is not None}
    return kept(run.directory, "generation_config.json") or own


def _write_weights(directory: Path, tensors: Mapping[str, Tensor], dtype: str, limit: int) -> None:
    import torch
    from safetensors.torch import save_file

    kind = getattr(torch, DTYPES[dtype])
    shards = list(_shards(tensors, kind.itemsize, limit))
    where: dict[str, str] = {}
    for nth, names in enumerate(shards, 1):
        file = WEIGHTS if len(shards) == 1 else f"model-{nth:05d}-of-{len(shards):05d}.safetensors"
        own = {name: tensors[name].to(kind).contiguous() for name in names}
        save_file(own, directory / file, metadata={"format": "pt"})
        where |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(tensor.numel() * kind.itemsize for tensor in tensors.values())
        _write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": where})


def _shards(tensors: Mapping[str, Tensor], itemsize: int, limit: int) -> Iterator[list[str]]:
    """Names of the tensors of each file, in order."""
    names: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        own = tensor.numel() * itemsize
        if names and size + own > limit:
            yield names
            names, size = [], 0
        names.append(name)
        size += own
    yield names


def _write_tokenizer(directory: Path, run: Run, untouched: bool) -> None:
    origin = run.directory / ORIGIN
    if untouched and (origin / "tokenizer.json").exists():
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            if (origin / name).exists():
                shutil.copyfile(origin / name, directory / name)
        return
    names = _names(run, run.vocabulary)
    tokenizer = run.tokenizer
    if tokenizer.post_processor is None:
        tokenizer.post_processor = _frame(run, names)
    tokenizer.save(str(directory / "tokenizer.json"))
    limit = run.recipe.model.positions.max_positions or run.recipe.data.length
    _write_json(
        directory / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": limit, **names},
    )
    _write_json(directory / "special_tokens_map.json", names)


def _names(run: Run, vocabulary: Vocabulary) -> dict[str, str]:
    """What transformers calls the seven named tokens, and the tokenizer's name of each."""
    roles = ("pad", "unk", "cls", "sep", "mask", "bos", "eos")
    return {f"{role}_token": str(run.tokenizer.id_to_token(getattr(vocabulary, role))) for role in roles}


def _frame(run: Run, names: Mapping[str, str]) -> Any:
    """What stands around a text as the model has read it."""
    from tokenizers.processors import TemplateProcessing

    template = {
        "encoder": (f"{names['cls_token']} $A {names['sep_token']}", ("cls", "sep")),
        "decoder": (f"{names['bos_token']} $A", ("bos",)),
        "encoder_decoder": (f"$A {names['eos_token']}", ("eos",)),
    }
    single, roles = template[run.recipe.model.architecture]
    return TemplateProcessing(
        single=single, special_tokens=[(names[f"{role}_token"], getattr(run.vocabulary, role)) for role in roles]
    )


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(dict(values), indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
