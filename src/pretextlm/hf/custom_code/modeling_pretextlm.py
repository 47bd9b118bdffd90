"""A Transformer in one file, for Hugging Face's transformers (5.0 or newer); it needs torch and transformers alone.

    AutoModelForMaskedLM.from_pretrained(DIRECTORY, trust_remote_code=True)

One block serves an encoder, a decoder, and a decoder over an encoder. config.json says which parts it is built of: the
tables "norm", "positions", "attention", "feed_forward", "embedding" and "head" (`DEFAULTS` below). With the defaults it
is a pre-norm Transformer with RMSNorm without weights, normalized queries and keys, rotary positions, ReLU² in its
feed-forward layers, no biases, and a head tied to the embedding.

Which positions see each other is the encoder's, or the decoder's "visibility":

    bidirectional      causal             prefix (prefix_length = 2)
    1 1 1 1            1 . . .            1 1 . .        query positions go down, key positions to the right
    1 1 1 1            1 1 . .            1 1 . .
    1 1 1 1            1 1 1 .            1 1 1 .
    1 1 1 1            1 1 1 1            1 1 1 1

Padding may be on either side: positions count the tokens that attention_mask shows, so that a text is read alike
wherever it stands in its row.

Axis letters: B rows, T query positions, S key positions, D hidden_size, F intermediate_size, E head_dim, H heads,
K key-value heads, V vocab_size, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
    CausalLMOutputWithPast,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils.generic import can_return_tuple

IGNORED = -100
"""Label of a token without a loss."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "norm": {  # kind "rms" or "layer"; placement "pre", "post" or "both"; weights stored less 1 with unit_offset
        "kind": "rms",
        "eps": 1e-6,
        "weight": False,
        "bias": False,
        "unit_offset": False,
        "placement": "pre",
        "first_layer": True,
    },
    "positions": {  # kind "rotary", "learned", "sinusoidal", "relative" (T5), "alibi" or "none"
        "kind": "rotary",
        "rope_theta": 10_000.0,
        "local_rope_theta": 0.0,
        "partial_rotary_factor": 1.0,
        "rope_frequencies": None,  # of scaled angles, one for each pair of columns; None: theta^(-2i/R)
        "rope_attention_factor": 1.0,
        "max_position_embeddings": 0,
        "offset": 0,
        "num_buckets": 32,
        "max_distance": 128,
    },
    "attention": {  # scale 0: 1/√head_dim; softcap 0: none; a window of 0: full attention
        "qk_norm": True,
        "qk_norm_weight": False,
        "bias": False,
        "output_bias": False,
        "scale": 0.0,
        "softcap": 0.0,
        "sliding_windows": [0],
    },
    "feed_forward": {"activation": "relu2", "gated": False, "bias": False},
    "embedding": {"norm": True, "scale": 1.0, "projection_bias": False, "separate_decoder": False},
    "head": {
        "dense": False,
        "dense_bias": True,
        "activation": "none",
        "norm": False,
        "bias": False,
        "scale": 1.0,
    },
}

ACTIVATIONS = {
    "relu2": lambda x: functional.relu(x).square(),
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "tanh": torch.tanh,
    "none": lambda x: x,
}


class PretextConfig(PretrainedConfig):
    """Shape of a model: a few numbers, and the tables of `DEFAULTS`, of which missing values are the default."""

    model_type = "pretextlm"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012

    def __init__(
        self,
        architecture: str = "encoder",
        visibility: str = "causal",
        vocab_size: int = 32_768,
        hidden_size: int = 256,
        embedding_size: int | None = None,
        num_hidden_layers: int = 6,
        decoder_layers: int | None = None,
        share_layers: bool = False,
        num_attention_heads: int = 4,
        num_key_value_heads: int | None = None,
        head_dim: int | None = None,
        intermediate_size: int | None = None,
        logit_softcap: float = 0.0,
        type_vocab_size: int = 0,
        final_norm: bool = True,
        tie_word_embeddings: bool = True,
        sentinel_states: bool = False,
        sentinel_ids: tuple[int, int] = (0, 0),
        classifier_activation: str = "tanh",
        use_cache: bool = True,
        **kwargs: Any,
    ) -> None:
        self.architecture = architecture  # "encoder", "decoder" or "encoder_decoder"
        self.visibility = visibility  # of a decoder: "causal", "bidirectional" or "prefix"
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.embedding_size = embedding_size or hidden_size
        self.num_hidden_layers = num_hidden_layers
        if architecture == "encoder_decoder":
            self.decoder_layers = decoder_layers or num_hidden_layers  # transformers sizes its caches by this name
        self.share_layers = share_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads or num_attention_heads
        self.head_dim = head_dim or hidden_size // num_attention_heads
        self.intermediate_size = intermediate_size or 4 * hidden_size
        self.logit_softcap = logit_softcap
        self.type_vocab_size = type_vocab_size
        self.final_norm = final_norm
        self.sentinel_states = sentinel_states  # added to the decoder's input at the sentinels of the source
        self.sentinel_ids = tuple(sentinel_ids)  # the lowest and the highest
        self.classifier_activation = classifier_activation  # "plain": no dense layer, no bias
        self.use_cache = use_cache
        for name, default in DEFAULTS.items():
            setattr(self, name, {**default, **(kwargs.pop(name, None) or {})})
        super().__init__(**kwargs)
        self.is_encoder_decoder = architecture == "encoder_decoder"
        self.tie_word_embeddings = tie_word_embeddings

    def layers(self, stack: str) -> int:
        """Returns the number of blocks of a stack, "encoder" or "decoder"."""
        return self.decoder_layers if self.is_encoder_decoder and stack == "decoder" else self.num_hidden_layers

    @property
    def reads_both_ways(self) -> bool:
        """Whether every token of a text sees all others."""
        return self.architecture == "encoder" or self.visibility == "bidirectional"


class Norm(nn.Module):
    """RMSNorm or LayerNorm over the last dimension, in fp32 where it has a weight."""

    def __init__(self, config: PretextConfig, size: int, weight: bool | None = None) -> None:
        super().__init__()
        table = config.norm
        self.eps, self.layer, self.offset = table["eps"], table["kind"] == "layer", float(table["unit_offset"])
        weighted = table["weight"] if weight is None else weight
        self.weight = nn.Parameter(torch.full((size,), 1.0 - self.offset)) if weighted else None
        self.bias = nn.Parameter(torch.zeros(size)) if table["bias"] and weighted else None

    def forward(self, x: Tensor) -> Tensor:
        shape = (x.size(-1),)
        if self.weight is None:
            norm = functional.layer_norm if self.layer else functional.rms_norm
            return norm(x, shape, eps=self.eps)
        weight, wide = self.weight.float() + self.offset, x.float()
        if self.layer:
            bias = None if self.bias is None else self.bias.float()
            return functional.layer_norm(wide, shape, weight, bias, self.eps).to(x.dtype)
        return functional.rms_norm(wide, shape, weight, self.eps).to(x.dtype)


def soft_cap(scores: Tensor, cap: float) -> Tensor:
    """Bounds scores smoothly to ±cap; 0 for no bound."""
    return cap * torch.tanh(scores / cap) if cap else scores


# Positions ------------------------------------------------------------------------------------------------------------


def rotary_angles(
    config: PretextConfig, positions_BT: Tensor, theta: float, scaled: list[float] | None = None
) -> tuple[Tensor, Tensor]:
    """Returns cosines and sines (B, 1, T, R/2) of position · frequency, R the number of columns that are rotated."""
    width, device = int(config.head_dim * config.positions["partial_rotary_factor"]), positions_BT.device
    if scaled:
        frequencies = torch.tensor(scaled, dtype=torch.float32, device=device)
    else:
        frequencies = theta ** -(torch.arange(0, width, 2, dtype=torch.float32, device=device) / width)
    phase = positions_BT[:, None, :, None].float() * frequencies
    factor = config.positions["rope_attention_factor"] if scaled else 1.0
    return phase.cos() * factor, phase.sin() * factor


def rotate(x_BHTE: Tensor, angles: tuple[Tensor, Tensor] | None) -> Tensor:
    """Rotates each pair of columns (i, i + R/2) by its angle; columns from R on stay as they are."""
    if angles is None:
        return x_BHTE
    cos, sin = (part.to(x_BHTE.dtype) for part in angles)
    half = cos.size(-1)
    first, second, rest = x_BHTE[..., :half], x_BHTE[..., half : 2 * half], x_BHTE[..., 2 * half :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


class RelativePositionBias(nn.Module):
    """T5's learned bias of each head for each bucket of distance; ALiBi's fixed slopes where the kind is "alibi"."""

    def __init__(self, config: PretextConfig, bidirectional: bool) -> None:
        super().__init__()
        table, self.heads = config.positions, config.num_attention_heads
        self.bidirectional, self.max_distance = bidirectional, table["max_distance"]
        learned = table["kind"] == "relative"
        self.weight = nn.Parameter(torch.zeros(table["num_buckets"], self.heads)) if learned else None

    def forward(self, query_positions_BT: Tensor, key_positions_BS: Tensor) -> Tensor:
        """Returns (B, H, T, S) the bias of each pair."""
        distance_BTS = key_positions_BS[:, None, :] - query_positions_BT[:, :, None]
        if self.weight is None:
            slopes_H = torch.tensor(self.slopes(), device=distance_BTS.device)
            return -distance_BTS.abs().float()[:, None] * slopes_H[:, None, None]
        return self.weight[self.bucket(distance_BTS)].permute(0, 3, 1, 2)

    def bucket(self, distance: Tensor) -> Tensor:
        """Returns the bucket of each distance, key - query.

        The first half of the buckets of one direction hold one distance each, the others widen logarithmically up to
        max_distance. With 32 causal buckets and a max_distance of 128: 0 … 15 → 0 … 15, 16 … 18 → 16, … 113 → 31.
        """
        buckets = self.weight.size(0)
        if self.bidirectional:  # half of the buckets are for later keys
            buckets //= 2
            side, distance = (distance > 0).long() * buckets, distance.abs()
        else:  # later keys count as distance 0
            side, distance = 0, (-distance).clamp(min=0)
        exact = buckets // 2
        growth = (distance.float().clamp(min=1) / exact).log() / math.log(self.max_distance / exact)
        far = (exact + (growth * (buckets - exact)).long()).clamp(max=buckets - 1)
        return side + torch.where(distance < exact, distance.long(), far)

    def slopes(self) -> list[float]:
        """Returns ALiBi's slopes: 2^(-8/n), 2^(-16/n), … for n = 2^k heads; else those, then every other of 2n."""
        power = 2 ** math.floor(math.log2(self.heads))
        slopes = [2.0 ** (-8.0 * (i + 1) / power) for i in range(power)]
        return slopes + [2.0 ** (-4.0 * (i + 1) / power) for i in range(0, 2 * (self.heads - power), 2)]


class Embeddings(nn.Module):
    """Adds token types and positions to the tokens' embedding, normalizes and projects the sum."""

    def __init__(self, config: PretextConfig) -> None:
        super().__init__()
        size, table, positions = config.embedding_size, config.embedding, config.positions
        self.scale, self.kind, self.offset = table["scale"], positions["kind"], positions["offset"]
        self.types = nn.Embedding(config.type_vocab_size, size) if config.type_vocab_size else None
        rows = positions["max_position_embeddings"]
        self.positions = nn.Embedding(rows, size) if self.kind == "learned" else None
        self.norm = Norm(config, size) if table["norm"] else nn.Identity()
        wide = size != config.hidden_size
        self.projection = nn.Linear(size, config.hidden_size, table["projection_bias"]) if wide else None

    def forward(self, x_BTE: Tensor, positions_BT: Tensor, types_BT: Tensor | None) -> Tensor:
        """Returns (B, T, D) the input of the first block; tokens without types have type 0."""
        x = x_BTE * self.scale
        if self.types is not None:
            several = types_BT is not None and self.types.num_embeddings > 1
            x = x + (self.types(types_BT) if several else self.types.weight[0])
        if self.positions is not None:
            x = x + self.positions(positions_BT + self.offset)
        if self.kind == "sinusoidal":  # first all sines, then all cosines
            half = x.size(-1) // 2
            exponents = torch.arange(half, dtype=torch.float32, device=x.device) / half
            phase = (positions_BT + self.offset)[..., None].float() * 10_000.0**-exponents
            x = x + torch.cat([phase.sin(), phase.cos()], dim=-1).to(x.dtype)
        x = self.norm(x)
        return x if self.projection is None else self.projection(x)


# Blocks ---------------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Self-attention, or a decoder's attention to the encoder's output; K key-value heads serve H query heads."""

    def __init__(self, config: PretextConfig) -> None:
        super().__init__()
        table, self.head_dim = config.attention, config.head_dim
        self.scale, self.softcap = table["scale"] or config.head_dim**-0.5, table["softcap"]
        queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, queries, table["bias"])
        self.k_proj = nn.Linear(config.hidden_size, keys, table["bias"])
        self.v_proj = nn.Linear(config.hidden_size, keys, table["bias"])
        self.o_proj = nn.Linear(queries, config.hidden_size, table["output_bias"])
        self.q_norm, self.k_norm = (
            Norm(config, config.head_dim, table["qk_norm_weight"]) if table["qk_norm"] else nn.Identity()
            for _ in range(2)
        )

    def heads(self, x_BTD: Tensor) -> Tensor:
        """Reshapes (B, T, H · E) to (B, H, T, E)."""
        return x_BTD.unflatten(2, (-1, self.head_dim)).transpose(1, 2)

    def forward(
        self,
        x_BTD: Tensor,
        mask: Tensor | None,
        angles: tuple[Tensor, Tensor] | None,
        cache: Cache | None,
        layer: int,
        source_BSD: Tensor | None = None,
    ) -> Tensor:
        """Attends within the row, or to `source_BSD`, whose keys and values are computed once and then cached.

        `layer` is the number of the block in its stack: blocks that share weights have caches of their own.
        """
        q_BHTE = rotate(self.q_norm(self.heads(self.q_proj(x_BTD))), angles)
        if source_BSD is not None and cache is not None and cache.is_updated.get(layer):
            filled = cache.cross_attention_cache.layers[layer]
            k_BKSE, v_BKSE = filled.keys, filled.values
        else:
            read_BSD = x_BTD if source_BSD is None else source_BSD
            k_BKSE = rotate(self.k_norm(self.heads(self.k_proj(read_BSD))), angles)
            v_BKSE = self.heads(self.v_proj(read_BSD))
            if cache is not None and source_BSD is not None:
                k_BKSE, v_BKSE = cache.cross_attention_cache.update(k_BKSE, v_BKSE, layer)
                cache.is_updated[layer] = True
            elif cache is not None:
                own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
                k_BKSE, v_BKSE = own.update(k_BKSE, v_BKSE, layer)
        return self.o_proj(self.attend(q_BHTE, k_BKSE, v_BKSE, mask).transpose(1, 2).flatten(2))

    def attend(self, q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, mask: Tensor | None) -> Tensor:
        """Returns softmax(scale · q·k + mask) v, (B, H, T, E)."""
        groups = q_BHTE.size(1) // k_BKSE.size(1)
        mask = None if mask is None else mask.to(q_BHTE.dtype)
        if not self.softcap:
            return functional.scaled_dot_product_attention(
                q_BHTE, k_BKSE, v_BKSE, attn_mask=mask, scale=self.scale, enable_gqa=groups > 1
            )
        k_BHSE, v_BHSE = (x.repeat_interleave(groups, dim=1) for x in (k_BKSE, v_BKSE))
        scores_BHTS = soft_cap((q_BHTE * self.scale) @ k_BHSE.transpose(2, 3), self.softcap)
        scores_BHTS = scores_BHTS if mask is None else scores_BHTS + mask
        return scores_BHTS.softmax(dim=-1, dtype=torch.float32).to(v_BHSE.dtype) @ v_BHSE


class FeedForward(nn.Module):
    """down(act(up(x))), or down(act(gate(x)) · up(x)) where it is gated."""

    def __init__(self, config: PretextConfig) -> None:
        super().__init__()
        table, width, inner = config.feed_forward, config.hidden_size, config.intermediate_size
        self.up_proj = nn.Linear(width, inner, table["bias"])
        self.gate_proj = nn.Linear(width, inner, table["bias"]) if table["gated"] else None
        self.down_proj = nn.Linear(inner, width, table["bias"])
        self.activation = ACTIVATIONS[table["activation"]]

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTF = self.up_proj(x_BTD)
        x_BTF = self.activation(x_BTF) if self.gate_proj is None else self.activation(self.gate_proj(x_BTD)) * x_BTF
        return self.down_proj(x_BTF)


class SubLayerNorms(nn.Module):
    """The norms around a sub-layer f: last(x + after(f(before(x)))), each a norm or the identity."""

    def __init__(self, config: PretextConfig, before: bool = True) -> None:
        super().__init__()
        placement = config.norm["placement"]
        self.before = self.norm(config, before and placement in ("pre", "both"))
        self.after = self.norm(config, placement == "both")
        self.last = self.norm(config, placement == "post")

    @staticmethod
    def norm(config: PretextConfig, there: bool) -> nn.Module:
        return Norm(config, config.hidden_size) if there else nn.Identity()


class Block(GradientCheckpointingLayer):
    """Self-attention, attention to the encoder's output in a decoder over one, feed-forward."""

    def __init__(self, config: PretextConfig, cross: bool, layer: int) -> None:
        super().__init__()
        first_norm = config.norm["first_layer"] or layer > 0 or config.share_layers
        self.self_attn, self.self_attn_norm = Attention(config), SubLayerNorms(config, first_norm)
        if cross:
            self.cross_attn, self.cross_attn_norm = Attention(config), SubLayerNorms(config)
        self.cross = cross
        self.mlp, self.mlp_norm = FeedForward(config), SubLayerNorms(config)

    def forward(
        self,
        x_BTD: Tensor,
        mask: Tensor | None,
        angles: tuple[Tensor, Tensor] | None,
        source_BSD: Tensor | None = None,
        source_mask: Tensor | None = None,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> Tensor:
        norm = self.self_attn_norm
        x_BTD = norm.last(x_BTD + norm.after(self.self_attn(norm.before(x_BTD), mask, angles, cache, layer)))
        if self.cross:
            norm = self.cross_attn_norm
            read = self.cross_attn(norm.before(x_BTD), source_mask, None, cache, layer, source_BSD)
            x_BTD = norm.last(x_BTD + norm.after(read))
        norm = self.mlp_norm
        return norm.last(x_BTD + norm.after(self.mlp(norm.before(x_BTD))))


@dataclass
class SourceOutput(BaseModelOutput):
    """An encoder's output with the tokens that it has read, among which the decoder looks for sentinels."""

    input_ids: Tensor | None = None


class Stack(nn.Module):
    """The blocks of an encoder or a decoder, with the embedding before them and the norm after them.

    A decoder over an encoder uses the encoder's table of tokens, and its other embeddings unless it has its own.
    """

    def __init__(self, config: PretextConfig, kind: str) -> None:
        super().__init__()
        self.config, self.kind = config, kind
        over_encoder = config.is_encoder_decoder and kind == "decoder"
        self.visibility = "bidirectional" if kind == "encoder" else config.visibility
        if not over_encoder:
            self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        if not over_encoder or config.embedding["separate_decoder"]:
            self.embedding = Embeddings(config)
        blocks = 1 if config.share_layers else config.layers(kind)
        self.layers = nn.ModuleList(Block(config, over_encoder, layer) for layer in range(blocks))
        self.norm = Norm(config, config.hidden_size) if config.final_norm else nn.Identity()
        biased = config.positions["kind"] in ("relative", "alibi")
        self.position_bias = RelativePositionBias(config, kind == "encoder") if biased else None

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        output_attentions: bool | None = None,
        embedder: Stack | None = None,
        source_BSD: Tensor | None = None,
        source_ids: Tensor | None = None,
        source_attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        prefix_length: Tensor | int | None = None,
    ) -> BaseModelOutput:
        """Reads rows of tokens.

        Args:
            input_ids: (B, T).
            attention_mask: (B, S) 1 for text and 0 for padding, of the cached tokens and these.
            token_type_ids: (B, T).
            inputs_embeds: (B, T, embedding_size) rows of the table of tokens, in place of `input_ids`.
            output_hidden_states: Also return the input of each block and the output of the stack.
            return_dict, output_attentions: Not used; generation names them.
            embedder: The encoder, where this is a decoder over one.
            source_BSD: Its output.
            source_ids: The (B, S) tokens that it has read, of which the sentinels are looked for.
            source_attention_mask: Its (B, S) mask.
            past_key_values: Keys and values of the tokens before these; those of these are appended.
            prefix_length: Columns at each row's beginning, padding included, that see each other in both directions.
        """
        if inputs_embeds is None:
            inputs_embeds = (embedder or self).embed_tokens(input_ids)
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        keys_BS, masks = self.masks(inputs_embeds, past, attention_mask, prefix_length)
        positions_BT = keys_BS[:, past:]
        embedding = self.embedding if hasattr(self, "embedding") else embedder.embedding
        x_BTD = embedding(inputs_embeds, positions_BT, token_type_ids)
        if source_BSD is not None and self.config.sentinel_states:
            x_BTD = x_BTD + self.sentinel_states(input_ids, source_ids, source_BSD)
        angles = self.angles(positions_BT)
        source_mask = None
        if source_attention_mask is not None:
            source_mask = additive(source_attention_mask.bool()[:, None, :], x_BTD.dtype)
        states = [x_BTD]
        for layer in range(self.config.layers(self.kind)):
            block = self.layers[0 if self.config.share_layers else layer]
            window = self.window(layer)
            x_BTD = block(x_BTD, masks[window], angles[window > 0], source_BSD, source_mask, past_key_values, layer)
            states.append(x_BTD)
        states[-1] = x_BTD = self.norm(x_BTD)
        found = BaseModelOutput(last_hidden_state=x_BTD, hidden_states=tuple(states) if output_hidden_states else None)
        if self.kind == "encoder" and self.config.sentinel_states:
            return SourceOutput(**found, input_ids=input_ids)
        return found

    def sentinel_states(self, ids_BT: Tensor | None, source_ids_BS: Tensor | None, source_BSD: Tensor) -> Tensor:
        """Returns (B, T, D) the encoder's state at the same sentinel for each sentinel of these tokens, else zeros."""
        if ids_BT is None or source_ids_BS is None:
            raise ValueError("this model looks for sentinels: give input_ids and decoder_input_ids, not embeddings")
        first, last = self.config.sentinel_ids
        sentinel_BT = (ids_BT >= first) & (ids_BT <= last)
        match_BTS = (ids_BT[:, :, None] == source_ids_BS[:, None, :]) & sentinel_BT[:, :, None]
        return torch.bmm(match_BTS.to(source_BSD.dtype), source_BSD)

    def window(self, layer: int) -> int:
        """Returns the width of a layer's window, 0 for full attention."""
        windows = self.config.attention["sliding_windows"]
        return windows[layer % len(windows)]

    def angles(self, positions_BT: Tensor) -> tuple[tuple[Tensor, Tensor] | None, ...]:
        """Returns the rotary angles of layers with full attention, and of those with a window."""
        table = self.config.positions
        if table["kind"] != "rotary":
            return None, None
        full = rotary_angles(self.config, positions_BT, table["rope_theta"], table["rope_frequencies"])
        local = table["local_rope_theta"]
        return full, rotary_angles(self.config, positions_BT, local) if local else full

    def masks(
        self, x_BTE: Tensor, past: int, attention_mask: Tensor | None, prefix_length: Tensor | int | None
    ) -> tuple[Tensor, dict[int, Tensor | None]]:
        """Returns the positions (B, S) of all tokens, cached ones too, and what is added to the scores in each window.

        Padding is at position 0 and sees other padding only, so that no row of a mask is empty:

            attention_mask  0 0 1 1 1   →   positions  0 0 0 1 2
        """
        columns = past + x_BTE.size(1)
        text_BS = None
        if attention_mask is not None:
            text_BS = attention_mask.to(x_BTE.device).bool()
            positions_BS = (text_BS.long().cumsum(dim=1) - 1).clamp(min=0)
        else:
            positions_BS = torch.arange(columns, device=x_BTE.device)[None]
        queries_BT1, keys_B1S = positions_BS[:, past:, None], positions_BS[:, None, :]
        visible_BTS = None
        if self.visibility != "bidirectional":
            visible_BTS = keys_B1S <= queries_BT1
            if self.visibility == "prefix" and prefix_length is not None:
                length = torch.as_tensor(prefix_length, device=x_BTE.device).view(-1, 1, 1)
                visible_BTS = visible_BTS | (torch.arange(columns, device=x_BTE.device) < length)
        if text_BS is not None:
            same_BTS = text_BS[:, past:, None] == text_BS[:, None, :]
            visible_BTS = same_BTS if visible_BTS is None else visible_BTS & same_BTS
        bias_BHTS = 0 if self.position_bias is None else self.position_bias(positions_BS[:, past:], positions_BS)
        masks: dict[int, Tensor | None] = {}
        for window in set(self.config.attention["sliding_windows"]):
            seen_BTS = visible_BTS
            if window:  # a causal window of 4 holds distances 0 … 3, one in both directions -2 … 2
                distance_BTS = queries_BT1 - keys_B1S
                causal = self.visibility != "bidirectional"
                near_BTS = distance_BTS < window if causal else distance_BTS.abs() <= window // 2
                seen_BTS = near_BTS if seen_BTS is None else seen_BTS & near_BTS
            if seen_BTS is None and self.position_bias is None:
                masks[window] = None
            else:
                seen_BTS = torch.ones_like(queries_BT1 == keys_B1S) if seen_BTS is None else seen_BTS
                masks[window] = additive(seen_BTS, torch.float32) + bias_BHTS
        return positions_BS, masks


def additive(visible_BTS: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns (B, 1, T, S) 0 where a key is visible and -inf elsewhere; a query that sees nothing sees everything."""
    visible_BTS = visible_BTS | ~visible_BTS.any(dim=2, keepdim=True)
    return torch.zeros(visible_BTS.shape, dtype=dtype, device=visible_BTS.device).masked_fill(
        ~visible_BTS, float("-inf")
    )[:, None]


# Models ---------------------------------------------------------------------------------------------------------------


class PretextPreTrainedModel(PreTrainedModel):
    """What all classes share: loading, saving, and weights of layers that a checkpoint lacks."""

    config_class = PretextConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _keys_to_ignore_on_load_unexpected = [r"^head_layers\.", r"^lm_head\."]  # noqa: RUF012
    accepts_loss_kwargs = False  # a loss is the mean over the batch that is given
    _no_split_modules = ["Block"]  # noqa: RUF012
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Norm):
            if module.weight is not None:
                nn.init.constant_(module.weight, 1.0 - module.offset)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, RelativePositionBias):
            if module.weight is not None:
                nn.init.zeros_(module.weight)
        elif isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, HeadLayers) and module.bias is not None:
            nn.init.zeros_(module.bias)


class PretextModel(PretextPreTrainedModel):
    """The Transformer without a head: hidden states of each token."""

    def __init__(self, config: PretextConfig) -> None:
        super().__init__(config)
        if config.architecture != "decoder":
            self.encoder = Stack(config, "encoder")
        if config.architecture != "encoder":
            self.decoder = Stack(config, "decoder")
        self.post_init()

    @property
    def first(self) -> Stack:
        """The stack that holds the table of tokens."""
        return self.decoder if self.config.architecture == "decoder" else self.encoder

    def get_input_embeddings(self) -> nn.Module:
        """Returns the table of tokens."""
        return self.first.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the table of tokens."""
        self.first.embed_tokens = value

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        prefix_length: Tensor | int | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        cache_position: Tensor | None = None,
    ) -> Any:
        """Returns hidden states; arguments as in `Stack.forward`, those of the decoder over an encoder by that name.

        `cache_position`, which the first versions of transformers 5 give, is not needed: the cache knows its length.
        """
        config = self.config
        if output_attentions:
            raise ValueError("this model does not return attention weights")
        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        text = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        text |= {"inputs_embeds": inputs_embeds, "output_hidden_states": output_hidden_states}
        if config.architecture == "encoder":
            return self.encoder(**text)
        if use_cache is None:
            use_cache = config.use_cache and not self.training
        if use_cache and past_key_values is None and config.visibility != "bidirectional":
            past_key_values = DynamicCache()
            if config.is_encoder_decoder:
                past_key_values = EncoderDecoderCache(past_key_values, DynamicCache())
        if config.architecture == "decoder":
            found = self.decoder(**text, past_key_values=past_key_values, prefix_length=prefix_length)
            return BaseModelOutputWithPastAndCrossAttentions(**found, past_key_values=past_key_values)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(**text)
        source_ids = input_ids if input_ids is not None else getattr(encoder_outputs, "input_ids", None)
        found = self.decoder(
            decoder_input_ids,
            decoder_attention_mask,
            inputs_embeds=decoder_inputs_embeds,
            output_hidden_states=output_hidden_states,
            embedder=self.encoder,
            source_BSD=encoder_outputs[0],
            source_ids=source_ids,
            source_attention_mask=attention_mask,
            past_key_values=past_key_values,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=found.last_hidden_state,
            past_key_values=past_key_values,
            decoder_hidden_states=found.hidden_states,
            encoder_last_hidden_state=encoder_outputs[0],
            encoder_hidden_states=getattr(encoder_outputs, "hidden_states", None),
        )


class HeadLayers(nn.Module):
    """The layers of the language-model head before its matrix, and the bias of its logits."""

    def __init__(self, config: PretextConfig) -> None:
        super().__init__()
        table, size = config.head, config.embedding_size
        dense = table["dense"] or size != config.hidden_size
        self.dense = nn.Linear(config.hidden_size, size, table["dense"] and table["dense_bias"]) if dense else None
        self.activation = ACTIVATIONS[table["activation"]]
        self.norm = Norm(config, size) if table["norm"] else nn.Identity()
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if table["bias"] else None
        self.scale = table["scale"]

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.dense is None else self.dense(x)
        return self.norm(self.activation(x)) * self.scale


class WithLanguageModelHead(PretextPreTrainedModel):
    """Base of the language models: one logit for each token of the vocabulary."""

    def __init__(self, config: PretextConfig) -> None:
        super().__init__(config)
        self.model = PretextModel(config)
        self.head_layers = HeadLayers(config)
        # A tied head reads the table of tokens itself; there is no second tensor to keep equal to it.
        tied = config.tie_word_embeddings
        self.lm_head = None if tied else nn.Linear(config.embedding_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module | None:
        """Returns the head's matrix; None where the table of tokens is used."""
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replaces the head's matrix."""
        self.lm_head = value

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Returns (B, T, V) logits."""
        matrix = (self.get_input_embeddings() if self.lm_head is None else self.lm_head).weight
        x = self.head_layers(hidden_BTD)
        return soft_cap(functional.linear(x, matrix, self.head_layers.bias), self.config.logit_softcap)


def mean_loss(logits: Tensor, labels: Tensor | None) -> Tensor | None:
    """Returns the mean cross-entropy of the labels that are not IGNORED; None without labels."""
    if labels is None:
        return None
    return functional.cross_entropy(
        logits.float().flatten(0, -2), labels.to(logits.device).flatten(), ignore_index=IGNORED
    )


class PretextForMaskedLM(WithLanguageModelHead):
    """Predicts the tokens behind [MASK]."""

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **more: Any,
    ) -> MaskedLMOutput:
        """Returns (B, T, V) logits, and the loss where labels are given."""
        found = self.model(input_ids, attention_mask, token_type_ids, **more)
        logits = self.logits(found[0])
        return MaskedLMOutput(loss=mean_loss(logits, labels), logits=logits, hidden_states=found.hidden_states)


class PretextForCausalLM(WithLanguageModelHead, GenerationMixin):
    """Continues a text. With visibility "prefix", `generate` reads the prompt in both directions."""

    def __init__(self, config: PretextConfig) -> None:
        if config.architecture != "decoder" or config.visibility == "bidirectional":
            raise ValueError("this model reads texts in both directions only, so it cannot continue one")
        super().__init__(config)

    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """Generates texts; see transformers. A `prefix_length` may be given, else the prompt is the prefix."""
        prompt = kwargs.get("input_ids") if inputs is None else inputs
        if self.config.visibility == "prefix" and prompt is not None:
            kwargs.setdefault("prefix_length", prompt.shape[1])
        return super().generate(inputs, *args, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        prefix_length: Tensor | int | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        **more: Any,
    ) -> CausalLMOutputWithPast:
        """Returns the logits of the next token after each of the last `logits_to_keep` (0: all) positions.

        The label of a position is predicted at the one before it.
        """
        found = self.model(input_ids, attention_mask, token_type_ids, prefix_length=prefix_length, **more)
        logits = self.logits(found[0][:, -logits_to_keep:])
        loss = None if labels is None else mean_loss(logits[:, :-1], labels[:, 1:])
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=found.past_key_values, hidden_states=found.hidden_states
        )


class PretextForSeq2SeqLM(WithLanguageModelHead, GenerationMixin):
    """Writes the target of a source."""

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **more: Any,
    ) -> Seq2SeqLMOutput:
        """Returns the logits of each token of the target; from labels alone, the decoder's input is made of them."""
        if labels is not None and decoder_input_ids is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        decoder = {"decoder_input_ids": decoder_input_ids, "decoder_attention_mask": decoder_attention_mask}
        found = self.model(input_ids, attention_mask, token_type_ids, **decoder, **more)
        logits = self.logits(found[0])
        rest = {name: value for name, value in found.items() if name != "last_hidden_state"}
        return Seq2SeqLMOutput(loss=mean_loss(logits, labels), logits=logits, **rest)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Returns the labels moved right by one: x y z → start x y."""
        start = torch.full_like(labels[:, :1], self.config.decoder_start_token_id)
        shifted = torch.cat([start, labels[:, :-1]], dim=1)
        return shifted.masked_fill(shifted == IGNORED, self.config.pad_token_id)


# Fine-tuned models ----------------------------------------------------------------------------------------------------


class WithTaskHead(PretextPreTrainedModel):
    """Base of the fine-tuned models.

    Attributes:
        outputs: Outputs of the last layer; None for one for each label.
        dense: Whether a dense layer and an activation may come before it.
    """

    outputs: int | None = None
    dense = False

    def __init__(self, config: PretextConfig) -> None:
        super().__init__(config)
        self.model = PretextModel(config)
        width, activation = config.hidden_size, config.classifier_activation
        plain = self.dense and activation == "plain"
        self.pooler = nn.Linear(width, width) if self.dense and not plain else None
        self.activation = ACTIVATIONS["none" if plain else activation]
        self.classifier = nn.Linear(width, self.outputs or config.num_labels, bias=not plain)
        self.post_init()

    def pooled(self, hidden_BTD: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Returns (B, D) the state of each text's first token, or of its last in a model that reads left to right."""
        last, (rows, width) = not self.config.reads_both_ways, hidden_BTD.shape[:2]
        if attention_mask is None:
            return hidden_BTD[:, -1 if last else 0]
        text_BT = attention_mask.to(hidden_BTD.device).bool().long()
        # argmax finds the first 1; the last one is the first of the reversed row.
        place_B = width - 1 - text_BT.flip(1).argmax(dim=1) if last else text_BT.argmax(dim=1)
        return hidden_BTD[torch.arange(rows, device=hidden_BTD.device), place_B]

    def scores(self, x: Tensor) -> Tensor:
        """Returns the outputs of the head."""
        return self.classifier(x if self.pooler is None else self.activation(self.pooler(x)))


class PretextForSequenceClassification(WithTaskHead):
    """Classes of a text or a pair of texts; a number with one label."""

    dense = True

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **more: Any,
    ) -> SequenceClassifierOutput:
        """Returns (B, C) logits; the loss is that of `problem_type`, or of the labels' type where it is not given."""
        found = self.model(input_ids, attention_mask, token_type_ids, **more)
        logits = self.scores(self.pooled(found[0], attention_mask))
        loss = None
        if labels is not None:
            kind = self.config.problem_type
            if kind == "regression" or (kind is None and self.config.num_labels == 1):
                loss = functional.mse_loss(logits.float().flatten(), labels.float().flatten())
            elif kind == "multi_label_classification" or (kind is None and labels.is_floating_point()):
                loss = functional.binary_cross_entropy_with_logits(logits.float(), labels.float())
            else:
                loss = functional.cross_entropy(logits.float(), labels.flatten())
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=found.hidden_states)


class PretextForTokenClassification(WithTaskHead):
    """A class of each token."""

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **more: Any,
    ) -> TokenClassifierOutput:
        """Returns (B, T, C) logits."""
        found = self.model(input_ids, attention_mask, token_type_ids, **more)
        logits = self.scores(found[0])
        return TokenClassifierOutput(loss=mean_loss(logits, labels), logits=logits, hidden_states=found.hidden_states)


class PretextForQuestionAnswering(WithTaskHead):
    """Begin and end of an answer in a text."""

    outputs = 2

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **more: Any,
    ) -> QuestionAnsweringModelOutput:
        """Returns (B, T) scores that the answer begins, and that it ends, at each token."""
        found = self.model(input_ids, attention_mask, token_type_ids, **more)
        start, end = self.scores(found[0]).unbind(dim=-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = (mean_loss(start, start_positions) + mean_loss(end, end_positions)) / 2
        return QuestionAnsweringModelOutput(
            loss=loss, start_logits=start, end_logits=end, hidden_states=found.hidden_states
        )


class PretextForMultipleChoice(WithTaskHead):
    """One of several texts."""

    outputs = 1
    dense = True

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **more: Any,
    ) -> MultipleChoiceModelOutput:
        """Returns (B, choices) scores of (B, choices, T) tokens."""
        ids, mask, types = (None if x is None else x.flatten(0, 1) for x in (input_ids, attention_mask, token_type_ids))
        found = self.model(ids, mask, types, **more)
        logits = self.scores(self.pooled(found[0], mask)).view(input_ids.shape[:2])
        return MultipleChoiceModelOutput(
            loss=mean_loss(logits, labels), logits=logits, hidden_states=found.hidden_states
        )
