"""The block of every stack: self-attention, cross-attention in a decoder over an encoder, feed-forward.

Axis letters: B rows, T positions, S positions of the encoder's row, D hidden_size, F intermediate_size, H heads,
K key-value heads, E head_dim.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pretextlm.model.attention import AttentionMask, attend
from pretextlm.model.config import ModelConfig
from pretextlm.model.disentangled_attention import disentangled_bias
from pretextlm.model.dropout import DropoutKeys, dropout
from pretextlm.model.kv_cache import KVCache
from pretextlm.model.layers import ACTIVATIONS, Linear, project
from pretextlm.model.norm import Norm
from pretextlm.model.rotary import RotaryAngles, apply_rotary


class Attention(nn.Module):
    """The four projections that self- and cross-attention share; keys and values may have fewer heads than queries."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        attention = config.attention
        self.head_dim = config.head_dim
        self.scale, self.softcap = attention.scale, attention.softcap
        queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, queries, attention.bias)
        self.k_proj = Linear(config.hidden_size, keys, attention.bias)
        self.v_proj = Linear(config.hidden_size, keys, attention.bias)
        self.o_proj = Linear(queries, config.hidden_size, attention.output_bias)
        norm: Callable[[], nn.Module] = nn.Identity
        if attention.qk_norm:
            norm = lambda: Norm(config.norm, config.head_dim, attention.qk_norm_weight)  # noqa: E731
        self.q_norm, self.k_norm = norm(), norm()

    def split_heads(self, x_BTD: Tensor) -> Tensor:
        """Reshape (B, T, H·E) to (B, T, H, E)."""
        return x_BTD.view(*x_BTD.shape[:2], -1, self.head_dim)

    def queries(self, x_BTD: Tensor) -> Tensor:
        """Project to queries.

        Returns:
            (B, T, H, E), normalized head by head with `qk_norm`.
        """
        out: Tensor = self.q_norm(self.split_heads(self.q_proj(x_BTD)))
        return out

    def keys(self, x_BSD: Tensor) -> Tensor:
        """Project to keys.

        Returns:
            (B, S, K, E), normalized head by head with `qk_norm`.
        """
        out: Tensor = self.k_norm(self.split_heads(self.k_proj(x_BSD)))
        return out

    def output(
        self,
        q_BTHE: Tensor,
        k_BSKE: Tensor,
        v_BSKE: Tensor,
        mask: AttentionMask,
        global_qkv: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend and project back.

        Returns:
            (B, T, D).
        """
        attended_BTHE = attend(q_BTHE, k_BSKE, v_BSKE, mask, self.scale, self.softcap, global_qkv)
        out: Tensor = self.o_proj(attended_BTHE.flatten(2))
        return out


class GlobalProjections(nn.Module):
    """Queries of global tokens, and the keys and values that these attend to (Beltagy et al. 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        bias, width = config.attention.bias, config.hidden_size
        self.q_proj = Linear(width, config.num_attention_heads * config.head_dim, bias)
        self.k_proj = Linear(width, config.num_key_value_heads * config.head_dim, bias)
        self.v_proj = Linear(width, config.num_key_value_heads * config.head_dim, bias)


class SelfAttention(Attention):
    """Self-attention: queries and keys are normalized, then rotated by their positions, where those are rotary."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.of_globals = GlobalProjections(config) if config.attention.global_projections else None

    def forward(
        self, x_BTD: Tensor, mask: AttentionMask, angles: RotaryAngles | None, cache: KVCache | None = None
    ) -> Tensor:
        """Attend within a row.

        Args:
            x_BTD: Hidden states.
            mask: Which positions may attend to which.
            angles: Rotary angles of these positions; None without rotary positions.
            cache: Keys and values of the positions before, which these are appended to; None without one.

        Returns:
            (B, T, D).
        """
        q_BTHE, k_BTKE, v_BTKE = map(self.split_heads, project(x_BTD, self.q_proj, self.k_proj, self.v_proj))
        q_BTHE, k_BTKE = self.q_norm(q_BTHE), self.k_norm(k_BTKE)
        if angles is not None:
            q_BTHE, k_BTKE = apply_rotary(q_BTHE, angles), apply_rotary(k_BTKE, angles)
        if cache is not None:
            k_BTKE, v_BTKE = cache.update(k_BTKE, v_BTKE)
        if mask.relative is not None:
            assert mask.bias is not None, "a mask to which positions are added is a tensor"
            scores_BHTS = disentangled_bias(q_BTHE, k_BTKE, self.queries, self.keys, mask.relative)
            scaled = scores_BHTS * (self.scale or self.head_dim**-0.5)
            mask = dataclasses.replace(mask, bias=mask.bias + scaled, relative=None)
        sliding = mask.sliding_window
        if self.of_globals is None or sliding is None or sliding.global_columns is None:
            return self.output(q_BTHE, k_BTKE, v_BTKE, mask)
        own = self.of_globals
        q, k, v = map(self.split_heads, project(x_BTD, own.q_proj, own.k_proj, own.v_proj))
        return self.output(q_BTHE, k_BTKE, v_BTKE, mask, (q, k, v))


class CrossAttention(Attention):
    """The decoder's attention to the encoder's output: no positions, all of the same segment is visible."""

    def forward(
        self, x_BTD: Tensor, encoder_hidden_BSD: Tensor, mask: AttentionMask, cache: KVCache | None = None
    ) -> Tensor:
        """Attend to the encoder's output.

        Args:
            x_BTD: Hidden states of the decoder.
            encoder_hidden_BSD: Output of the encoder.
            mask: Which positions of the encoder's row each position may attend to.
            cache: Filled on the first call; later calls read keys and values from it.

        Returns:
            (B, T, D).
        """
        if cache is not None and cache.length:
            k_BSKE, v_BSKE = cache.read()
        else:
            k_BSKE, v_BSKE = map(self.split_heads, project(encoder_hidden_BSD, self.k_proj, self.v_proj))
            k_BSKE = self.k_norm(k_BSKE)
            if cache is not None:
                cache.update(k_BSKE, v_BSKE)
        return self.output(self.queries(x_BTD), k_BSKE, v_BSKE, mask)


class FeedForward(nn.Module):
    """down(act(up(x))), or down(act(gate(x)) ⊙ up(x)) where it is gated (GLU)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        parts = config.feed_forward
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, parts.bias)
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, parts.bias) if parts.gated else None
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, parts.bias)
        self.activation = ACTIVATIONS[parts.activation]

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Apply the layer to each position.

        Returns:
            (B, T, D).
        """
        x_BTF = self.up_proj(x_BTD)
        x_BTF = self.activation(x_BTF) if self.gate_proj is None else self.activation(self.gate_proj(x_BTD)) * x_BTF
        out: Tensor = self.down_proj(x_BTF)
        return out


class SubLayer(nn.Module):
    """The norms around one sub-layer f: last(x + after(f(before(x)))), each of them a norm or the identity.

    Pre-norm models have `before`, post-norm models `last`, Gemma 2 `before` and `after`.
    """

    def __init__(self, config: ModelConfig, before: bool = True) -> None:
        super().__init__()
        placement = config.norm.placement

        def norm(there: bool) -> nn.Module:
            return Norm(config.norm, config.hidden_size) if there else nn.Identity()

        self.before = norm(before and placement in ("pre", "both"))
        self.after = norm(placement == "both")
        self.last = norm(placement == "post")


class Block(nn.Module):
    """Self-attention, then cross-attention in a decoder over an encoder, then feed-forward, each with its norms.

    Args:
        config: Shape of the model.
        cross: Whether the block attends to an encoder's output.
        first: Whether it is the first block of its stack, whose attention may read the embedding without a norm.

    Attributes:
        gradient_checkpointing: Keep only the block's inputs in training and compute the rest again in the backward
            pass (Chen et al. 2016, https://arxiv.org/abs/1604.06174).
        passes: How often the block was applied with gradients since it was compiled.
        eager_passes: How many of these ran without compiled code, for a shape that was not compiled.
    """

    def __init__(self, config: ModelConfig, cross: bool, first: bool = False) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        self.passes = self.eager_passes = 0
        before = config.norm.first_layer or not first
        self.self_attn, self.self_attn_norm = SelfAttention(config), SubLayer(config, before)
        self.cross_attn = CrossAttention(config) if cross else None
        self.cross_attn_norm = SubLayer(config) if cross else None
        self.mlp, self.mlp_norm = FeedForward(config), SubLayer(config)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Apply the block, and count it."""
        if self._compiled_call_impl is not None and torch.is_grad_enabled():
            self.passes += 1
        out: Tensor = super().__call__(*args, **kwargs)
        return out

    def forward(
        self,
        x_BTD: Tensor,
        mask: AttentionMask,
        angles: RotaryAngles | None,
        encoder_hidden_BSD: Tensor | None = None,
        cross_attention_mask: AttentionMask | None = None,
        cache: tuple[KVCache, KVCache] | None = None,
        dropout_keys: DropoutKeys | None = None,
    ) -> Tensor:
        """Apply the block.

        Args:
            x_BTD: Hidden states.
            mask: Mask of the self-attention.
            angles: Rotary angles; None without rotary positions.
            encoder_hidden_BSD: Output of the encoder, in a decoder over one.
            cross_attention_mask: Mask of the cross-attention.
            cache: Caches of self- and cross-attention, in generation.
            dropout_keys: Keys of this layer's dropout; None for no dropout.

        Returns:
            (B, T, D) hidden states.
        """
        # Compiled code does not come by here.
        if not torch.compiler.is_compiling() and self._compiled_call_impl is not None and torch.is_grad_enabled():
            self.eager_passes += 1
        if not (self.gradient_checkpointing and torch.is_grad_enabled()):
            return self._compute(x_BTD, mask, angles, encoder_hidden_BSD, cross_attention_mask, dropout_keys, cache)
        assert cache is None, "a cache is filled once"
        inputs = x_BTD, mask, angles, encoder_hidden_BSD, cross_attention_mask, dropout_keys
        # Dropout is a function of the tokens' keys, so the state of torch's generator need not be kept.
        out: Tensor = checkpoint(self._compute, *inputs, use_reentrant=False, preserve_rng_state=False)
        return out

    def _compute(
        self,
        x_BTD: Tensor,
        mask: AttentionMask,
        angles: RotaryAngles | None,
        encoder_hidden_BSD: Tensor | None,
        cross_attention_mask: AttentionMask | None,
        dropout_keys: DropoutKeys | None,
        cache: tuple[KVCache, KVCache] | None = None,
    ) -> Tensor:
        norm = self.self_attn_norm
        attended_BTD = norm.after(self.self_attn(norm.before(x_BTD), mask, angles, cache and cache[0]))
        x_BTD = norm.last(x_BTD + dropout(attended_BTD, dropout_keys, 0))
        if self.cross_attn is not None:
            assert self.cross_attn_norm is not None, "a sub-layer has its norms"
            assert encoder_hidden_BSD is not None, "a decoder over an encoder needs the encoder's output"
            norm = self.cross_attn_norm
            attended_BTD = self.cross_attn(
                norm.before(x_BTD), encoder_hidden_BSD, cross_attention_mask, cache and cache[1]
            )
            x_BTD = norm.last(x_BTD + dropout(norm.after(attended_BTD), dropout_keys, 1))
        norm = self.mlp_norm
        out: Tensor = norm.last(x_BTD + dropout(norm.after(self.mlp(norm.before(x_BTD))), dropout_keys, 2))
        return out


def reset_blocks(blocks: nn.ModuleList, generator: torch.Generator | None) -> None:
    """Initialize blocks: matrices uniform with variance 1/fan-in, output projections and biases zero, norms neutral.

    With zero output projections every block starts as the identity.
    """
    for name, parameter in blocks.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")) or (name.endswith("bias") and "norm" not in name):
            nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            bound = (3.0 / parameter.size(1)) ** 0.5  # a uniform variable on ±b has variance b²/3
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
    for module in blocks.modules():
        if isinstance(module, Norm):
            module.reset_parameters()
