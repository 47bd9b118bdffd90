"""What becomes of a study's runs, kept and shown as it happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pretextlm.study.progress import StudyProgress


@dataclass
class Outcome:
    """What became of the runs, by directory name.

    Attributes:
        finished: trained and evaluated this time.
        skipped: found finished.
        failed: name → the reason, in one line.
    """

    directory: Path
    finished: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def settled(self) -> int:
        return len(self.finished) + len(self.skipped) + len(self.failed)


class Watcher:
    """Told of every run, also of several at a time."""

    def __init__(self, outcome: Outcome, total: int, progress: StudyProgress) -> None:
        self.outcome, self.total, self.progress = outcome, total, progress
        self.shares: dict[str, float] = {}

    def begin(self, name: str) -> None:
        self.progress.begin(name, self.outcome.settled(), self.total)

    def step(self, name: str, share: float, values: Mapping[str, float]) -> None:
        self.shares[name] = share
        self.progress.step(sum(self.shares.values()), values)

    def found(self, name: str) -> None:
        """A run that needs nothing more."""
        self.begin(name)
        self.outcome.skipped.append(name)
        self.progress.end(name, "found finished")

    def end(self, name: str, failure: str | None) -> None:
        """A run is made, or has failed for the reason given."""
        self.shares.pop(name, None)
        if failure:
            self.outcome.failed[name] = failure
        else:
            self.outcome.finished.append(name)
        self.progress.end(name, f"failed: {failure}" if failure else "done")


class OfRun:
    """The display of one run's trainer."""

    def __init__(self, watcher: Watcher, name: str) -> None:
        self.watcher, self.name = watcher, name

    def step(self, share: float, values: Mapping[str, float]) -> None:
        self.watcher.step(self.name, share, values)

    def note(self, text: str) -> None:
        self.watcher.progress.note(text)
