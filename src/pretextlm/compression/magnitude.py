"""Magnitude pruning: the smallest weights of each matrix become zero (Han et al. 2015,
https://arxiv.org/abs/1506.02626).

The matrices keep their shape, so that files and matrix products stay as large as before unless a runtime exploits the
zeros. Further training changes the zeros again.

    0.5 of a matrix    3 -1 0.5 -4  2 0.1 1 -2    →    3 0 0 -4  2 0 0 -2
    2:4                3 -1 0.5 -4  2 0.1 1 -2    →    3 0 0 -4  2 0 0 -2      two of every four, which GPUs accelerate

Both keep the weights of largest magnitude.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from pretextlm.errors import UserError
from pretextlm.model.block_matrices import is_block_matrix

PATTERN = re.compile(r"([1-9]\d?):([1-9]\d?)")


def prune_share(weight: Tensor, sparsity: float) -> Tensor:
    """Returns the matrix with the round(sparsity · size) smallest weights set to zero."""
    count = round(sparsity * weight.numel())
    smallest = weight.abs().flatten().topk(count, largest=False, sorted=False).indices
    return weight.flatten().index_fill(0, smallest, 0.0).view_as(weight)


def prune_pattern(weight: Tensor, kept: int, group: int) -> Tensor:
    """Returns the matrix (out, in) with all but the `kept` largest of every `group` weights of a row set to zero."""
    groups = weight.view(-1, group)
    largest = groups.abs().topk(kept, dim=1, sorted=False).indices
    return torch.zeros_like(groups).scatter_(1, largest, groups.gather(1, largest)).view_as(weight)


def check_sparsity(sparsity: float | None) -> None:
    """Check a sparsity.

    Raises:
        UserError: it is not between 0 and 1.
    """
    if sparsity is not None and not 0 < sparsity < 1:
        raise UserError(f"A sparsity of {sparsity:g} is not between 0 and 1.", "Give a share, for example 0.5.")


def parse_pattern(text: str) -> tuple[int, int]:
    """Parse "2:4" into (2, 4).

    Raises:
        UserError: it is not an N:M pattern.
    """
    found = PATTERN.fullmatch(text)
    kept, group = map(int, found.groups()) if found else (0, 0)
    if not 0 < kept < group:
        raise UserError(
            f"{text!r} is not a pattern.", "Give how many stay of how many, for example --pattern 2:4 (or 1:2, 4:8)."
        )
    return kept, group


def prune_weights(
    weights: Mapping[str, Tensor], sparsity: float | None = None, pattern: str | None = None
) -> dict[str, Tensor]:
    """Prune each matrix of a model's blocks to a sparsity or an N:M pattern.

    Returns:
        All weights of the model.

    Raises:
        UserError: the sparsity is not between 0 and 1, or the pattern is invalid or does not divide the rows.
    """
    check_sparsity(sparsity)
    kept, group = parse_pattern(pattern) if pattern is not None else (0, 0)
    found = {}
    for name, weight in weights.items():
        found[name] = weight
        if not is_block_matrix(name):
            continue
        if group:
            if weight.size(1) % group:
                raise UserError(
                    f"{name} has rows of {weight.size(1)} weights, which do not divide into groups of {group}.",
                    "Give a pattern whose second number divides them.",
                )
            found[name] = prune_pattern(weight, kept, group)
        elif sparsity is not None:
            found[name] = prune_share(weight, sparsity)
    return found


def zeros(weights: Mapping[str, Tensor]) -> tuple[int, int]:
    """Returns (zero weights, weights) of the matrices of the blocks."""
    matrices = [weight for name, weight in weights.items() if is_block_matrix(name)]
    return sum(int((m == 0).sum()) for m in matrices), sum(m.numel() for m in matrices)
