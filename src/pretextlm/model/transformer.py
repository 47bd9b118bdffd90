"""The one trunk: encoder, decoder and encoder-decoder are the same block under different visibility.

The default parts are what measurements favour: RMSNorm without parameters before each sub-layer, normalised queries and
keys, rotary positions per document, ReLU² feed-forward, no biases, output projections that start at zero (so that every
block starts as the identity), and a head tied to the embedding. Other families differ in their parts (config.py). Rows
are packed, and logits are computed only where there is a label.

Axis letters: B rows, T positions, S positions of the encoder's row, N labelled positions, D hidden_size,
H heads, V vocab_size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pretextlm.batch import IGNORE
from pretextlm.model.attention import Sight
from pretextlm.model.blocks import Block, Linear, Table, reset_blocks
from pretextlm.model.config import ModelConfig
from pretextlm.model.disentangled_attention import RelativePlaces
from pretextlm.model.dropout import Noise, dropped
from pretextlm.model.ends import INITIAL_STD, Embedding, HeadLayers
from pretextlm.model.kv_cache import LayerCache
from pretextlm.model.loss import Softmax, bounded, linear_cross_entropy, softmax_eager, softmax_written_out
from pretextlm.model.model_inputs import Inputs, Row
from pretextlm.model.norm import Norm, normalise
from pretextlm.model.positions import Alibi, RelativeBias
from pretextlm.model.rotary import Angles

__all__ = ["DELTA", "INITIAL_STD", "Linear", "Outputs", "Transformer", "normalise", "on_meta", "scores"]

Heads = Callable[[ModelConfig], Mapping[str, nn.Module]]
"""Modules that are trained along with a trunk of this shape, by name: `Objective.heads`."""
DELTA = "embed_delta"
"""Head that a model adds to an embedding table it shares without training it (DeBERTa-v3)."""


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
            model.before_head(hidden_MD),
            model.head_weight,
            labels_M,
            model.config.logit_softcap,
            model.softmax,
            model.head_layers.bias,
        )


def scores(hidden_ND: Tensor, weight_VD: Tensor, softcap: float, bias_V: Tensor | None = None) -> Tensor:
    """(N, V) logits, bounded to ±softcap when there is one."""
    bias = None if bias_V is None else bias_V.to(hidden_ND.dtype)
    return bounded(functional.linear(hidden_ND, weight_VD.to(hidden_ND.dtype), bias), softcap)


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
        stacks = ("encoder", "decoder") if config.architecture == "encoder_decoder" else (config.architecture,)
        self.embed_tokens = Table(config.vocab_size, config.embedding_size)
        self.embedding = Embedding(config)
        self.decoder_embedding = Embedding(config) if config.embedding.apart and len(stacks) == 2 else None
        self.encoder = self._stack("encoder", cross=False) if "encoder" in stacks else None
        self.decoder = self._stack("decoder", cross=len(stacks) == 2) if "decoder" in stacks else None
        self.encoder_norm = self._final_norm() if self.encoder is not None else None
        self.decoder_norm = self._final_norm() if self.decoder is not None else None
        self.encoder_bias = self._position_bias(both_sides=True) if self.encoder is not None else None
        self.decoder_bias = self._position_bias(both_sides=False) if self.decoder is not None else None
        self.head_layers = HeadLayers(config)
        self.lm_head = None if config.tie_word_embeddings else Linear(config.embedding_size, config.vocab_size)
        self.heads = nn.ModuleDict(dict(heads or {}))
        for head in self.heads.values():
            if hasattr(head, "share"):
                head.share(self.embed_tokens)  # type: ignore[operator]
        self.dropout = 0.0
        self.softmax: Softmax = softmax_eager
        if not next(self.parameters()).is_meta:
            self.reset_parameters()

    def _stack(self, stack: Literal["encoder", "decoder"], cross: bool) -> nn.ModuleList:
        layers = self.config.layers(stack)
        if self.config.shared_layers:
            return nn.ModuleList([Block(self.config, cross)])
        return nn.ModuleList(Block(self.config, cross, first=index == 0) for index in range(layers))

    def _final_norm(self) -> nn.Module:
        return Norm(self.config.norm, self.config.hidden_size) if self.config.final_norm else nn.Identity()

    def _position_bias(self, both_sides: bool) -> nn.Module | None:
        kind, heads = self.config.positions.kind, self.config.num_attention_heads
        if kind == "relative":
            return RelativeBias(self.config.positions, heads, both_sides)
        if kind == "disentangled":
            return RelativePlaces(self.config)
        return Alibi(heads) if kind == "alibi" else None

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Embeddings N(0, 0.02²); matrices uniform with variance 1/fan-in; output projections zero.

        Every module among the heads has a method of this name for its own.
        """
        if hasattr(self, "embed_tokens"):
            nn.init.normal_(self.embed_tokens.weight, 0.0, INITIAL_STD, generator=generator)
        self.embedding.reset_parameters(generator)
        if self.decoder_embedding is not None:
            self.decoder_embedding.reset_parameters(generator)
        for blocks in (self.encoder, self.decoder):
            if blocks is not None:
                reset_blocks(blocks, generator)
        for module in (self.encoder_norm, self.decoder_norm):
            if isinstance(module, Norm):
                module.reset_parameters()
        for bias in (self.encoder_bias, self.decoder_bias):
            if isinstance(bias, RelativeBias):
                nn.init.zeros_(bias.weight)
            elif isinstance(bias, RelativePlaces):
                nn.init.normal_(bias.weight, 0.0, INITIAL_STD, generator=generator)
                bias.norm.reset_parameters()
        self.head_layers.reset_parameters(generator)
        if self.lm_head is not None:
            nn.init.normal_(self.lm_head.weight, 0.0, INITIAL_STD, generator=generator)
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

    def recompute_blocks(self, blocks: int) -> None:
        """Let training keep only the inputs of the first so many blocks, and of all blocks of models trained along.

        The backward pass comes to the first blocks last, when what the others kept is free again; so the fewer are
        recomputed, the less is saved, but none of it is in vain. Blocks with shared weights are one.
        """
        own = [part for stack in (self.encoder, self.decoder) if stack is not None for part in stack]
        chosen = set(own[:blocks])
        for part in self.modules():
            if isinstance(part, Block):
                part.recomputed = part in chosen or (blocks > 0 and part not in own)

    def drop(self, rate: float) -> None:
        """Let training drop this share of the embedding's and of each sub-layer's output, also of models trained along.

        Numbers are dropped in training mode, where a batch has keys for its tokens.
        """
        for module in self.modules():
            if isinstance(module, Transformer):
                module.dropout = rate

    def run_uncompiled(self) -> None:
        """Undo `compile_parts`."""
        for module in self.modules():
            if isinstance(module, Block):
                module._compiled_call_impl = None
            elif isinstance(module, Transformer):
                module.softmax = softmax_eager

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
        assert self.encoder_norm is not None, "a stack ends in its norm"
        row = inputs.row
        noise = self._noise(row)
        x_BTD = dropped(self.embed(row, inputs.dtype), noise)
        sights = self._sights(row, self.encoder_bias, inputs.dtype)
        for index in range(self.config.layers("encoder")):
            block, own = self._block(self.encoder, index), noise and noise.of_layer(index + 1)
            x_BTD = block(x_BTD, self._sight(sights, index), self._angles(row, index), noise=own)
        out: Tensor = self.encoder_norm(x_BTD)
        return out

    def decode(
        self, inputs: Inputs, memory_BSD: Tensor | None, cache: list[tuple[LayerCache, LayerCache]] | None = None
    ) -> Tensor:
        """The decoder's output (B, T, D), normalised; over `memory_BSD` in an encoder-decoder."""
        assert self.decoder is not None, "this model has no decoder"
        assert self.decoder_norm is not None, "a stack ends in its norm"
        row = inputs.row if memory_BSD is None else inputs.decoder_row
        assert row is not None, "this batch has no decoder row"
        noise = self._noise(row)
        x_BTD = dropped(self.embed(row, inputs.dtype, self.decoder_embedding), noise)
        sights = self._sights(row, self.decoder_bias, inputs.dtype)
        for index in range(self.config.layers("decoder")):
            block = self._block(self.decoder, index)
            at, own = self._angles(row, index), noise and noise.of_layer(index + 1)
            seen = self._sight(sights, index), at, memory_BSD, inputs.cross_sight
            x_BTD = block(x_BTD, *seen, cache[index] if cache else None, own)
        out: Tensor = self.decoder_norm(x_BTD)
        return out

    def _noise(self, row: Row) -> Noise | None:
        if row.noise is None or not self.dropout or not self.training:
            return None
        return Noise.of(row.noise, self.config.hidden_size, self.dropout)

    def _block(self, blocks: nn.ModuleList, index: int) -> nn.Module:
        return blocks[0] if self.config.shared_layers else blocks[index]

    def _sight(self, sights: Mapping[int, Sight], index: int) -> Sight:
        sight = sights[self._window(index)]
        return sight if sight.sparse is None else dataclasses.replace(sight, sparse=sight.sparse.of_layer(index))

    def _angles(self, row: Row, index: int) -> Angles | None:
        """Those of layers with a window, where they are others than the rest's."""
        at = row.angles
        if at is None or at.local is None:
            return at
        return at.local if self._window(index) else at._replace(local=None)

    def _window(self, index: int) -> int:
        windows = self.config.attention.windows
        return windows[index % len(windows)]

    def _sights(self, row: Row, bias: nn.Module | None, dtype: torch.dtype) -> Mapping[int, Sight]:
        """The row's visibility with the bias of positions, where the model has one."""
        if bias is None:
            return row.sights
        keys = row.positions if row.key_positions is None else row.key_positions
        if isinstance(bias, RelativePlaces):
            places = bias(row.positions, keys, dtype)
            return {window: dataclasses.replace(sight, places=places) for window, sight in row.sights.items()}
        bias_BHTS = bias(row.positions, keys).to(dtype)
        found = {}
        for window, sight in row.sights.items():
            assert sight.bias is not None, "a visibility to which positions are added is written out"
            found[window] = dataclasses.replace(sight, bias=sight.bias + bias_BHTS)
        return found

    def embed(self, row: Row, dtype: torch.dtype, parts: Embedding | None = None) -> Tensor:
        """(B, T, D) what the first block reads; `parts` are a decoder's own, where it has them."""
        x_BTE = self.embed_tokens(row.ids)
        if DELTA in self.heads:  # the table is the generator's: read without moving it
            x_BTE = x_BTE.detach() + self.heads[DELTA](row.ids)
        out: Tensor = (parts or self.embedding)(x_BTE, row, dtype)
        return out

    @property
    def head_weight(self) -> Tensor:
        """(V, E) matrix of the head, as wide as the embedding."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """(N, V) scores of the next (or hidden) token."""
        return scores(self.before_head(hidden_ND), self.head_weight, self.config.logit_softcap, self.head_layers.bias)

    def before_head(self, hidden_ND: Tensor) -> Tensor:
        """Hidden states as the head's matrix reads them."""
        out: Tensor = self.head_layers(hidden_ND)
        return out


def on_meta(config: ModelConfig, heads: Heads | None = None) -> Transformer:
    """A model without memory for its weights, whatever its size.

    Args:
        heads: of what trains it.
    """
    with torch.device("meta"):
        return Transformer(config, heads(config) if heads else None)
