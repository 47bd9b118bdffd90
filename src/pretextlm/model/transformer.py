"""The one trunk: encoder, decoder and encoder-decoder are the same block under different visibility.

The default block is what measurements favour: RMSNorm without parameters before each sub-layer, normalised queries and
keys, rotary positions per document, ReLU² feed-forward, no biases, output projections that start at zero (so that every
block starts as the identity), and a head tied to the embedding. Rows are packed, and logits are computed only where
there is a label.

Axis letters: B rows, T positions, S positions of the encoder's row, N labelled positions, D hidden_size,
F intermediate_size, H heads, K key-value heads, E width of a head, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pretextlm.batch import IGNORE
from pretextlm.model.attention import Sight, attend
from pretextlm.model.cache import LayerCache
from pretextlm.model.config import ModelConfig
from pretextlm.model.inputs import Inputs
from pretextlm.model.loss import Softmax, bounded, linear_cross_entropy, softmax_eager, softmax_written_out
from pretextlm.model.rotary import Angles, rotate

INITIAL_STD = 0.02
DELTA = "embed_delta"
"""Head that a model adds to an embedding table it shares without training it (DeBERTa-v3)."""


class Linear(nn.Linear):
    """A matrix without bias, kept in fp32 and rounded to the activations' type as it is used."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight.to(x.dtype))


class Attention(nn.Module):
    """The four projections that self- and cross-attention share; keys and values may have fewer heads than queries."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim, self.eps = config.head_dim, config.norm_eps
        key_value_size = config.num_key_value_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, config.hidden_size)
        self.k_proj = Linear(config.hidden_size, key_value_size)
        self.v_proj = Linear(config.hidden_size, key_value_size)
        self.o_proj = Linear(config.hidden_size, config.hidden_size)

    def heads(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) → (B, T, H, E)."""
        return x_BTD.view(*x_BTD.shape[:2], -1, self.head_dim)

    def output(self, q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor, sight: Sight) -> Tensor:
        out: Tensor = self.o_proj(attend(q_BTHE, k_BSKE, v_BSKE, sight).flatten(2))
        return out


class SelfAttention(Attention):
    """Queries and keys are normalised, then turned by their positions."""

    def forward(self, x_BTD: Tensor, sight: Sight, at: Angles, cache: LayerCache | None = None) -> Tensor:
        q_BTHE = rotate(normalise(self.heads(self.q_proj(x_BTD)), self.eps), at)
        k_BTKE = rotate(normalise(self.heads(self.k_proj(x_BTD)), self.eps), at)
        v_BTKE = self.heads(self.v_proj(x_BTD))
        if cache is not None:
            k_BTKE, v_BTKE = cache.extend(k_BTKE, v_BTKE)
        return self.output(q_BTHE, k_BTKE, v_BTKE, sight)


class CrossAttention(Attention):
    """The decoder's look at the encoder's output: no positions, everything inside the segment is visible."""

    def forward(self, x_BTD: Tensor, memory_BSD: Tensor, sight: Sight, cache: LayerCache | None = None) -> Tensor:
        q_BTHE = normalise(self.heads(self.q_proj(x_BTD)), self.eps)
        if cache is not None and cache.length:
            k_BSKE, v_BSKE = cache.read()
        else:
            k_BSKE = normalise(self.heads(self.k_proj(memory_BSD)), self.eps)
            v_BSKE = self.heads(self.v_proj(memory_BSD))
            if cache is not None:
                cache.extend(k_BSKE, v_BSKE)
        return self.output(q_BTHE, k_BSKE, v_BSKE, sight)


class FeedForward(nn.Module):
    """ReLU(x W)² W' (So et al. 2021, https://arxiv.org/abs/2109.08668)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up_proj = Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out: Tensor = self.down_proj(functional.relu(self.up_proj(x_BTD)).square())
        return out


class Block(nn.Module):
    """x + attention(norm x), then x + cross-attention(norm x) in a decoder over an encoder, then x + feed-forward."""

    def __init__(self, config: ModelConfig, cross: bool) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.self_attn = SelfAttention(config)
        self.cross_attn = CrossAttention(config) if cross else None
        self.mlp = FeedForward(config)

    def forward(
        self,
        x_BTD: Tensor,
        sight: Sight,
        at: Angles,
        memory_BSD: Tensor | None = None,
        cross_sight: Sight | None = None,
        cache: tuple[LayerCache, LayerCache] | None = None,
    ) -> Tensor:
        x_BTD = x_BTD + self.self_attn(normalise(x_BTD, self.eps), sight, at, cache and cache[0])
        if self.cross_attn is not None:
            assert memory_BSD is not None, "a decoder over an encoder needs the encoder's output"
            x_BTD = x_BTD + self.cross_attn(normalise(x_BTD, self.eps), memory_BSD, cross_sight, cache and cache[1])
        out: Tensor = x_BTD + self.mlp(normalise(x_BTD, self.eps))
        return out


def normalise(x: Tensor, eps: float) -> Tensor:
    """RMSNorm without parameters (Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467)."""
    return functional.rms_norm(x, (x.size(-1),), eps=eps)


@dataclass(frozen=True)
class Outputs:
    """What the trunk found.

    Attributes:
        hidden_BTD: last hidden states, normalised (the decoder's, where there is one).
        hidden_ND, labels_N: those of the labelled positions, row by row, and their targets.
        model: whose they are.
    """

    hidden_BTD: Tensor
    hidden_ND: Tensor
    labels_N: Tensor
    model: Transformer

    @property
    def heads(self) -> Mapping[str, nn.Module]:
        """The modules that the objective trains along with the trunk."""
        return dict(self.model.heads.items())

    @property
    def logits_NV(self) -> Tensor:
        """Logits of the labelled positions, for those who need more than the loss."""
        return self.model.logits(self.hidden_ND)

    def cross_entropy(self) -> Tensor:
        """Summed over the labelled positions, in nats; the logits are never held all at once."""
        return self._cross_entropy(self.hidden_ND, self.labels_N)

    def at(self, places: NDArray[np.integer]) -> Tensor:
        """(M, D) hidden states at flat places of the batch (row · width + column)."""
        index = torch.from_numpy(np.asarray(places, dtype=np.int64))
        return self.hidden_BTD.flatten(0, 1).index_select(0, index.to(self.hidden_BTD.device, non_blocking=True))

    def cross_entropy_at(self, labels: NDArray[np.integer]) -> Tensor:
        """The same as `cross_entropy` for another array of labels (B, T), IGNORE where there is none."""
        flat = labels.reshape(-1)
        places = np.flatnonzero(flat != IGNORE)
        return self.cross_entropy_of(self.at(places), flat[places])

    def cross_entropy_of(self, hidden_MD: Tensor, labels: NDArray[np.integer]) -> Tensor:
        """Summed cross-entropy of the language-model head on given states (M, D) against labels (M,)."""
        labels_M = torch.from_numpy(labels.astype(np.int64)).to(hidden_MD.device, non_blocking=True)
        return self._cross_entropy(hidden_MD, labels_M)

    def _cross_entropy(self, hidden_MD: Tensor, labels_M: Tensor) -> Tensor:
        model = self.model
        return linear_cross_entropy(
            model.before_head(hidden_MD), model.head_weight, labels_M, model.config.logit_softcap, model.softmax
        )


def scores(hidden_ND: Tensor, weight_VD: Tensor, softcap: float) -> Tensor:
    """(N, V) logits, bounded to ±softcap when there is one."""
    logits_NV = functional.linear(hidden_ND, weight_VD.to(hidden_ND.dtype))
    return bounded(logits_NV, softcap)


class Transformer(nn.Module):
    """Embedding, one or two stacks of blocks, head.

    `encoder` is None in a decoder-only model and `decoder` in an encoder-only one.

    Args:
        config: its shape.
        heads: modules that an objective trains along with it (`Objective.heads`); one with a method `share` is given
            the embedding table.
    """

    def __init__(self, config: ModelConfig, heads: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__()
        assert config.vocab_size > 0, "vocab_size comes from the store"
        self.config = config
        both = config.architecture == "encoder_decoder"
        table = config.embedding_size
        self.embed_tokens = nn.Embedding(config.vocab_size, table)
        self.in_proj = None if table == config.hidden_size else Linear(table, config.hidden_size)
        self.out_proj = None if table == config.hidden_size else Linear(config.hidden_size, table)
        self.embed_types = nn.Embedding(config.type_vocab_size, config.hidden_size) if config.type_vocab_size else None
        self.encoder = None if config.architecture == "decoder" else self._stack(cross=False)
        self.decoder = None if config.architecture == "encoder" else self._stack(cross=both)
        self.lm_head = None if config.tie_word_embeddings else Linear(table, config.vocab_size)
        self.heads = nn.ModuleDict(dict(heads or {}))
        for head in self.heads.values():
            if hasattr(head, "share"):
                head.share(self.embed_tokens)  # type: ignore[operator]
        self.softmax: Softmax = softmax_eager
        self.reset_parameters()

    def _stack(self, cross: bool) -> nn.ModuleList:
        return nn.ModuleList(Block(self.config, cross) for _ in range(self.config.num_hidden_layers))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Embeddings N(0, 0.02²); matrices uniform with variance 1/fan-in; output projections zero.

        Every module among the heads has a method of this name for its own.
        """
        for name, parameter in self.named_parameters():
            if name.startswith("heads."):
                continue
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
            elif name.endswith(("embed_tokens.weight", "embed_types.weight", "lm_head.weight")):
                parameter.normal_(0.0, INITIAL_STD, generator=generator)
            else:
                bound = (3.0 / parameter.size(1)) ** 0.5
                parameter.uniform_(-bound, bound, generator=generator)
        for head in self.heads.values():
            head.reset_parameters(generator)  # type: ignore[operator]

    def compile_parts(self, shapes: int = 1) -> None:
        """Compile each block and the loss: small graphs, of which all blocks share one.

        Args:
            shapes: how many shapes of batches there are; with several, a graph serves all of them.
        """
        for module in self.modules():
            if isinstance(module, Block):
                module.compile(dynamic=True if shapes > 1 else None)
            elif isinstance(module, Transformer):
                module.softmax = torch.compile(softmax_written_out, dynamic=True)

    def forward(self, inputs: Inputs) -> Outputs:
        """Hidden states of the whole batch and logits where it has labels."""
        memory = self.encode(inputs) if self.encoder is not None else None
        hidden = memory if self.decoder is None else self.decode(inputs, memory)
        assert hidden is not None, "a model has at least one stack"
        flat_ND = hidden.flatten(0, 1)
        if inputs.label_index is not None:
            flat_ND = flat_ND.index_select(0, inputs.label_index)
        return Outputs(hidden, flat_ND, inputs.labels_N, self)

    def encode(self, inputs: Inputs) -> Tensor:
        """The encoder's output (B, S, D), normalised."""
        assert self.encoder is not None, "this model has no encoder"
        x_BTD = self.embed(inputs.input_ids, inputs.dtype, inputs.token_type_ids)
        for block in self.encoder:
            x_BTD = block(x_BTD, inputs.sight, inputs.angles)
        return normalise(x_BTD, self.config.norm_eps)

    def decode(
        self, inputs: Inputs, memory_BSD: Tensor | None, cache: list[tuple[LayerCache, LayerCache]] | None = None
    ) -> Tensor:
        """The decoder's output (B, T, D), normalised; over `memory_BSD` in an encoder-decoder."""
        assert self.decoder is not None, "this model has no decoder"
        if memory_BSD is None:
            ids_BT, types_BT, sight, at = inputs.input_ids, inputs.token_type_ids, inputs.sight, inputs.angles
        else:
            assert inputs.decoder_input_ids is not None, "this batch has no decoder row"
            assert inputs.decoder_sight is not None, "no visibility for the decoder row"
            assert inputs.decoder_angles is not None, "no positions for the decoder row"
            ids_BT, types_BT, sight = inputs.decoder_input_ids, None, inputs.decoder_sight
            at = inputs.decoder_angles
        x_BTD = self.embed(ids_BT, inputs.dtype, types_BT)
        for index, block in enumerate(self.decoder):
            x_BTD = block(x_BTD, sight, at, memory_BSD, inputs.cross_sight, cache[index] if cache else None)
        return normalise(x_BTD, self.config.norm_eps)

    def embed(self, ids_BT: Tensor, dtype: torch.dtype, types_BT: Tensor | None = None) -> Tensor:
        """(B, T, D) what the first block reads; without types, every token is of type 0."""
        x_BTD = self.embed_tokens(ids_BT)
        if DELTA in self.heads:  # the table is the generator's: read without moving it
            x_BTD = x_BTD.detach() + self.heads[DELTA](ids_BT)
        if self.in_proj is not None:
            x_BTD = self.in_proj(x_BTD)
        if self.embed_types is not None:
            x_BTD = x_BTD + (self.embed_types.weight[0] if types_BT is None else self.embed_types(types_BT))
        return normalise(x_BTD.to(dtype), self.config.norm_eps)

    @property
    def head_weight(self) -> Tensor:
        """(V, D) matrix of the head, or as wide as the embedding."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """(N, V) scores of the next (or hidden) token."""
        return scores(self.before_head(hidden_ND), self.head_weight, self.config.logit_softcap)

    def before_head(self, hidden_ND: Tensor) -> Tensor:
        """Hidden states as wide as the head's matrix."""
        return hidden_ND if self.out_proj is None else self.out_proj(hidden_ND)
