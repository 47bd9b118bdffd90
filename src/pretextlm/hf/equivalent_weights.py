"""Equivalent parametrizations: forms of a run's weights that compute the same function and that a family can represent.

    embedding plus a difference (DeBERTa-v3's sharing)      one table, their sum
    position table whose first rows are never read          without those rows, or all but one for padding (RoBERTa)
    projection of the embedding without a bias              with a bias of zeros
    pooler of an import, after training                     without it: it belonged to other hidden states

The outputs of the language model are unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from pretextlm.model.config import ModelConfig

POSITIONS = ("embedding.positions.weight", "decoder_embedding.positions.weight")
PROJECTIONS = ("embedding.projection", "decoder_embedding.projection")
POOLER = "head_layers.pooler."
TABLE, ADDED_TO_TABLE = "embed_tokens.weight", "heads.embed_delta.weight"


def summed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights with the difference that the model adds to a shared table added into the table itself."""
    if ADDED_TO_TABLE not in weights:
        return dict(weights)
    table = weights[TABLE] + weights[ADDED_TO_TABLE]
    return {name: table if name == TABLE else tensor for name, tensor in weights.items() if name != ADDED_TO_TABLE}


def forms(
    config: ModelConfig, weights: Mapping[str, Tensor], pad: int | None = None
) -> Iterator[tuple[ModelConfig, Mapping[str, Tensor]]]:
    """Yields the model as it is, then equivalent forms, the preferred ones first.

    Args:
        config: shape of the model.
        weights: its tensors.
        pad: the padding id; None for an import that was not trained since.
    """
    if pad is not None and config.head.pooler:
        yield from forms(*_without_pooler(config, weights), pad)
    yield config, weights
    biased = _with_projection_bias(config, weights)
    if biased[0] != config:
        yield biased
    if config.positions.kind == "learned" and config.positions.offset:
        if pad is not None and config.positions.offset > pad + 1:
            yield _with_offset(*biased, pad + 1)
        yield _with_offset(*biased, 0)


def _with_offset(
    config: ModelConfig, weights: Mapping[str, Tensor], offset: int
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Returns the form in which position 0 has another row of the table; the rows before it serve padding alone.

    With an offset of 2 and padding of id 0, RoBERTa counts from row 1: the table loses its first row.
    """
    unread = config.positions.offset - offset
    rows = config.positions.max_position_embeddings - unread
    places = config.positions.model_copy(update={"offset": offset, "max_position_embeddings": rows})
    cut = {name: tensor[unread:] if name in POSITIONS else tensor for name, tensor in weights.items()}
    return config.model_copy(update={"positions": places}), cut


def _without_pooler(config: ModelConfig, weights: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    head = config.head.model_copy(update={"pooler": False})
    own = {name: tensor for name, tensor in weights.items() if not name.startswith(POOLER)}
    return config.model_copy(update={"head": head}), own


def _with_projection_bias(config: ModelConfig, weights: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Returns the form in which the projection of the embedding has a bias of zeros."""
    wide = config.embedding_size != config.hidden_size
    added = {
        f"{name}.bias": weights[f"{name}.weight"].new_zeros(len(weights[f"{name}.weight"]))
        for name in PROJECTIONS
        if f"{name}.weight" in weights and f"{name}.bias" not in weights
    }
    parts = config.embedding.model_copy(update={"projection_bias": wide})
    return config.model_copy(update={"embedding": parts}), {**weights, **added}
