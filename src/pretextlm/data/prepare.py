"""Preparing a store: sample the text, train the tokenizer, encode shards, write the store.

All intermediate results are kept in OUT.partial, each renamed when it is complete, so that an interrupted preparation
resumes where it stopped and gives the same bytes.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

import pretextlm
from pretextlm.config import Config, PathText
from pretextlm.data.background import in_background
from pretextlm.data.directories import listed
from pretextlm.data.encode import TextEncoder
from pretextlm.data.encodings import UTF8, checked_encoding
from pretextlm.data.file_formats import ReadOptions, parts_of
from pretextlm.data.ledger import Ledger
from pretextlm.data.manifest import SourceRecord
from pretextlm.data.sampling import Sample
from pretextlm.data.shards import Shard, load_keys, load_shard, save_shard
from pretextlm.data.sources import Source, find_source, stamp
from pretextlm.data.store import Store
from pretextlm.data.text_files import TextMode
from pretextlm.data.tokenizer import KINDS, adopt_tokenizer, from_json, load_tokenizer, train_tokenizer
from pretextlm.data.writer import StoreWriter, refuse_existing
from pretextlm.errors import UserError
from pretextlm.files import AnyPath, replace_file

Progress = Callable[[str, int, int | None], None]
"""Called with the current stage, bytes of text done and, if known, the total bytes of text.

While a tokenizer is trained, with the seconds since its start instead of bytes."""

TRAINING = "training the tokenizer"

SHARD_BYTES = 2 << 20
_NO_MATTER = {"workers", "overwrite", "licence"}


class PrepareConfig(Config):
    """Options of a preparation. All but `workers` and `overwrite` decide the bytes of the store.

    Attributes:
        tokenizer: "bpe", "wordpiece", "unigram", "character", or the path of an existing tokenizer or store.
        vocab_size: total number of ids, special tokens and sentinels included; only for a tokenizer that is trained.
        sentinels: number of <extra_id_N> tokens; by default 256 in a vocabulary of 8,192 ids or more, else 100.
        sample_mb: megabytes of text, sampled over the corpus, that the tokenizer is trained on.
        validation: share of the documents in the validation split, at least one document.
        validation_tail: instead, the last share of every source's characters; the document in which it begins is cut
            there (a pair is not).
        field, text_mode, on_error, split_long: see file_formats.ReadOptions; a source may name its own fields.
        max_document_mb: a longer line or row is a bad document.
        encoding: of text files without a byte order mark, "cp949" for example; "auto" recognises it.
        licence: of sources whose metadata does not name one.
        workers: encoding threads.
        overwrite: replace an existing store.
    """

    tokenizer: PathText = "bpe"
    vocab_size: int = Field(8192, ge=1)
    sentinels: int | None = Field(None, ge=0, le=10_000)
    sample_mb: int = Field(20, ge=1, le=1 << 20)
    validation: float = Field(0.02, gt=0, lt=1)
    validation_tail: float | None = Field(None, gt=0, lt=1)
    field: str = "text"
    text_mode: TextMode = "file"
    on_error: Literal["error", "skip"] = "error"
    split_long: int = Field(1 << 18, ge=0)
    max_document_mb: int = Field(64, ge=1, le=1 << 20)
    encoding: str = UTF8
    licence: str | None = None
    workers: int = Field(1, ge=1, le=1024)
    overwrite: bool = False

    @classmethod
    def described_as(cls) -> str:
        return "the options"

    @field_validator("split_long")
    @classmethod
    def _not_too_short(cls, characters: int) -> int:
        if 0 < characters < 64:
            raise ValueError("give at least 64 characters, or 0 to never split")
        return characters

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str) -> str:
        return checked_encoding(name)

    def read_options(self) -> ReadOptions:
        return ReadOptions(
            self.field,
            self.text_mode,
            self.on_error,
            self.max_document_mb << 20,
            self.split_long,
            encoding=self.encoding,
        )


class PrepareOptions(TypedDict, total=False):
    """The fields of :class:`PrepareConfig` as keyword arguments."""

    tokenizer: AnyPath
    vocab_size: int
    sentinels: int | None
    sample_mb: int
    validation: float
    validation_tail: float | None
    field: str
    text_mode: TextMode
    on_error: Literal["error", "skip"]
    split_long: int
    max_document_mb: int
    encoding: str
    licence: str | None
    workers: int
    overwrite: bool


def prepare(
    sources: AnyPath | Sequence[AnyPath],
    out: AnyPath,
    config: PrepareConfig | None = None,
    progress: Progress | None = None,
    **options: Unpack[PrepareOptions],
) -> Store:
    """Prepare a store of tokenized text: train a tokenizer, encode the documents, split off a validation set.

    A preparation that was interrupted continues where it stopped when it is called again.

    Args:
        sources: one or more files, directories, "package:NAME" or "hf:NAME"; see sources.py for fields and pairs.
        out: directory of the store; OUT.partial beside it is the working directory.
        config: the options as an object, instead of keyword arguments.
        progress: called about once per shard with the name of the stage, bytes done and bytes in total.
        **options: see :class:`PrepareConfig`, for example `vocab_size=4096`.

    Returns:
        The store.

    Raises:
        UserError: an option or a source is wrong, `out` exists, there is no space left, or another process is
            preparing the same store.
    """
    if config is None:
        config = PrepareConfig.parse(options, PrepareConfig.described_as())
    elif options:
        raise UserError("Options are given twice, as an object and by name.", "Give one of them.")
    given = [sources] if isinstance(sources, str | os.PathLike) else sources
    if not given:
        raise UserError("There is no source.", "Give a file, a directory, package:NAME or hf:NAME.")
    out = Path(out)
    refuse_existing(out, config.overwrite)
    found = [find_source(os.fspath(spec), config.read_options()) for spec in given]
    work = out.with_name(out.name + ".partial")
    try:
        with _working_directory(work, _fingerprint(found, config)):
            _Preparation(found, work, config, progress or (lambda *_: None)).run(out)
    except OSError as error:
        raise UserError(
            f"Cannot write {error.filename or work}: {error.strerror or error}.",
            f"Free space or choose another --out. Finished work is kept in {work}: the same command resumes.",
        ) from None
    return Store.open(out)


def _fingerprint(sources: list[Source], config: PrepareConfig) -> str:
    """Returns a hash of everything that decides the store's bytes; intermediate results are reused while it is
    equal.
    """
    files = {source.name: source.stamp for source in sources}
    if config.tokenizer not in KINDS:
        files["tokenizer"] = stamp([_existing(config.tokenizer)])
    options = config.model_dump(exclude=_NO_MATTER)
    return json.dumps({"pretextlm": pretextlm.__version__, "files": files, **options}, sort_keys=True)


@contextmanager
def _working_directory(work: Path, fingerprint: str) -> Iterator[None]:
    """Create or take over the working directory, for one process at a time; results of other options are removed."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Another process is preparing this store in {work}.", "Wait for it, or choose another --out."
            ) from None
        options = work / "options.json"
        if not options.is_file() or options.read_text(encoding="utf-8") != fingerprint:
            for path in work.iterdir():
                if path.name != "lock":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            replace_file(options, fingerprint.encode())
        try:
            yield
        except UserError:  # the same would come again
            shutil.rmtree(work, ignore_errors=True)
            raise
    shutil.rmtree(work, ignore_errors=True)


class _Preparation:
    """One preparation, from sources to store."""

    def __init__(self, sources: list[Source], work: Path, config: PrepareConfig, progress: Progress) -> None:
        self.sources, self.work, self.config, self.progress = sources, work, config, progress
        self.total_bytes: int | None = None

    def run(self, out: Path) -> None:
        tokenizer_json = self._tokenizer()
        encoder = TextEncoder(from_json(tokenizer_json, "the tokenizer"))
        records, shards = self._encode(encoder)
        self._assemble(out, encoder, tokenizer_json, records, shards)

    def _tokenizer(self) -> str:
        """Returns the content of tokenizer.json: from an interrupted preparation, trained, or taken from elsewhere."""
        place, config = self.work / "tokenizer.json", self.config
        if place.is_file():
            self.total_bytes = json.loads((self.work / "corpus.json").read_text(encoding="utf-8"))["bytes"]
            return load_tokenizer(place).to_str(pretty=True)
        if config.tokenizer in KINDS:
            sample = self._sample()
            self.total_bytes = sample.seen
            self.progress(TRAINING, 0, None)
            train = partial(
                train_tokenizer, config.tokenizer, sample.texts(), config.vocab_size, sentinels=config.sentinels
            )
            tokenizer = in_background(train, lambda seconds: self.progress(TRAINING, int(seconds), None))
        else:
            tokenizer = adopt_tokenizer(_existing(config.tokenizer), config.sentinels)
        text = tokenizer.to_str(pretty=True)
        replace_file(self.work / "corpus.json", json.dumps({"bytes": self.total_bytes}).encode())
        replace_file(place, text.encode())
        return text

    def _sample(self) -> Sample:
        sample = Sample(self.config.sample_mb * 1_000_000)
        reported = 0
        for source in self.sources:
            for document in source.documents(source.reader(self.config.read_options())):
                for text in parts_of(document):
                    if text.strip():
                        sample.add(text)
                if sample.seen - reported >= SHARD_BYTES:
                    reported = sample.seen
                    self.progress("reading", reported, None)
        if not sample.seen:
            raise self._too_little("The sources hold no text.", "Check the paths and --field.")
        return sample

    def _encode(self, encoder: TextEncoder) -> tuple[list[SourceRecord], list[Path]]:
        """Encode all shards, a few at a time; complete shards of an interrupted preparation are reused."""
        ledger = [Ledger(source, self.config.licence) for source in self.sources]
        running: deque[Future[int]] = deque()
        paths: list[Path] = []
        done = 0
        with ThreadPoolExecutor(self.config.workers) as pool:
            try:
                for shard in self._shards(ledger):
                    paths.append(self.work / f"shard-{len(paths):06}.npz")
                    running.append(pool.submit(save_shard, paths[-1], shard, encoder))
                    while len(running) > self.config.workers:
                        done += running.popleft().result()
                        self.progress("encoding", done, self.total_bytes)
                while running:
                    done += running.popleft().result()
                    self.progress("encoding", done, self.total_bytes)
            finally:
                for future in running:
                    future.cancel()
        return [entry.record() for entry in ledger], paths

    def _shards(self, ledger: list[Ledger]) -> Iterator[Shard]:
        shard = Shard()
        # Pairs come last: the plain documents of a split are then its first, and can be read by themselves.
        for row, entry in sorted(enumerate(ledger), key=lambda place: place[1].source.parts):
            for document, tail in entry.documents(self.config.read_options(), self.config.validation_tail):
                shard.add(document, row, tail)
                if shard.bytes >= SHARD_BYTES:
                    yield shard
                    shard = Shard()
        if shard.documents:
            yield shard

    def _assemble(
        self, out: Path, encoder: TextEncoder, tokenizer_json: str, records: list[SourceRecord], shards: list[Path]
    ) -> None:
        by_key = self.config.validation_tail is None
        notes: list[str] = []
        chosen = self._held_out([load_keys(path) for path in shards], notes) if by_key else None
        writer = StoreWriter(self.work / "store", encoder.vocab_size, tokenizer_json)
        counts = np.zeros((2, len(records)), np.int64)
        for number, path in enumerate(shards):
            shard = load_shard(path)
            counts += encoder.count(shard.chunk, len(records))
            held_out = shard.tail if chosen is None else np.isin(shard.keys, chosen)
            writer.splits["validation"].append(shard.chunk.select(held_out))
            writer.splits["train"].append(shard.chunk.select(~held_out))
            self.progress("writing the store", number + 1, len(shards))
        if not all(split.documents for split in writer.splits.values()):
            raise UserError("The corpus is too short to be split.", "Give more text, or another --validation-tail.")
        options = self.config.model_dump(exclude=_NO_MATTER)
        kind = self.config.tokenizer if self.config.tokenizer in KINDS else "adopted"
        counted = [
            record.model_copy(update={"tokens": tokens, "unknown": unknown})
            for record, tokens, unknown in zip(records, *counts.tolist(), strict=True)
        ]
        writer.commit(out, counted, options, kind, self.config.overwrite, notes)

    def _held_out(self, keys: list[NDArray[np.uint64]], notes: list[str]) -> NDArray[np.uint64]:
        """Returns the content keys of the documents in validation: a share of them, at least one and never all.

        A key is a hash of the text: the split depends neither on order nor on workers, and equal documents stay
        together. Those that are more than the share are in training, and noted.
        """
        texts, counts = np.unique(np.concatenate([np.zeros(0, np.uint64), *keys]), return_counts=True)
        if not len(texts):
            raise self._too_little("The sources hold no text.", "Check the paths and --field.")
        if len(texts) == 1:
            raise self._too_little(
                "The corpus has only one distinct document, so none is left for validation.",
                "Give more documents, or cut it: --split-long 10000, or --text-mode paragraphs or lines.",
            )
        total = int(counts.sum())
        wanted = min(max(1, round(self.config.validation * total)), total - 1)
        chosen = groups_that_fit(counts, wanted)
        if not chosen.any():
            chosen[counts.argmin()] = True
        if chosen.all():
            chosen[-1] = False
        got, most = int(counts[chosen].sum()), int(counts.max())
        if most > wanted and not chosen[counts.argmax()]:
            notes.append(
                f"{most:,} documents are equal, more than the {wanted:,} for validation: they are in the training "
                "split."
            )
        if abs(got - wanted) > max(1, 0.1 * wanted):
            notes.append(
                f"{got:,} documents ({got / total:.1%}) are for validation instead of {wanted:,}: equal documents stay "
                "together."
            )
        return texts[chosen]

    def _too_little(self, message: str, hint: str) -> UserError:
        """Returns an error that says what was left out, too, for that may be the cause."""
        left_out = [f"Left out of {one.name}: {listed(one.left_out)}" for one in self.sources if one.left_out]
        return UserError(" ".join([message, *left_out]), hint)


def groups_that_fit(sizes: NDArray[np.int64], room: int) -> NDArray[np.bool_]:
    """Returns which groups are taken: each one, in their order, that still fits into `room`."""
    taken, begin = np.zeros(len(sizes), bool), 0
    while True:
        fits = begin + np.flatnonzero(sizes[begin:] <= room)
        # Those up to the first that no longer fits; it and all larger ones are passed over in the next round.
        some = fits[np.cumsum(sizes[fits]) <= room]
        if not len(some):
            return taken
        taken[some] = True
        room -= int(sizes[some].sum())
        begin = int(some[-1]) + 1


def _existing(tokenizer: str) -> Path:
    path = Path(tokenizer)
    if not path.exists():
        raise UserError(
            f"There is no tokenizer {tokenizer!r}.", f"Give {', '.join(KINDS)}, or the path of a tokenizer.json."
        )
    return path
