"""The state of a study's runs, recorded and shown while it progresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm.study.plan import RUNS
from pretextlm.study.progress import StudyProgress

if TYPE_CHECKING:
    from pretextlm.training.run_directory import Run


@dataclass
class StudyResults:
    """The runs of a study and its findings.

    Attributes:
        directory: of the study; its runs are in runs/.
        finished: trained and evaluated in this call.
        skipped: found finished.
        failed: name → reason in one line.
        report: the page that was written, report.html.
        summary: the finding and every measure of every condition, as in `pretextlm report --json`.
    """

    directory: Path
    finished: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    report: Path | None = None
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def runs(self) -> dict[str, Run]:
        """The runs that are trained and evaluated, by directory name: "masked-seed1"."""
        from pretextlm.training.run_directory import Run

        return {name: Run.open(self.directory / RUNS / name) for name in sorted([*self.finished, *self.skipped])}

    def settled(self) -> int:
        return len(self.finished) + len(self.skipped) + len(self.failed)


class StudyRecorder:
    """Records the events of all runs, which may be executed in parallel."""

    def __init__(self, outcome: StudyResults, total: int, progress: StudyProgress) -> None:
        self.outcome, self.total, self.progress = outcome, total, progress
        self.shares: dict[str, float] = {}

    def begin(self, name: str) -> None:
        self.progress.begin(name, self.outcome.settled(), self.total)

    def step(self, name: str, share: float, values: Mapping[str, float]) -> None:
        self.shares[name] = share
        self.progress.step(sum(self.shares.values()), values)

    def found(self, name: str) -> None:
        """A run needs nothing more."""
        self.begin(name)
        self.outcome.skipped.append(name)
        self.progress.end(name, "found finished")

    def end(self, name: str, failure: str | None) -> None:
        """A run has ended, or failed for the given reason."""
        self.shares.pop(name, None)
        if failure:
            self.outcome.failed[name] = failure
        else:
            self.outcome.finished.append(name)
        self.progress.end(name, f"failed: {failure}" if failure else "done")


class RunProgress:
    """Progress of one run's trainer."""

    def __init__(self, recorder: StudyRecorder, name: str) -> None:
        self.recorder, self.name = recorder, name

    def step(self, share: float, values: Mapping[str, float]) -> None:
        self.recorder.step(self.name, share, values)

    def note(self, text: str) -> None:
        self.recorder.progress.note(text)
