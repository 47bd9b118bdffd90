"""The transformer of every architecture: encoder, decoder and encoder-decoder are the same block under other masks.

The default parts are those that our measurements favour: RMSNorm without parameters before each sub-layer, normalized
queries and keys, rotary positions counted per document, ReLU² in the feed-forward layers, no biases, output projections
that start at zero (so that every block starts as the identity), and a head tied to the embedding. Other families differ
in their parts (config.py). Rows are packed, and logits are computed only where there is a label.

Axis letters: B rows, T positions, S positions of the encoder's row, N labelled positions, M chosen positions,
D hidden_size, E embedding_size, H heads, V vocab_size.
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

from pretextlm.batch import IGNORE
from pretextlm.model.attention import AttentionMask
from pretextlm.model.blocks import Block, reset_blocks
from pretextlm.model.config import ModelConfig
from pretextlm.model.disentangled_attention import RelativeEmbedding
from pretextlm.model.dropout import DropoutKeys, dropout
from pretextlm.model.embedding import Embeddings
from pretextlm.model.kv_cache import KVCache
from pretextlm.model.layers import INITIAL_STD, EmbeddingTable, Linear
from pretextlm.model.lm_head import LMHeadTransform, lm_logits
from pretextlm.model.loss import Softmax, compiled_softmax, linear_cross_entropy, softmax_eager
from pretextlm.model.model_inputs import ModelInputs, StackInputs
from pretextlm.model.norm import Norm
from pretextlm.model.positions import AlibiBias, RelativePositionBias
from pretextlm.model.rotary import RotaryAngles
from pretextlm.model.sentinel_states import add_encoder_states

Heads = Callable[[ModelConfig], Mapping[str, nn.Module]]
"""Builds the modules that an objective trains along with a model of this shape, by name: `Objective.heads`."""
EMBED_DELTA = "embed_delta"
"""Name of the head that is added to an embedding table which is shared but not trained (DeBERTa-v3)."""


@dataclass(frozen=True)
class Outputs:
    """The output of a forward pass.

    Attributes:
        hidden_BTD: Last hidden states, after the final norm (the decoder's, where there is one).
        hidden_ND: Those of the labelled positions, row by row.
        labels_N: Targets of these positions, int64.
        model: The model that computed them.
    """

    hidden_BTD: Tensor
    hidden_ND: Tensor
    labels_N: Tensor
    model: Transformer

    @property
    def heads(self) -> Mapping[str, nn.Module]:
        """The modules that the objective trains along with the model."""
        return dict(self.model.heads.items())

    @property
    def logits_NV(self) -> Tensor:
        """(N, V) logits of the labelled positions; the losses below need less memory than these."""
        return self.model.logits(self.hidden_ND)

    def cross_entropy(self) -> Tensor:
        """Compute the cross-entropy of the language-model head, with logits of one chunk of targets at a time.

        Returns:
            Scalar, summed over the labelled positions, in nats.
        """
        return self._cross_entropy(self.hidden_ND, self.labels_N)

    def hidden_at(self, indices: NDArray[np.integer]) -> Tensor:
        """Select hidden states by position.

        Args:
            indices: (M,) flat positions in the batch: row · width + column.

        Returns:
            (M, D) hidden states.
        """
        index = torch.from_numpy(np.asarray(indices, dtype=np.int64))
        return self.hidden_BTD.flatten(0, 1).index_select(0, index.to(self.hidden_BTD.device, non_blocking=True))

    def cross_entropy_at(self, labels: NDArray[np.integer]) -> Tensor:
        """Compute `cross_entropy` for other labels.

        Args:
            labels: (B, T) targets, IGNORE where there is none.

        Returns:
            Scalar, summed over the labelled positions, in nats.
        """
        flat = labels.reshape(-1)
        indices = np.flatnonzero(flat != IGNORE)
        return self.cross_entropy_of(self.hidden_at(indices), flat[indices])

    def cross_entropy_of(self, hidden_MD: Tensor, labels: NDArray[np.integer]) -> Tensor:
        """Compute the cross-entropy of the language-model head on given hidden states.

        Args:
            hidden_MD: Hidden states.
            labels: (M,) targets.

        Returns:
            Scalar, summed over M, in nats.
        """
        labels_M = torch.from_numpy(labels.astype(np.int64)).to(hidden_MD.device, non_blocking=True)
        return self._cross_entropy(hidden_MD, labels_M)

    def _cross_entropy(self, hidden_MD: Tensor, labels_M: Tensor) -> Tensor:
        model = self.model
        return linear_cross_entropy(
            model.lm_head_input(hidden_MD),
            model.lm_head_weight,
            labels_M,
            model.config.logit_softcap,
            model.softmax,
            model.head_layers.bias,
        )


class Transformer(nn.Module):
    """Embedding, one or two stacks of blocks, language-model head.

    Args:
        config: Shape of the model.
        heads: Modules that an objective trains along with it (`Objective.heads`); one with a method `tie_embedding` is
            given the embedding table.

    Attributes:
        encoder: Blocks of the encoder; None in a decoder-only model.
        decoder: Blocks of the decoder; None in an encoder-only model.
        head_layers: The head before its matrix.
        lm_head: The head's matrix; None where it is tied to the embedding.
        trained_vocab_size: `logits` gives ids from this one on no probability: rows that an import added and nobody
            trained. None for none.
    """

    trained_vocab_size: int | None = None

    def __init__(self, config: ModelConfig, heads: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__()
        assert config.vocab_size > 0, "vocab_size comes from the store"
        self.config = config
        stacks = ("encoder", "decoder") if config.architecture == "encoder_decoder" else (config.architecture,)
        self.embed_tokens = EmbeddingTable(config.vocab_size, config.embedding_size)
        self.embedding = Embeddings(config)
        separate = config.embedding.separate_decoder and len(stacks) == 2
        self.decoder_embedding = Embeddings(config) if separate else None
        self.encoder = self._build_stack("encoder", cross=False) if "encoder" in stacks else None
        self.decoder = self._build_stack("decoder", cross=len(stacks) == 2) if "decoder" in stacks else None
        self.encoder_norm = self._build_final_norm() if self.encoder is not None else None
        self.decoder_norm = self._build_final_norm() if self.decoder is not None else None
        self.encoder_bias = self._build_position_bias(bidirectional=True) if self.encoder is not None else None
        self.decoder_bias = self._build_position_bias(bidirectional=False) if self.decoder is not None else None
        self.head_layers = LMHeadTransform(config)
        self.lm_head = None if config.tie_word_embeddings else Linear(config.embedding_size, config.vocab_size)
        self.heads = nn.ModuleDict(dict(heads or {}))
        for head in self.heads.values():
            if hasattr(head, "tie_embedding"):
                head.tie_embedding(self.embed_tokens)  # type: ignore[operator]
        self.dropout = 0.0
        self.softmax: Softmax = softmax_eager
        if not next(self.parameters()).is_meta:
            self.reset_parameters()

    def _build_stack(self, stack: Literal["encoder", "decoder"], cross: bool) -> nn.ModuleList:
        layers = self.config.layers(stack)
        if self.config.share_layers:
            return nn.ModuleList([Block(self.config, cross)])
        return nn.ModuleList(Block(self.config, cross, first=index == 0) for index in range(layers))

    def _build_final_norm(self) -> nn.Module:
        return Norm(self.config.norm, self.config.hidden_size) if self.config.final_norm else nn.Identity()

    def _build_position_bias(self, bidirectional: bool) -> nn.Module | None:
        kind, heads = self.config.positions.kind, self.config.num_attention_heads
        if kind == "relative":
            return RelativePositionBias(self.config.positions, heads, bidirectional)
        if kind == "disentangled":
            return RelativeEmbedding(self.config)
        return AlibiBias(heads) if kind == "alibi" else None

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Initialize all weights.

        Embeddings are N(0, 0.02²), matrices uniform with variance 1/fan-in, output projections zero. Modules among the
        heads have a method of the same name for their own.
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
            if isinstance(bias, RelativePositionBias):
                nn.init.zeros_(bias.weight)
            elif isinstance(bias, RelativeEmbedding):
                nn.init.normal_(bias.weight, 0.0, INITIAL_STD, generator=generator)
                bias.norm.reset_parameters()
        self.head_layers.reset_parameters(generator)
        if self.lm_head is not None:
            nn.init.normal_(self.lm_head.weight, 0.0, INITIAL_STD, generator=generator)
        for head in self.heads.values():
            head.reset_parameters(generator)  # type: ignore[operator]

    def compile_blocks(self, shapes: int = 1) -> None:
        """Compile each block and the softmax of the loss: small graphs, of which all blocks share one.

        Args:
            shapes: Number of different shapes of the batches; with several, one dynamic graph serves all of them.
        """
        for module in self.modules():
            if isinstance(module, Block):
                module.compile(dynamic=True if shapes > 1 else None)
            elif isinstance(module, Transformer):
                module.softmax = compiled_softmax()

    def undo_compile(self) -> None:
        """Undo `compile_blocks`."""
        for module in self.modules():
            if isinstance(module, Block):
                module._compiled_call_impl = None
            elif isinstance(module, Transformer):
                module.softmax = softmax_eager

    def eager_share(self) -> float:
        """Share of the passes through compiled blocks, with gradients, that ran without compiled code."""
        blocks = [module for module in self.modules() if isinstance(module, Block)]
        return sum(block.eager_passes for block in blocks) / max(1, sum(block.passes for block in blocks))

    def set_gradient_checkpointing(self, blocks: int) -> None:
        """Keep only the inputs of the first blocks for the backward pass, which computes these blocks again.

        The backward pass reaches the first blocks last, when the activations of the others are free again, so
        checkpointing the first ones saves the most memory at the peak.

        Args:
            blocks: Number of blocks to checkpoint; 0 for none. With any, so are all blocks of models among the heads,
                such as a generator. Blocks that share their weights count as one.
        """
        own = [block for stack in (self.encoder, self.decoder) if stack is not None for block in stack]
        chosen = set(own[:blocks])
        for module in self.modules():
            if isinstance(module, Block):
                module.gradient_checkpointing = module in chosen or (blocks > 0 and module not in own)

    def set_dropout(self, rate: float) -> None:
        """Set the dropout rate of the embedding's and of each sub-layer's output, also in models among the heads.

        Dropout is applied in training mode, to batches that carry dropout keys.
        """
        for module in self.modules():
            if isinstance(module, Transformer):
                module.dropout = rate

    def forward(self, inputs: ModelInputs) -> Outputs:
        """Compute the hidden states of a batch, and select those that have a label.

        Args:
            inputs: Made by `prepare`.

        Returns:
            Hidden states and labels; losses and logits are computed from these on demand.
        """
        encoder_hidden = self.encode(inputs) if self.encoder is not None else None
        hidden = encoder_hidden if self.decoder is None else self.decode(inputs, encoder_hidden)
        assert hidden is not None, "a model has at least one stack"
        flat_ND = hidden.flatten(0, 1)
        if inputs.label_indices is not None:
            flat_ND = flat_ND.index_select(0, inputs.label_indices)
        return Outputs(hidden, flat_ND, inputs.labels_N, self)

    def encode(self, inputs: ModelInputs) -> Tensor:
        """Run the encoder.

        Returns:
            (B, S, D) hidden states after the final norm.
        """
        assert self.encoder is not None, "this model has no encoder"
        assert self.encoder_norm is not None, "a stack ends in its norm"
        tokens = inputs.tokens
        keys = self._dropout_keys(tokens)
        x_BTD = dropout(self.embed(tokens, inputs.dtype), keys)
        masks = self._masks_with_bias(tokens, self.encoder_bias, inputs.dtype)
        for index in range(self.config.layers("encoder")):
            block, layer_keys = self._block(self.encoder, index), keys and keys.for_layer(index + 1)
            mask, angles = self._layer_mask(masks, index), self._layer_angles(tokens, index)
            x_BTD = block(x_BTD, mask, angles, dropout_keys=layer_keys)
        out: Tensor = self.encoder_norm(x_BTD)
        return out

    def decode(
        self,
        inputs: ModelInputs,
        encoder_hidden_BSD: Tensor | None,
        cache: list[tuple[KVCache, KVCache]] | None = None,
    ) -> Tensor:
        """Run the decoder.

        Args:
            inputs: Its tokens are `decoder_tokens` in an encoder-decoder, else `tokens`.
            encoder_hidden_BSD: Output of `encode`; None in a decoder-only model.
            cache: Caches of self- and cross-attention for every block, which are read and extended; None without one.

        Returns:
            (B, T, D) hidden states after the final norm.
        """
        assert self.decoder is not None, "this model has no decoder"
        assert self.decoder_norm is not None, "a stack ends in its norm"
        tokens = inputs.tokens if encoder_hidden_BSD is None else inputs.decoder_tokens
        assert tokens is not None, "this batch has no tokens for a decoder"
        keys = self._dropout_keys(tokens)
        x_BTD = self.embed(tokens, inputs.dtype, self.decoder_embedding)
        if inputs.sentinel_match is not None and encoder_hidden_BSD is not None:
            x_BTD = add_encoder_states(x_BTD, inputs.sentinel_match, encoder_hidden_BSD)
        x_BTD = dropout(x_BTD, keys)
        masks = self._masks_with_bias(tokens, self.decoder_bias, inputs.dtype)
        for index in range(self.config.layers("decoder")):
            block, layer_keys = self._block(self.decoder, index), keys and keys.for_layer(index + 1)
            mask, angles = self._layer_mask(masks, index), self._layer_angles(tokens, index)
            layer_cache = cache[index] if cache else None
            x_BTD = block(x_BTD, mask, angles, encoder_hidden_BSD, inputs.cross_attention_mask, layer_cache, layer_keys)
        out: Tensor = self.decoder_norm(x_BTD)
        return out

    def _dropout_keys(self, tokens: StackInputs) -> DropoutKeys | None:
        if tokens.dropout_keys is None or not self.dropout or not self.training:
            return None
        return DropoutKeys.create(tokens.dropout_keys, self.config.hidden_size, self.dropout)

    def _block(self, blocks: nn.ModuleList, index: int) -> nn.Module:
        return blocks[0] if self.config.share_layers else blocks[index]

    def _layer_mask(self, masks: Mapping[int, AttentionMask], index: int) -> AttentionMask:
        """The mask of a layer: that of its window, with random blocks of its own where blocks are sampled."""
        mask = masks[self._window(index)]
        if mask.block_sparse is None:
            return mask
        return dataclasses.replace(mask, block_sparse=mask.block_sparse.for_layer(index))

    def _layer_angles(self, tokens: StackInputs, index: int) -> RotaryAngles | None:
        """The rotary angles of a layer; layers with a sliding window may have others than the rest."""
        angles = tokens.angles
        if angles is None or angles.local is None:
            return angles
        return angles.local if self._window(index) else angles._replace(local=None)

    def _window(self, index: int) -> int:
        windows = self.config.attention.sliding_windows
        return windows[index % len(windows)]

    def _masks_with_bias(
        self, tokens: StackInputs, position_bias: nn.Module | None, dtype: torch.dtype
    ) -> Mapping[int, AttentionMask]:
        """The attention mask of each window, with the bias of positions added where the model has one."""
        if position_bias is None:
            return tokens.attention_masks
        queries = tokens.position_ids
        keys = queries if tokens.key_position_ids is None else tokens.key_position_ids
        if isinstance(position_bias, RelativeEmbedding):
            relative = position_bias(queries, keys, dtype)
            return {w: dataclasses.replace(mask, relative=relative) for w, mask in tokens.attention_masks.items()}
        bias_BHTS = position_bias(queries, keys).to(dtype)
        found = {}
        for window, mask in tokens.attention_masks.items():
            assert mask.bias is not None, "a mask to which positions are added is a tensor"
            found[window] = dataclasses.replace(mask, bias=mask.bias + bias_BHTS)
        return found

    def embed(self, tokens: StackInputs, dtype: torch.dtype, embeddings: Embeddings | None = None) -> Tensor:
        """Embed a row of tokens.

        Args:
            tokens: Ids, positions and types.
            dtype: Type of the activations.
            embeddings: Those of the decoder, where it has its own.

        Returns:
            (B, T, D) input of the first block.
        """
        x_BTE = self.embed_tokens(tokens.input_ids)
        if EMBED_DELTA in self.heads:  # the shared table is trained by the generator only
            x_BTE = x_BTE.detach() + self.heads[EMBED_DELTA](tokens.input_ids)
        out: Tensor = (embeddings or self.embedding)(x_BTE, tokens, dtype)
        return out

    @property
    def lm_head_weight(self) -> Tensor:
        """(V, E) matrix of the head, which may be the embedding table."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Compute the logits of the language-model head.

        Args:
            hidden_ND: Output of `encode`, `decode` or `forward`.

        Returns:
            (N, V) logits, in the type of the hidden states.
        """
        x_NE = self.lm_head_input(hidden_ND)
        logits_NV = lm_logits(x_NE, self.lm_head_weight, self.config.logit_softcap, self.head_layers.bias)
        if self.trained_vocab_size is not None:
            logits_NV[..., self.trained_vocab_size :] = float("-inf")
        return logits_NV

    def lm_head_input(self, hidden_ND: Tensor) -> Tensor:
        """Apply the layers of the head before its matrix.

        Returns:
            (N, E) input of the head's matrix.
        """
        out: Tensor = self.head_layers(hidden_ND)
        return out


def meta_model(config: ModelConfig, heads: Heads | None = None) -> Transformer:
    """Build a model on the meta device, which takes no memory for its weights.

    Args:
        config: Shape of the model.
        heads: Builds the objective's heads.

    Returns:
        The model, with shapes only.
    """
    with torch.device("meta"):
        return Transformer(config, heads(config) if heads else None)
