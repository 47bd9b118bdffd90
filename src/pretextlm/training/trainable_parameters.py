"""Which parameters a run trains, and how fast: frozen ones, learning rates that decay with depth, low-rank adapters.

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
    """Low-rank adapters (Hu et al. 2022, https://arxiv.org/abs/2106.09685), by peft.

    Attributes:
        rank: of the product of matrices that is added to each target.
        alpha: the product is scaled by alpha / rank.
        targets: matrices of the blocks, by the last part of their name.
        kind: "lora"; "rslora" scales by alpha / √rank (Kalajdzievski 2023, https://arxiv.org/abs/2312.03732); "dora"
            trains magnitudes and directions separately (Liu et al. 2024, https://arxiv.org/abs/2402.09353).
    """

    rank: int = Field(8, ge=1, le=4096)
    alpha: float = Field(16.0, gt=0)
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    kind: Literal["lora", "rslora", "dora"] = "lora"


class TuningConfig(Config):
    """Which parameters are trained.

    Attributes:
        freeze: patterns of parameters that are not trained ("embed*", "encoder.[0-3].*"); "trunk" is everything except
            the heads.
        layer_decay: learning rate of a block as a share of that of the block above it; the embedding lies below the
            first block (ULMFiT, ELECTRA); 1: all have the same rate.
        thaw: share of the budget over which blocks start to be trained, the last one first (gradual unfreezing); 0: all
            are trained from the start.
        lora: adapters that are trained instead of the parameters.
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
    """Adds the adapters of a recipe to a model, if it has any; then only these and the heads are trained.

    Args:
        model: changed in place.
        tuning: of the recipe.
        generator: initialises the adapters: A uniform with variance 1 / (3 · fan-in), B zero, so that the sum with the
            matrix is the matrix. None leaves them to be loaded.

    Returns:
        The model.

    Raises:
        UserError: peft is not installed, or a target is not a matrix of the blocks.
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
            drawn = parameter.data.new_empty(parameter.shape, device=generator.device)
            parameter.data.copy_(drawn.uniform_(-bound, bound, generator=generator))  # the same on any device
    return model


def merged(model: Transformer) -> Transformer:
    """Adds each adapter's product to its matrix and removes the adapters.

    Returns:
        The model, without adapters.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, part in [*model.named_modules()]:
        if isinstance(part, BaseTunerLayer):
            part.merge()
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, part.get_base_layer())
    return model.requires_grad_(True)


def freeze(model: nn.Module, patterns: Iterable[str]) -> None:
    """Excludes the parameters whose names match from training.

    Raises:
        UserError: a pattern matches no parameter.
    """
    names = dict(model.named_parameters())
    for pattern in patterns:
        chosen = [name for name in names if _matches(name, pattern)]
        if not chosen:
            raise UserError(f"No weight's name matches {pattern!r}.", f"Names are like {', '.join([*names][:3])}.")
        for name in chosen:
            names[name].requires_grad_(False)


def depth(name: str, model: Transformer) -> int:
    """Returns how many blocks lie between a parameter and the output, its own included.

    With an encoder of 2 blocks and a decoder of 3: 0 for the heads and the final norm, 1 for decoder.2, 3 for
    decoder.0, 4 for encoder.1, 5 for encoder.0 and 6 for the embedding.
    """
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
    """Lets the parameters that are due at this share of the budget be trained, those with few blocks above them first.

    Args:
        model: changed in place.
        tuning: of the recipe.
        share: of the budget that has been used, 0 … 1.
    """
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
