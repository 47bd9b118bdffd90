"""Importing a published model as a run directory: `pretextlm import DIR|hf:NAME|FILE.gguf --out RUN`.

The configuration, the shape of every tensor and the tokenizer are checked against the files' headers before a tensor
is read or a file written. The result is an ordinary run at step 0. Eight-bit weights (int8.py) are dequantized.

Special tokens that the tokenizer lacks get ids after its own, which never change. Their embeddings are the mean of all
rows plus a little noise to tell them apart: their logit is then the mean of all logits, so that by Jensen's inequality
n new tokens take at most a share n / (V + n) of the probability, and none of them is ever the most likely.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm import __version__
from pretextlm.data.store import sha256_of
from pretextlm.errors import UserError
from pretextlm.files import ENOUGH_SPACE, AnyPath, atomic_directory, write_json
from pretextlm.hf import int8
from pretextlm.hf.hf_config import CONFIG_FILE, read_config
from pretextlm.hf.import_tokenizer import MAX_TOKENIZER_BYTES, ImportedTokenizer, import_tokenizer
from pretextlm.hf.imported_objective import objective_of
from pretextlm.hf.model_source import HUB, model_directory
from pretextlm.hf.provenance import GENERATION, KEPT, Origin
from pretextlm.hf.safetensors_files import FLOATS, TensorInfo, read_tensor_infos
from pretextlm.hf.sentence_transformers_files import embedding_length, embedding_task
from pretextlm.hf.special_token_ids import special_token_ids
from pretextlm.hf.task_heads import task_of, without_pooler
from pretextlm.hf.tokenizer_settings import TokenizerSettings
from pretextlm.hf.untrusted_files import MAX_JSON_BYTES, read_object, read_plain

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pretextlm.model.config import ModelConfig, SpecialTokenIds
    from pretextlm.model.families.base import Family
    from pretextlm.model.families.shared.tensor_maps import TensorMap
    from pretextlm.objectives.protocol import TrainingObjective
    from pretextlm.training.recipe import Recipe
    from pretextlm.training.run_directory import Run

DRAWN_ANEW = ("head_layers.", "lm_head.", "heads.")
"""Parts that a published model may lack: the language-model head, and the heads of an objective."""
BUFFERS = re.compile(r"(inv_freq|masked_bias|attn\.bias|position_ids|rotary_emb\..*|embeddings\.token_type_ids)$")
IN_A_LAYER = re.compile(r"\.\d+\.")
NOISE = 0.01
"""Noise of a new token's row, as a fraction of the standard deviation of the rows."""
LONGEST = 512
"""Maximum tokens of an input row in the recipe of an imported run."""


@dataclass(frozen=True)
class ValidatedModel:
    """A directory whose files are validated, except for the bytes of the tensors.

    Attributes:
        left: published names that are not imported.
        missing: our names without a published tensor.
        head: names of the tensors of a task's head.
    """

    directory: Path
    values: Mapping[str, Any]
    family: Family
    config: ModelConfig
    objective: TrainingObjective
    stored: Mapping[str, TensorInfo]
    taken: ImportedTokenizer
    left: tuple[str, ...]
    missing: tuple[str, ...]
    head: tuple[TensorMap, ...] = ()


def import_model(
    source: AnyPath,
    out: AnyPath,
    *,
    objective: str | None = None,
    command: Sequence[str] = (),
    allow_non_finite: bool = False,
) -> Run:
    """Writes a published model as a run directory.

    Args:
        source: a directory in Hugging Face's format, "hf:NAME" for a model of the hub, or a GGUF file.
        out: the run directory, new or empty.
        objective: name of its pre-training objective; by default that of its family, or the objective (or task) of a
            head that it has.
        command: argv to record.
        allow_non_finite: import weights that are NaN or infinite, too.

    Returns:
        The run; `origin_of(run.directory)` tells what was carried over.

    Raises:
        UserError: the directory is invalid, of an unknown family, or disagrees with its configuration, or its weights
            are not finite; nothing is written then.
    """
    source, out = os.fspath(source), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists and is not empty.", "Give another directory with --out.")
    with model_directory(source) as directory:
        checked = check(directory, objective)
        recipe = _recipe(checked, source, out.name)
        origin = _origin(source, checked)
        return _write(out, checked, recipe, origin, command, allow_non_finite)


def check(directory: Path, objective: str | None = None) -> ValidatedModel:
    """Validate everything but the tensors' bytes.

    Raises:
        UserError: something is invalid.
    """
    if not directory.is_dir():
        raise UserError(f"{directory} is not a directory.", f"Give a model's directory, or {HUB}NAME for the hub.")
    values, family, config = read_config(directory)
    stored = read_tensor_infos(directory)
    if int8.is_quantized(values, str(directory / CONFIG_FILE)):
        stored = int8.as_dequantized(stored)
    config = family.adjust_config(config, stored)
    blocks = config.num_hidden_layers + (config.num_decoder_layers if config.architecture == "encoder_decoder" else 0)
    if not config.share_layers and blocks > len(stored):
        raise UserError(
            f"config.json speaks of {blocks} layers, but there are {len(stored)} tensors in all.",
            "config.json and the weights do not belong together.",
        )
    tuned = None if objective else task_of(family, values, {name: one.shape for name, one in stored.items()})
    trained_by: TrainingObjective
    if tuned:
        config, trained_by = without_pooler(config, tuned[0]), tuned[1]
    elif objective is None and (embedding := embedding_task(directory)):
        trained_by = embedding.for_architecture(config.architecture)
    else:
        trained_by = objective_of(family, config, stored, objective, values)
    maps = tuple(tuned[0].maps()) if tuned else ()
    left, missing = _fit(family, config, trained_by, stored, maps)
    taken = import_tokenizer(directory)
    TokenizerSettings(directory, values, taken.tokenizer).apply_options()
    if taken.own_size > config.vocab_size:
        raise UserError(
            f"The tokenizer knows {taken.own_size:,} tokens, the model has {config.vocab_size:,} rows for them.",
            "The tokenizer belongs to another model.",
        )
    return ValidatedModel(directory, values, family, config, trained_by, stored, taken, left, missing, maps)


def _fit(
    family: Family,
    config: ModelConfig,
    objective: TrainingObjective,
    stored: Mapping[str, TensorInfo],
    head: Sequence[TensorMap] = (),
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Match published and own tensors.

    Returns:
        (published names without a counterpart, our names without a tensor).

    Raises:
        UserError: names or shapes do not match.
    """
    import torch

    from pretextlm.model.families.base import weights_from_hf

    shapes = _shapes(config, objective)
    hollow = {name: torch.empty(one.shape, device="meta") for name, one in stored.items()}
    found = weights_from_hf(family, config, hollow, shapes, head)
    left = [name for name in found.left if not BUFFERS.search(name)]
    strange = next((name for name in left if IN_A_LAYER.search(name)), None)
    if strange is not None:
        raise UserError(
            f"A model of the family {family.name!r} as config.json describes it has no place for {strange}.",
            "config.json and the weights do not belong together, or the model differs from its family.",
        )
    lost = next((name for name in found.missing if not name.startswith(DRAWN_ANEW)), None)
    if lost is not None:
        raise UserError(
            f"The checkpoint has nothing for our {lost}, and {len(found.missing)} are missing in all.",
            "Fetch the model again; a checkpoint of an adapter alone cannot be read.",
        )
    carried = next((s for n, s in stored.items() if s.dtype not in FLOATS and n not in found.left), None)
    if carried is not None and not all(BUFFERS.search(n) for n, s in stored.items() if s.dtype not in FLOATS):
        raise UserError(f"Weights of type {carried.dtype} are not read.", "Give the model in fp32, fp16 or bf16.")
    return tuple(left), tuple(found.missing)


def _shapes(config: ModelConfig, objective: TrainingObjective) -> dict[str, torch.Size]:
    from pretextlm.model.transformer import meta_model

    return {name: tensor.shape for name, tensor in meta_model(config, objective.heads).state_dict().items()}


def _recipe(checked: ValidatedModel, source: str, name: str) -> Recipe:
    """Returns a recipe as if the run had been trained here; it has no data."""
    from pretextlm.tasks.base import Task
    from pretextlm.training.recipe import Recipe

    config = checked.config
    longest = (
        config.positions.max_position_embeddings - config.positions.offset
        if config.positions.max_position_embeddings
        else LONGEST
    )
    longest = min(LONGEST, longest, embedding_length(checked.directory) or LONGEST)
    grown_by = {"vocab_size": max(config.vocab_size, checked.taken.size), "special_token_ids": _special_ids(checked)}
    model = config.model_dump() | grown_by
    learnt = checked.objective
    return Recipe.load(
        {
            "name": name or "imported",
            "imported_from": source,
            "data": {"length": max(8, longest)},
            "task" if isinstance(learnt, Task) else "objective": learnt,
            "model": model,
            "training": {"budget_steps": 1},
        },
        where="the recipe of the imported model",
    )


def _special_ids(checked: ValidatedModel) -> SpecialTokenIds:
    place = checked.directory / GENERATION
    generation = read_object(place) if place.exists() else {}
    tokenizer = checked.taken.tokenizer
    settings = TokenizerSettings(checked.directory, checked.values, tokenizer)
    return special_token_ids(checked.family, checked.config, tokenizer, checked.values, generation, settings)


def _origin(source: str, checked: ValidatedModel) -> Origin:
    files = {one.file.name: one.file for one in checked.stored.values()}
    files |= {name: checked.directory / name for name in KEPT if (checked.directory / name).exists()}
    kinds = {one.dtype for one in checked.stored.values() if one.dtype in FLOATS}
    architectures = checked.values.get("architectures")
    named = architectures if isinstance(architectures, list) else []
    prefix = checked.family.prefix
    return Origin(
        source=source,
        family=checked.family.name,
        architectures=tuple(str(name) for name in named),
        sha256={name: sha256_of(path) for name, path in sorted(files.items())},
        dtype="bf16" if kinds == {"BF16"} else "fp16" if kinds == {"F16"} else "fp32",
        vocab_size=checked.config.vocab_size,
        bare=bool(prefix) and not any(name.startswith(prefix) for name in checked.stored),
        added_tokens=checked.taken.added,
        drawn=checked.missing,
        not_carried=checked.left,
    )


def _write(
    out: Path,
    checked: ValidatedModel,
    recipe: Recipe,
    origin: Origin,
    command: Sequence[str],
    allow_non_finite: bool,
) -> Run:
    """Write the run under a temporary name and rename it."""
    import torch

    from pretextlm.model.finite import check_finite
    from pretextlm.model.parameter_count import total
    from pretextlm.training import checkpoint as checkpoints
    from pretextlm.training.run_directory import ORIGIN, TOKENIZER, Run
    from pretextlm.training.run_start import build_model
    from pretextlm.training.state import TrainerState

    model = build_model(recipe, torch.device("cpu"))
    weights = grown(_weights(checked), model.state_dict(), recipe.seed)
    if not allow_non_finite:
        check_finite(weights, str(checked.directory))
    model.load_state_dict(weights, strict=False)
    environment = {
        "pretextlm": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "torch": torch.__version__,
        "device": "none: imported",
        "command": list(command),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    cost = {"parameters": total(model), "steps": 0, "tokens": 0, "seconds": 0.0, "compile_seconds": 0.0}
    with atomic_directory(out, ENOUGH_SPACE, checkpoints.size_of(model.state_dict())) as partial:
        (partial / ORIGIN).mkdir()
        tokenizer = partial / TOKENIZER
        tokenizer.write_text(checked.taken.tokenizer.to_str(pretty=True), encoding="utf-8")
        for name in KEPT:
            limit = MAX_TOKENIZER_BYTES if name == "tokenizer.json" else MAX_JSON_BYTES
            if (checked.directory / name).exists():
                (partial / ORIGIN / name).write_bytes(read_plain(checked.directory / name, limit))
        run = Run.create(partial, recipe, environment, tokenizer, provenance={"imported": origin.plain()})
        checkpoints.save(run.checkpoints, 0, model.state_dict(), {}, vars(TrainerState(run.id)), keep=1)
        write_json(partial / "cost.json", {**cost, "flops": 0.0, "device": "none", "energy_joules": None})
    return Run.open(out)


def _weights(checked: ValidatedModel) -> dict[str, Tensor]:
    """Returns the tensors under our names, in fp32."""
    from safetensors import safe_open

    from pretextlm.model.families.base import weights_from_hf

    theirs: dict[str, Tensor] = {}
    for file in sorted({one.file for one in checked.stored.values()}):
        with safe_open(file, "pt") as opened:
            theirs |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    if int8.is_quantized(checked.values, str(checked.directory / CONFIG_FILE)):
        theirs = int8.dequantized_weights(theirs)
    theirs = {name: tensor.float() for name, tensor in theirs.items()}
    shapes = _shapes(checked.config, checked.objective)
    return weights_from_hf(checked.family, checked.config, theirs, shapes, checked.head).weights


def grown(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Returns tensors with one row per token extended to `wanted` rows; new rows are the mean plus a little noise."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, old in weights.items():
        rows = len(wanted[name]) if old.dim() else 0
        if old.dim() and rows > len(old):
            noise = torch.randn((rows - len(old), *old.shape[1:]), generator=generator)
            spread = NOISE * old.std(0) if old.dim() > 1 else 0.0
            found[name] = torch.cat([old, old.mean(0) + spread * noise])
        else:
            found[name] = old
    return found
