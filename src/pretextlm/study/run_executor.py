"""Executes one run of a study: trains and evaluates it where that is missing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm.errors import UserError
from pretextlm.plain_files import read_json

if TYPE_CHECKING:
    from pretextlm.training.progress import Progress

Pretrain = Callable[..., Any]
Evaluate = Callable[[Path], Any]
log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())  # nothing is printed unless the program configures logging


def trained(directory: Path) -> bool:
    return _is_written(directory / "cost.json")


def finished(directory: Path) -> bool:
    return _is_written(directory / "evaluation.json")


def _is_written(path: Path) -> bool:
    """Returns whether a file of results is there and whole; a broken one is made again."""
    try:
        values = read_json(path)
    except (UserError, OSError, ValueError):
        return False
    return isinstance(values, dict) and bool(values)


@dataclass(frozen=True)
class RunExecutor:
    """Trains and evaluates runs; by default with the package's own functions."""

    pretrain: Pretrain | None = None
    evaluate: Evaluate | None = None

    def execute(
        self, recipe: Callable[[], Any], directory: Path, command: Sequence[str], progress: Progress
    ) -> str | None:
        """Train and evaluate what is missing.

        Returns:
            None, or the reason of a failure in one line.

        Raises:
            Stopped: a signal arrived.
        """
        from pretextlm.training.pretrain import pretrain
        from pretextlm.training.signals import Stopped

        try:
            if not trained(directory):
                (self.pretrain or pretrain)(recipe(), directory, resume=True, command=command, progress=progress)
            (self.evaluate or evaluate_where_it_was_trained)(directory)
        except Stopped:
            raise
        except Exception as error:  # one run's fault must not take the others' hours with it
            return reason(error, directory.name)
        return None


def evaluate_where_it_was_trained(directory: Path) -> None:
    """Evaluates a run on the kind of device that its recipe names, so that a GPU is used here, too."""
    from pretextlm.evaluation.evaluate import evaluate
    from pretextlm.training.run_directory import Run

    run = Run.open(directory)
    evaluate(run, device=run.recipe.training.device)


def reason(error: Exception, name: str) -> str:
    """Returns an error in one line; unexpected ones are logged with their traceback."""
    if isinstance(error, UserError):
        return error.message
    log.error("%s failed", name, exc_info=error)
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
