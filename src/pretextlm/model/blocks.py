"""The block of every stack: attention, cross-attention where there is an encoder, feed-forward, built from parts.

Axis letters: B rows, T positions, S positions of the encoder's row, D hidden_size, F intermediate_size, H heads,
K key-value heads, E width of a head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pretextlm.model.attention import Sight, attend
from pretextlm.model.config import ModelConfig
from pretextlm.model.disentangled_attention import place_scores
from pretextlm.model.dropout import Noise, dropped
from pretextlm.model.kv_cache import LayerCache
from pretextlm.model.norm import Norm
from pretextlm.model.rotary import Angles, rotate

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu2": lambda x: functional.relu(x).square(),  # So et al. 2021, https://arxiv.org/abs/2109.08668
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}


class Linear(nn.Linear):
    """A matrix kept in fp32 and rounded to the activations' type as it is used; by default without a bias."""

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class Table(nn.Embedding):
    """Rows that its model draws. Drawing them here, on the meta device, would load torch's compiler: seconds."""

    def reset_parameters(self) -> None:
        pass


class Attention(nn.Module):
    """The four projections that self- and cross-attention share; keys and values may have fewer heads than queries."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        parts = config.attention
        self.head_dim = config.head_dim
        self.scale, self.softcap = parts.scale, parts.softcap
        queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, queries, parts.bias)
        self.k_proj = Linear(config.hidden_size, keys, parts.bias)
        self.v_proj = Linear(config.hidden_size, keys, parts.bias)
        self.o_proj = Linear(queries, config.hidden_size, parts.output_bias)
        own: Callable[[], nn.Module] = nn.Identity
        if parts.qk_norm:
            own = lambda: Norm(config.norm, config.head_dim, parts.head_norm_weight)  # noqa: E731
        self.q_norm, self.k_norm = own(), own()

    def heads(self, x_BTD: Tensor) -> Tensor:
        """(B, T, H·E) → (B, T, H, E)."""
        return x_BTD.view(*x_BTD.shape[:2], -1, self.head_dim)

    def queries(self, x_BTD: Tensor) -> Tensor:
        out: Tensor = self.q_norm(self.heads(self.q_proj(x_BTD)))
        return out

    def keys(self, x_BSD: Tensor) -> Tensor:
        out: Tensor = self.k_norm(self.heads(self.k_proj(x_BSD)))
        return out

    def output(
        self,
        q_BTHE: Tensor,
        k_BSKE: Tensor,
        v_BSKE: Tensor,
        sight: Sight,
        of_globals: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Tensor:
        seen_BTHE = attend(q_BTHE, k_BSKE, v_BSKE, sight, self.scale, self.softcap, of_globals)
        out: Tensor = self.o_proj(seen_BTHE.flatten(2))
        return out


class GlobalProjections(nn.Module):
    """Queries of global tokens, and the keys and values that these look at (Beltagy et al. 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        bias, width = config.attention.bias, config.hidden_size
        self.q_proj = Linear(width, config.num_attention_heads * config.head_dim, bias)
        self.k_proj = Linear(width, config.num_key_value_heads * config.head_dim, bias)
        self.v_proj = Linear(width, config.num_key_value_heads * config.head_dim, bias)


class SelfAttention(Attention):
    """Queries and keys are normalised, then turned by their positions, where those are rotary."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.of_globals = GlobalProjections(config) if config.attention.global_projections else None

    def forward(self, x_BTD: Tensor, sight: Sight, at: Angles | None, cache: LayerCache | None = None) -> Tensor:
        q_BTHE, k_BTKE = self.queries(x_BTD), self.keys(x_BTD)
        v_BTKE = self.heads(self.v_proj(x_BTD))
        if at is not None:
            q_BTHE, k_BTKE = rotate(q_BTHE, at), rotate(k_BTKE, at)
        if cache is not None:
            k_BTKE, v_BTKE = cache.extend(k_BTKE, v_BTKE)
        if sight.places is not None:
            assert sight.bias is not None, "a visibility to which positions are added is written out"
            scores_BHTS = place_scores(q_BTHE, k_BTKE, self.queries, self.keys, sight.places)
            scaled = scores_BHTS * (self.scale or self.head_dim**-0.5)
            sight = dataclasses.replace(sight, bias=sight.bias + scaled, places=None)
        if self.of_globals is None or sight.local is None or sight.local.globals is None:
            return self.output(q_BTHE, k_BTKE, v_BTKE, sight)
        own = self.of_globals
        other = (self.heads(own.q_proj(x_BTD)), self.heads(own.k_proj(x_BTD)), self.heads(own.v_proj(x_BTD)))
        return self.output(q_BTHE, k_BTKE, v_BTKE, sight, other)


class CrossAttention(Attention):
    """The decoder's look at the encoder's output: no positions, everything inside the segment is visible."""

    def forward(self, x_BTD: Tensor, memory_BSD: Tensor, sight: Sight, cache: LayerCache | None = None) -> Tensor:
        if cache is not None and cache.length:
            k_BSKE, v_BSKE = cache.read()
        else:
            k_BSKE, v_BSKE = self.keys(memory_BSD), self.heads(self.v_proj(memory_BSD))
            if cache is not None:
                cache.extend(k_BSKE, v_BSKE)
        return self.output(self.queries(x_BTD), k_BSKE, v_BSKE, sight)


class FeedForward(nn.Module):
    """act(x W) W', or (act(x G) ⊙ x W) W' where it is gated."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        parts = config.feed_forward
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, parts.bias)
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, parts.bias) if parts.gated else None
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, parts.bias)
        self.activation = ACTIVATIONS[parts.activation]

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTF = self.up_proj(x_BTD)
        x_BTF = self.activation(x_BTF) if self.gate_proj is None else self.activation(self.gate_proj(x_BTD)) * x_BTF
        out: Tensor = self.down_proj(x_BTF)
        return out


class SubLayer(nn.Module):
    """The norms around one sub-layer f: last(x + after(f(before(x)))), each of them there or not."""

    def __init__(self, config: ModelConfig, before: bool = True) -> None:
        super().__init__()
        place = config.norm.place

        def norm(there: bool) -> nn.Module:
            return Norm(config.norm, config.hidden_size) if there else nn.Identity()

        self.before = norm(before and place in ("before", "both"))
        self.after = norm(place == "both")
        self.last = norm(place == "after")


class Block(nn.Module):
    """Self-attention, then cross-attention in a decoder over an encoder, then feed-forward, each with its norms.

    With `recomputed`, training keeps only its inputs, and the backward pass computes the rest again (Chen et al. 2016,
    https://arxiv.org/abs/1604.06174).
    """

    def __init__(self, config: ModelConfig, cross: bool, first: bool = False) -> None:
        super().__init__()
        self.recomputed = False
        before = config.norm.first or not first
        self.self_attn, self.self_attn_norm = SelfAttention(config), SubLayer(config, before)
        self.cross_attn = CrossAttention(config) if cross else None
        self.cross_attn_norm = SubLayer(config) if cross else None
        self.mlp, self.mlp_norm = FeedForward(config), SubLayer(config)

    def forward(
        self,
        x_BTD: Tensor,
        sight: Sight,
        at: Angles | None,
        memory_BSD: Tensor | None = None,
        cross_sight: Sight | None = None,
        cache: tuple[LayerCache, LayerCache] | None = None,
        noise: Noise | None = None,
    ) -> Tensor:
        if not (self.recomputed and torch.is_grad_enabled()):
            return self._compute(x_BTD, sight, at, memory_BSD, cross_sight, noise, cache)
        assert cache is None, "a cache is filled once"
        read = x_BTD, sight, at, memory_BSD, cross_sight, noise
        # What is dropped depends on the tokens' keys, so the generator's state need not be kept.
        out: Tensor = checkpoint(self._compute, *read, use_reentrant=False, preserve_rng_state=False)
        return out

    def _compute(
        self,
        x_BTD: Tensor,
        sight: Sight,
        at: Angles | None,
        memory_BSD: Tensor | None,
        cross_sight: Sight | None,
        noise: Noise | None,
        cache: tuple[LayerCache, LayerCache] | None = None,
    ) -> Tensor:
        norm = self.self_attn_norm
        own_BTD = norm.after(self.self_attn(norm.before(x_BTD), sight, at, cache and cache[0]))
        x_BTD = norm.last(x_BTD + dropped(own_BTD, noise, 0))
        if self.cross_attn is not None:
            assert self.cross_attn_norm is not None, "a sub-layer has its norms"
            assert memory_BSD is not None, "a decoder over an encoder needs the encoder's output"
            norm = self.cross_attn_norm
            seen_BTD = self.cross_attn(norm.before(x_BTD), memory_BSD, cross_sight, cache and cache[1])
            x_BTD = norm.last(x_BTD + dropped(norm.after(seen_BTD), noise, 1))
        norm = self.mlp_norm
        out: Tensor = norm.last(x_BTD + dropped(norm.after(self.mlp(norm.before(x_BTD))), noise, 2))
        return out


def reset_blocks(blocks: nn.ModuleList, generator: torch.Generator | None) -> None:
    """Matrices uniform with variance 1/fan-in, output projections zero, biases zero, norms neutral."""
    for name, parameter in blocks.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")) or (name.endswith("bias") and "norm" not in name):
            nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            bound = (3.0 / parameter.size(1)) ** 0.5
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
    for module in blocks.modules():
        if isinstance(module, Norm):
            module.reset_parameters()
