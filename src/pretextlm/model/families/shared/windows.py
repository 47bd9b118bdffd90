"""Windows of layers in a config.json: a kind for each layer, and one width for those that have a window."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig

KINDS = {"full_attention": False, "sliding_attention": True}
"""Kind of a layer → whether it has a window."""
MOST_LAYERS = 1024


def windows_from_hf(values: Mapping[str, Any], window: int, usual: Callable[[int], bool]) -> tuple[int, ...]:
    """Converts the windows of a config.json.

    Args:
        values: Values of the config.json; its layer_types, where it has them, name the kind of each layer.
        window: Width of the window.
        usual: Whether a layer has a window, by its number, where kinds are not named.

    Returns:
        The shortest pattern of windows that gives all layers when it is repeated.

    Raises:
        UserError: Kinds that are unknown, or not as many as layers.
    """
    layers, kinds = values["num_hidden_layers"], values.get("layer_types")
    if not 0 < layers <= MOST_LAYERS:
        raise UserError(f"num_hidden_layers is {layers}.", f"It is at least 1 and at most {MOST_LAYERS}.")
    if kinds is None:
        return shortest([window if usual(i) else 0 for i in range(layers)])
    if not isinstance(kinds, list | tuple) or len(kinds) != layers or not all(str(kind) in KINDS for kind in kinds):
        known = ", ".join(KINDS)
        raise UserError(f"layer_types of {layers} layers is {kinds!r:.80}.", f"It names for each one of {known}.")
    return shortest([window if KINDS[str(kind)] else 0 for kind in kinds])


def window_of_each_layer(config: ModelConfig) -> tuple[int, ...]:
    """Returns the window of each layer."""
    windows = config.attention.sliding_windows
    return tuple(windows[i % len(windows)] for i in range(config.num_hidden_layers))


def windows_to_hf(windows: Sequence[int]) -> dict[str, Any]:
    """Converts windows to values of a config.json: the kinds of layers and the widest window."""
    kinds = ["sliding_attention" if window else "full_attention" for window in windows]
    return {"layer_types": kinds, "sliding_window": max(windows) or None}


def shortest(windows: Sequence[int]) -> tuple[int, ...]:
    """Returns the shortest pattern that gives these windows when it is repeated: (8, 0, 8, 0) → (8, 0)."""
    every = len(windows)
    repeats = (n for n in range(1, every + 1) if all(windows[i] == windows[i % n] for i in range(every)))
    return tuple(windows[: next(repeats)])
