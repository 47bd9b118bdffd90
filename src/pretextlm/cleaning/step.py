"""What a step of a cleaning pipeline is: a configuration whose fields are its thresholds, and what it does by them.

A step is one module of `pretextlm.cleaning.steps`, named like the file, with one class. It reads a document alone
(`Step`), or must see all documents before it can judge one (`CorpusStep`), as deduplication does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from pretextlm.cleaning.document import Document, Removal
from pretextlm.config import Config


class Step(Config):
    """A step that judges or changes each document by itself.

    The fields of a subclass are its settings. It is created once in each process, so that what it loads (word lists,
    models) is loaded on first use and kept.

    Attributes:
        name: as in recipes; that of its file.
        extra: the extra of pretextlm that it needs; "" for none.
    """

    name: ClassVar[str]
    extra: ClassVar[str] = ""

    def apply(self, document: Document) -> Removal | None:
        """Change a document in place, or judge it.

        Returns:
            Why it is removed; None to keep it.
        """
        raise NotImplementedError


class CorpusStep(Step):
    """A step that sees all documents before it judges one.

    Shards are processed in parallel; every file is written whole or not at all (`files.replace_file`), so that an
    interrupted pipeline goes on. Documents have the same order in both passes.
    """

    def collect(self, documents: Iterable[Document], out: Path) -> None:
        """Write what `decide` needs to know of one shard's documents, for example their hashes, into a file."""
        raise NotImplementedError

    def decide(self, collected: Sequence[Path], out: Path) -> None:
        """Read the files of all shards, in their order, and write what is removed into a file."""
        raise NotImplementedError

    def applier(self, decision: Path, shard: int) -> Callable[[Document], Removal | None]:
        """Returns what is applied to the documents of a shard, each once and in order, after `decide`."""
        raise NotImplementedError


def above(document: Document, rule: str, value: float, least: float) -> Removal | None:
    """Keep a document whose `value` is at least `least`; the measurement is noted in `document.measures`."""
    document.measures[rule] = (value, least)
    return Removal(rule, value, least) if value < least else None


def below(document: Document, rule: str, value: float, most: float) -> Removal | None:
    """Keep a document whose `value` is at most `most`; the measurement is noted in `document.measures`."""
    document.measures[rule] = (value, most)
    return Removal(rule, value, most) if value > most else None
