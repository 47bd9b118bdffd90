"""Windows of layers in a config.json: a kind for each layer, and one width for those that have a window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig

KINDS = {"full_attention": False, "sliding_attention": True}
"""Kind of a layer → whether it has a window."""


def windows_in(kinds: object, window: int, layers: int) -> tuple[int, ...]:
    """The window of each layer, as few as give all by repetition. Raises UserError for unknown or too few kinds."""
    if not isinstance(kinds, (list, tuple)) or len(kinds) != layers or any(kind not in KINDS for kind in kinds):
        known = ", ".join(KINDS)
        raise UserError(f"layer_types of {layers} layers is {kinds!r}.", f"It names for each layer one of {known}.")
    return shortest([window if KINDS[kind] else 0 for kind in kinds])


def windows_of(config: ModelConfig) -> tuple[int, ...]:
    """The window of each layer."""
    windows = config.attention.windows
    return tuple(windows[i % len(windows)] for i in range(config.num_hidden_layers))


def windows_out(windows: Sequence[int]) -> dict[str, Any]:
    """The kinds of layers and the widest of their windows."""
    kinds = ["sliding_attention" if window else "full_attention" for window in windows]
    return {"layer_types": kinds, "sliding_window": max(windows) or None}


def shortest(windows: Sequence[int]) -> tuple[int, ...]:
    """The shortest run of windows that gives these when it is repeated."""
    every = len(windows)
    repeats = (n for n in range(1, every + 1) if all(windows[i] == windows[i % n] for i in range(every)))
    return tuple(windows[: next(repeats)])
