"""Which weights a run trains, and how much: frozen parts, rates that fall with depth, low-rank adapters.

Names are those of the checkpoint (embed_tokens.weight, encoder.0.self_attn.q_proj.weight, …).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from pretextlm.config import Config
from pretextlm.errors import UserError, did_you_mean, missing_extra

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pretextlm.model.transformer import Transformer

HEADS = "heads."
IN_A_BLOCK = re.compile(r"(encoder|decoder)\.(\d+)\.")


class LoraConfig(Config):
    """Low-rank adapters (Hu et al. 2022, https://arxiv.org/abs/2106.09685), made by peft.

    Attributes:
        rank: of the two matrices that are added to each target; alpha: their product is scaled by alpha / rank.
        targets: matrices of the blocks, by the end of their name.
        kind: "lora"; "rslora" scales by alpha / √rank (Kalajdzievski 2023); "dora" trains sizes and directions apart
            (Liu et al. 2024).
    """

    rank: int = Field(8, ge=1, le=4096)
    alpha: float = Field(16.0, gt=0)
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    kind: Literal["lora", "rslora", "dora"] = "lora"


class TuningConfig(Config):
    """Attributes:
    freeze: patterns of weights that stay as they are ("embed*", "encoder.[0-3].*"); "trunk" is all but the heads.
    layer_decay: rate of a block by that of the block above it; the embedding is below the first (ULMFiT, ELECTRA);
        1: all alike.
    thaw: share of the budget over which blocks join in, the last one first (gradual unfreezing); 0: all from the start.
    lora: adapters that are trained instead of the weights.
    """

    section: ClassVar[str] = "tuning"

    freeze: tuple[str, ...] = ()
    layer_decay: float = Field(1.0, gt=0, le=1)
    thaw: float = Field(0.0, ge=0, le=1)
    lora: LoraConfig | None = None

    @model_validator(mode="after")
    def _one_way(self) -> TuningConfig:
        if self.lora and (self.thaw or self.freeze):
            raise ValueError("with adapters all other weights are frozen: leave out freeze and thaw")
        return self


def adapted(model: Transformer, tuning: TuningConfig, generator: torch.Generator | None = None) -> Transformer:
    """The model with the adapters of its run, where it has some; only these and the heads are trained then.

    Args:
        generator: of the first adapters, uniform with variance 1/(3 · fan-in) and zero, so that the sum with the matrix
            is the matrix; None leaves them to be loaded.

    Raises UserError where peft is missing or a target is no matrix of the blocks.
    """
    lora = tuning.lora
    if lora is None:
        return model

    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ImportError:
        raise missing_extra("peft", "lora", "Training adapters") from None
    from pretextlm.model.layers import Linear

    matrices = [name for name, part in model.named_modules() if IN_A_BLOCK.match(name) and isinstance(part, Linear)]
    known = {_last(name) for name in matrices}
    unknown = [target for target in lora.targets if target not in known]
    if unknown:
        raise UserError(f"No block has a matrix {unknown[0]!r}.", did_you_mean(unknown[0], known))
    config = PeftConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        target_modules=[name for name in matrices if _last(name) in lora.targets],
        use_rslora=lora.kind == "rslora",
        use_dora=lora.kind == "dora",
    )
    inject_adapter_in_model(config, model, low_cpu_mem_usage=next(model.parameters()).is_meta)
    for name, parameter in model.named_parameters():
        if name.startswith(HEADS):
            parameter.requires_grad_(True)
        if generator is not None and ".lora_A." in name:
            bound = parameter.size(1) ** -0.5
            parameter.data.uniform_(-bound, bound, generator=generator)
    return model


def merged(model: Transformer) -> Transformer:
    """The model with its adapters added to the matrices they belong to: one as any other."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, part in [*model.named_modules()]:
        if isinstance(part, BaseTunerLayer):
            part.merge()
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, part.get_base_layer())
    return model.requires_grad_(True)


def freeze(model: nn.Module, patterns: Iterable[str]) -> None:
    """Weights whose names match are not trained. Raises UserError for a pattern that matches none."""
    names = dict(model.named_parameters())
    for pattern in patterns:
        chosen = [name for name in names if _matches(name, pattern)]
        if not chosen:
            raise UserError(f"No weight's name matches {pattern!r}.", f"Names are like {', '.join([*names][:3])}.")
        for name in chosen:
            names[name].requires_grad_(False)


def depth(name: str, model: Transformer) -> int:
    """How many blocks lie above a weight: 0 for the heads and what follows the last block, most for the embedding."""
    blocks = {"encoder": model.config.layers("encoder"), "decoder": model.config.layers("decoder")}
    above = blocks["decoder"] if model.encoder is not None and model.decoder is not None else 0
    match = IN_A_BLOCK.match(name)
    if match:
        own = blocks[match[1]] - int(match[2])
        return own + (above if match[1] == "encoder" else 0)
    if not name.startswith(("embed", "decoder_embed")):
        return 0
    total: int = sum(len(stack) for stack in (model.encoder, model.decoder) if stack is not None)
    return total + 1


def thaw(model: Transformer, tuning: TuningConfig, share: float) -> None:
    """Let the weights that have their turn at this share of the budget be trained: those of few blocks above first."""
    if not tuning.thaw:
        return
    deepest = max(depth(name, model) for name, _ in model.named_parameters())
    reached = deepest if share >= tuning.thaw else int(share / tuning.thaw * (deepest + 1))
    frozen = {name for name, _ in model.named_parameters() if any(_matches(name, p) for p in tuning.freeze)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(depth(name, model) <= reached and name not in frozen)


def _matches(name: str, pattern: str) -> bool:
    return not name.startswith(HEADS) if pattern == "trunk" else fnmatchcase(name, pattern)


def _last(name: str) -> str:
    return name.rpartition(".")[2]
