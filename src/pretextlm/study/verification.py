"""What of a run, store, study or export is whole, what is broken, and what can be done about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pretextlm.data.manifest import read_manifest
from pretextlm.data.store import FILES, Store, sha256_of
from pretextlm.errors import UserError
from pretextlm.hf.export_hashes import HASHES, hashes
from pretextlm.plain_files import read_json
from pretextlm.study.directory import CORPUS, PLAN
from pretextlm.study.plan import RUNS
from pretextlm.training.callbacks.best_weights import DIRECTORY as BEST
from pretextlm.training.checkpoint import hold, steps
from pretextlm.training.checkpoint import verify as checkpoint_fault
from pretextlm.training.run_directory import CHECKPOINTS, CONFIG, COST, FORGETTING, METRICS, Run
from pretextlm.training.run_manifest import MANIFEST, RunManifest

COPY = "Restore it from a copy."
AGAIN = "pretextlm data prepare … --overwrite makes the store again."
DERIVED = ("evaluation*.json", "benchmarks.json", COST, FORGETTING)
"""Files with results, which their commands write again."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Verified:
    """One file, or one directory that is whole or broken as one.

    Attributes:
        path: of it.
        fault: what is wrong; "" if it is whole.
        remedy: what repairs it.
        decides: whether results would be wrong or impossible; False for what is made again or no longer needed.
    """

    path: str
    fault: str = ""
    remedy: str = ""
    decides: bool = True

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def verify(place: Path, progress: Progress = lambda text: None) -> list[Verified]:
    """Reads a run, store, study or exported directory completely, and compares it with its hashes.

    Args:
        place: the directory.
        progress: called with each file or checkpoint before it is read.

    Returns:
        Each part, in the order in which it was read.

    Raises:
        UserError: the directory is none of these, or has no hashes.
    """
    kinds: list[tuple[str, Callable[[Path, Progress], Iterator[Verified]]]] = [
        (PLAN, _study),
        (CONFIG, _run),
        (MANIFEST, _run),
        (HASHES, _export),
        ("manifest.json", _store),
    ]
    for name, parts in kinds:
        if (place / name).is_file():
            return list(parts(place, progress))
    if (place / "config.json").is_file() or (place / "adapter_config.json").is_file():
        raise UserError(f"{place} has no {HASHES}, so that nothing can be compared.", "Export it again.")
    raise UserError(
        f"{place} is no run, store, study or exported directory.", "Give one that a pretextlm command wrote."
    )


def _store(place: Path, progress: Progress) -> Iterator[Verified]:
    try:
        files = read_manifest(place).files
    except UserError as error:
        yield Verified(str(place / "manifest.json"), error.message, AGAIN)
        return
    yield Verified(str(place / "manifest.json"))
    for name in FILES:
        expected = files[name].sha256 if name in files else ""
        yield _compared(place / name, expected, AGAIN, progress)
    try:
        Store.open(place)
    except UserError as error:
        yield Verified(str(place), error.message, AGAIN)


def _run(place: Path, progress: Progress) -> Iterator[Verified]:
    try:
        manifest = RunManifest.read(place)
    except UserError as error:
        manifest = None
        yield Verified(str(place / MANIFEST), error.message, COPY)
    else:
        if manifest is None:
            fault = "is missing: the other files cannot be compared (runs of earlier versions have none)"
            yield Verified(str(place / MANIFEST), fault, COPY, decides=_has_id(place))
        else:
            yield Verified(str(place / MANIFEST))
            yield from (Verified(str(place / name), fault, COPY) for name, fault in manifest.faults(place))
    yield from _checkpoints(place, progress)
    yield from _results(place)


def _checkpoints(place: Path, progress: Progress) -> Iterator[Verified]:
    """Yields the checkpoints and the best weights; a broken one decides nothing where an older one can be used."""
    for parent, needed in ((place / CHECKPOINTS, True), (place / BEST, False)):
        found = _faults(parent, progress)
        none_whole = all(fault for _, fault in found)
        remedy = COPY if none_whole else "The newest whole one is used; --resume sets this one aside."
        if not needed:
            remedy = "--resume says that they are lost, and keeps the best ones from there on."
        yield from (Verified(str(one), fault or "", remedy, needed and none_whole) for one, fault in found)
        if needed and not found:
            yield Verified(str(parent), "holds no checkpoint", "pretextlm pretrain … --resume begins again.")


def _faults(parent: Path, progress: Progress) -> list[tuple[Path, str | None]]:
    """Returns the checkpoints with what is wrong with each. A run that trains meanwhile removes old ones."""
    while there := steps(parent):
        found = []
        for directory in there:
            progress(str(directory))
            held = hold(directory)
            fault = checkpoint_fault(directory)
            if held is not None:
                held.close()
            if fault is None or directory.is_dir():
                found.append((directory, fault))
        if found:
            return found
    return []


def _has_id(place: Path) -> bool:
    """Returns whether a checkpoint belongs to a run that had a manifest."""
    for directory in steps(place / CHECKPOINTS):
        try:
            if json.loads((directory / "state.json").read_text(encoding="utf-8")).get("run_id"):
                return True
        except (OSError, ValueError, AttributeError):
            continue
    return False


def _results(place: Path) -> Iterator[Verified]:
    for path in sorted(path for pattern in DERIVED for path in place.glob(pattern)):
        command = "evaluate" if path.name != COST else "pretrain … --resume with"
        fault = "" if isinstance(_json(path), dict) and _json(path) else "is no JSON object with results"
        yield Verified(str(path), fault, f"pretextlm {command} {place} writes it again.", decides=False)
    if (place / METRICS).is_file() and (place / CONFIG).is_file():
        try:
            missing = Run.open(place).missing_metrics()
            fault = f"lacks the lines of {len(missing):,} steps, the first of step {missing[0]:,}" if missing else ""
        except UserError as error:
            fault = error.message
        yield Verified(
            str(place / METRICS), fault, "The curves have a gap; weights do not depend on it.", decides=False
        )


def _study(place: Path, progress: Progress) -> Iterator[Verified]:
    for name in (PLAN, CORPUS, "command.json"):
        path = place / name
        if path.is_file():
            fault = "" if path.suffix != ".json" or isinstance(_json(path), dict) else "is no JSON object"
            yield Verified(str(path), fault, "pretextlm compare … --resume writes it again.", decides=False)
    for run in sorted(path for path in (place / RUNS).glob("*") if path.is_dir()):
        yield from _run(run, progress)


def _export(place: Path, progress: Progress) -> Iterator[Verified]:
    again = "pretextlm export RUN DIR writes it again."
    try:
        found = list(hashes(place))
    except (UserError, OSError, ValueError) as error:
        yield Verified(str(place / HASHES), f"cannot be read: {error}", again)
        return
    for name, digest in found:
        yield _compared(place / name, digest, again, progress)


def _compared(path: Path, expected: str, remedy: str, progress: Progress) -> Verified:
    progress(str(path))
    try:
        same = sha256_of(path) == expected
    except UserError:
        return Verified(str(path), "is missing or cannot be read", remedy)
    return Verified(str(path), "" if same else "is not what was written", remedy)


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except (UserError, OSError, ValueError):
        return None
