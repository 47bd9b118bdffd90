"""Trackio: a local database, or a Space. Variables say where to: TRACKIO_PROJECT, TRACKIO_SPACE_ID, TRACKIO_DIR."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from pretextlm.training.recipe import Recipe


class Trackio:
    """A resumed run is identified by the name of its directory. Trackio's output is sent to stderr."""

    name = "trackio"

    def __init__(self, directory: Path, recipe: Recipe, step: int) -> None:
        import trackio

        with contextlib.redirect_stdout(sys.stderr):
            self._run = trackio.init(
                project=os.environ.get("TRACKIO_PROJECT", "pretextlm"),
                name=directory.name,
                config=recipe.dump(),
                resume="allow" if step else "never",
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._run.finish()
