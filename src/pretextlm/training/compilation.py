"""Compiling the model before the clock of a training starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from pretextlm.errors import UserError
from pretextlm.training.signals import Interrupted

if TYPE_CHECKING:
    from pretextlm.model.transformer import Transformer
    from pretextlm.training.signals import StopFlag

COMPILER = ("torch._dynamo", "torch._inductor")
"""Modules whose errors are compiler errors; matched by name, since importing them takes seconds."""
MENTIONED_SHARE = 0.01
"""Share of passes without compiled code from which it is mentioned."""


def compile_ahead(
    model: Transformer,
    shapes: int,
    first_step: Callable[[], Any],
    *,
    stop: StopFlag | None,
    required: bool,
    note: Callable[[str], None],
) -> float:
    """Compile a model by running its first step without an update.

    Compile time depends on caches, and runs are compared by their seconds; therefore it is measured separately.

    Args:
        model: is compiled in place, or set to run uncompiled if the compiler fails.
        shapes: number of batch shapes to expect.
        first_step: forward and backward pass of the first step.
        stop: a signal interrupts the compilation at once; None: it does not.
        required: whether a failure of the compiler is an error.
        note: called with messages for people.

    Returns:
        Seconds of compilation; 0.0 if it was interrupted.

    Raises:
        UserError: the compiler failed although it is required.
    """
    start = time.perf_counter()
    model.compile_blocks(shapes)
    try:
        with stop.at_once() if stop else nullcontext():
            first_step()
    except Interrupted:
        model.zero_grad()
        return 0.0
    except Exception as error:
        if not type(error).__module__.startswith(COMPILER):
            raise
        if required:
            message = " ".join(str(error).split())[:300]
            raise UserError(f"The compiler failed: {message}.", "Use training.compile=off.") from None
        model.undo_compile()
        note("the compiler failed; training goes on without it")
    model.zero_grad()
    seconds = time.perf_counter() - start
    note(f"compiled in {seconds:.0f} s")
    return seconds


def note_eager_share(model: Transformer, note: Callable[[str], None]) -> None:
    """Say how much of the training ran without compiled code, because of shapes that the first step did not have."""
    share = model.eager_share()
    if share >= MENTIONED_SHARE:
        note(f"{share:.0%} of the passes through blocks ran without compiled code: the first step had no such shapes")
