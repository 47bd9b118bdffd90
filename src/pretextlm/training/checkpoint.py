"""Checkpoints that a killed process, a full disk or a flipped bit cannot turn into a lost or silently wrong run.

A checkpoint is a directory that is written under a temporary name, hashed, flushed to disk and then renamed; its
manifest is written last. Loading takes the newest checkpoint whose every byte matches its manifest, and renames
broken ones.

    model.safetensors  optimizer.safetensors  state.json  manifest.json     of replicated weights
    parts/             state.json             manifest.json                 of sharded weights (sharded_checkpoint.py)
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pretextlm.errors import UserError
from pretextlm.files import CannotWrite, flush
from pretextlm.plain_files import open_plain, parse_json, read_json, read_text
from pretextlm.training import sharded_checkpoint

MODEL, OPTIMIZER, STATE, MANIFEST = "model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"
PARTS = "parts"
PICKLE = ".metadata"
"""Index of sharded checkpoints written by torch.distributed.checkpoint, as this package did before."""
REPLACED = ".replaced"
"""Suffix of a checkpoint while another one of its step takes its place."""
NAME = re.compile(r"step-(\d+)(\.replaced)?")
LISTED_AGAIN = (0.0, 0.01, 0.05, 0.2)
"""Seconds before the checkpoints are listed again if none was found."""
MARGIN = 1.1
"""Required free space, as a multiple of the checkpoint's size."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that verifies.

    Attributes:
        directory: of the checkpoint.
        step: at which it was written.
        state: plain values of the trainer.
        faults: why newer checkpoints were not used.
        held: open file whose lock keeps a training from removing the checkpoint as long as this object lives.
    """

    directory: Path
    step: int
    state: dict[str, Any]
    faults: tuple[str, ...] = ()
    held: IO[bytes] | None = field(default=None, repr=False, compare=False)

    @property
    def used(self) -> dict[str, Any]:
        """Returns what results say of the weights: their step, and why newer ones were not used."""
        return {"step": self.step, **({"broken_checkpoints": list(self.faults)} if self.faults else {})}

    @property
    def fallback(self) -> dict[str, Any]:
        """Returns the same if newer checkpoints were not used, else nothing."""
        return self.used if self.faults else {}

    @property
    def is_sharded(self) -> bool:
        """Whether it holds sharded weights."""
        return (self.directory / PARTS).is_dir()

    def model(self) -> dict[str, Tensor]:
        """Returns the complete weights by name.

        Raises:
            UserError: the files hold something else.
        """
        return self._tensors("model", MODEL)

    def optimizer(self) -> dict[str, Tensor]:
        """Returns the complete optimizer state by name.

        Raises:
            UserError: the files hold something else.
        """
        return self._tensors("optimizer", OPTIMIZER)

    def _tensors(self, group: str, file: str) -> dict[str, Tensor]:
        with content_errors(self.directory):
            if self.is_sharded:
                return sharded_checkpoint.read(self.directory / PARTS, group)
            return load_file(self.directory / file)

    def read_into(self, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
        """Fills tensors in place. The number of processes may differ from that of the writers; all of them call this.

        Args:
            model: replicated or sharded weights by name.
            optimizer: replicated or sharded optimizer state by name; may be empty.

        Raises:
            UserError: the files hold other tensors.
        """
        with content_errors(self.directory):
            if self.is_sharded:
                sharded_checkpoint.read_into(self.directory / PARTS, {"model": model, "optimizer": optimizer})
                return
            for targets, file in ((model, MODEL), (optimizer, OPTIMIZER)):
                if targets:
                    sharded_checkpoint.fill(targets, load_file(self.directory / file))


def save(
    parent: Path,
    step: int,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    state: Mapping[str, Any],
    keep: int,
) -> Path:
    """Writes a checkpoint of replicated weights, then removes the oldest ones.

    Args:
        parent: directory of the checkpoints.
        step: of the checkpoint.
        model: weights by name.
        optimizer: optimizer state by name.
        state: plain values of the trainer.
        keep: number of newest checkpoints that stay.

    Returns:
        Directory of the checkpoint. One of the same state is left as it is, one of another state replaced.

    Raises:
        UserError: the disk is full or fails.
    """
    final = checkpoint_path(parent, step)
    if has_state(final, state):
        return final
    size = size_of(model) + size_of(optimizer)
    with disk_errors(final, size):
        partial = create_partial(parent, step, size)
        save_file(_contiguous(model), partial / MODEL)
        save_file(_contiguous(optimizer), partial / OPTIMIZER)
        finish(partial, final, state, keep)
    return final


def checkpoint_path(parent: Path, step: int) -> Path:
    """Returns the directory of the checkpoint of a step."""
    return parent / f"step-{step:08d}"


def has_state(directory: Path, state: Mapping[str, Any]) -> bool:
    """Returns whether a checkpoint was written with this state of the trainer."""
    try:
        text = read_text(directory / STATE)
    except (OSError, ValueError):
        return False
    return text == _state_text(state)


def _state_text(state: Mapping[str, Any]) -> str:
    return json.dumps(dict(state), indent=1)


def create_partial(parent: Path, step: int, size: int) -> Path:
    """Creates a temporary directory for a checkpoint.

    Args:
        parent: directory of the checkpoints.
        step: of the checkpoint.
        size: bytes of the checkpoint.

    Raises:
        OSError: they do not fit on the disk.
    """
    parent.mkdir(exist_ok=True)
    sweep(parent)
    free = shutil.disk_usage(parent).free
    if free < MARGIN * size:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}, {free:,} bytes are free")
    partial = parent / f".{checkpoint_path(parent, step).name}.tmp-{os.getpid()}"
    partial.mkdir()
    return partial


def finish(partial: Path, final: Path, state: Mapping[str, Any], keep: int) -> None:
    """Hashes and flushes the files, gives the checkpoint its final name, and removes the oldest ones.

    Args:
        partial: the temporary directory.
        final: the final one.
        state: plain values of the trainer.
        keep: number of newest checkpoints that stay.

    Raises:
        OSError: the disk is full or fails.
    """
    (partial / STATE).write_text(_state_text(state), encoding="utf-8")
    write_manifest(partial)
    for path in [*_files(partial), partial / MANIFEST, *(p for p in partial.rglob("*") if p.is_dir()), partial]:
        flush(path)
    replaced = final.with_name(final.name + REPLACED)
    if final.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        final.rename(replaced)
    partial.rename(final)
    flush(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)
    for old in steps(final.parent)[:-keep]:
        remove(old)


def remove(directory: Path) -> None:
    """Removes a checkpoint, unless another process reads it: then it goes with a later one.

    It is renamed first: a half-deleted directory must not look like a checkpoint.
    """
    litter = directory.with_name(f".{directory.name}.tmp-{os.getpid()}")
    with suppress(OSError), open_plain(directory / MANIFEST) as manifest:
        fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
        directory.rename(litter)
    shutil.rmtree(litter, ignore_errors=True)


def hold(directory: Path) -> IO[bytes] | None:
    """Locks a checkpoint for reading, so that `remove` leaves it until the file is closed.

    Returns:
        The open file that has the lock; None if the checkpoint is no longer there, or has no manifest.
    """
    try:
        manifest = open_plain(directory / MANIFEST)
    except OSError:
        return None
    with suppress(OSError):  # file systems without locks: the checkpoint may go while it is read
        fcntl.flock(manifest, fcntl.LOCK_SH)
    if directory.is_dir():
        return manifest
    manifest.close()  # removed before the lock was there
    return None


def write_manifest(directory: Path) -> None:
    """Writes the manifest of a checkpoint: the size and SHA-256 of each of its files."""
    files = {path.relative_to(directory).as_posix(): _digest(path) for path in _files(directory)}
    (directory / MANIFEST).write_text(_manifest(files))


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() and path != directory / MANIFEST)


@contextmanager
def disk_errors(final: Path, size: int) -> Iterator[None]:
    """Turns errors of the disk within the block into a UserError and removes the temporary directory.

    Raises:
        CannotWrite: the checkpoint could not be written.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        for litter in final.parent.glob(f".{final.name}.tmp-{os.getpid()}"):
            shutil.rmtree(litter, ignore_errors=True)
        hint = "Earlier checkpoints are untouched. Free space or replace the disk, then use --resume."
        raise CannotWrite(final, error, hint, size) from None


@contextmanager
def content_errors(directory: Path) -> Iterator[None]:
    """Turns errors within the block into a UserError: files that match their hashes, but hold other tensors.

    Raises:
        UserError: the tensors could not be used.
    """
    try:
        yield
    except (SafetensorError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{directory} does not hold the tensors of this model: {_reason(error)}.",
            "The checkpoint or the recipe is of another run: restore both from a copy.",
        ) from None


def _reason(error: BaseException) -> str:
    """Returns the reason in one line."""
    lines = (getattr(error, "strerror", None) or str(error)).strip().splitlines() or [type(error).__name__]
    return lines[-1]


def steps(parent: Path) -> list[Path]:
    """Returns the directories of finished checkpoints, oldest first.

    One that was being replaced when the process was killed counts until its replacement has its name.
    """
    found = sorted(p for p in parent.glob("step-*") if NAME.fullmatch(p.name) and p.is_dir())
    names = {p.name for p in found}
    return [p for p in found if not p.name.endswith(REPLACED) or p.name.removesuffix(REPLACED) not in names]


def newest(parent: Path, quarantine: bool = False) -> Checkpoint | None:
    """Finds the newest checkpoint that verifies, and holds it for reading.

    Args:
        parent: directory of the checkpoints.
        quarantine: rename newer ones that are broken to NAME.corrupt, so that training can write those steps again.
            The checkpoint is not held: training alone removes checkpoints.

    Returns:
        The checkpoint; None if there are none at all.

    Raises:
        UserError: there are checkpoints, but every one is broken; the message lists the reasons.
    """
    for patience in LISTED_AGAIN:
        found, faults = _newest(parent)
        if found is not None or faults or not parent.is_dir():
            break
        time.sleep(patience)  # a training may have written and removed one while the directory was listed
    if found is None and faults:
        raise UserError(
            f"No checkpoint under {parent} can be used: {'; '.join(faults.values())}.",
            "Nothing was deleted. Train again into another directory, or restore the files from a copy.",
        )
    for broken, reason in faults.items():
        if quarantine:
            set_aside(broken)
        elif found is not None:
            warnings.warn(f"{parent}: {reason}; {found.directory.name} is used instead.", stacklevel=2)
    return replace(found, held=None) if quarantine and found is not None else found


def _newest(parent: Path) -> tuple[Checkpoint | None, dict[Path, str]]:
    """Returns the newest checkpoint that verifies, and why each newer one does not; removed ones are passed over."""
    faults: dict[Path, str] = {}
    for directory in reversed(steps(parent)):
        held = hold(directory)
        fault = verify(directory)
        if fault is None:
            state = read_json(directory / STATE)
            reasons = tuple(faults.values())
            return Checkpoint(directory, _step(directory), state, reasons, held), faults
        if directory.is_dir():
            faults[directory] = f"{directory.name}: {fault}"
    return None, faults


def verify(directory: Path) -> str | None:
    """Returns the reason why a checkpoint is broken, or None."""
    try:
        text = read_text(directory / MANIFEST)
        files = parse_json(text)
        if text != _manifest(files):
            return f"{MANIFEST} was changed"
        if f"{PARTS}/{PICKLE}" in files:
            return f"{PARTS}/{PICKLE}, written by an older version, is a pickle, which is not read"
        for name in _required(directory, files):
            if name not in files:
                return f"{MANIFEST} does not list {name}"
        for name, digest in files.items():
            if not (directory / name).is_file():
                return f"{name} is missing"
            if _digest(directory / name) != digest:
                return f"{name} does not match its hash"
        if read_json(directory / STATE).get("step", _step(directory)) != _step(directory):
            return f"{STATE} is of another step"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{error.filename or directory}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({type(error).__name__}: {error})"
    return None


def _required(directory: Path, files: Mapping[str, Any]) -> list[str]:
    """Returns names that the manifest must list; among the shards, one that is missing if any is."""
    if not (directory / PARTS).is_dir():
        return [MODEL, OPTIMIZER, STATE]
    inside = (name.removeprefix(f"{PARTS}/") for name in files)
    missing = sharded_checkpoint.missing_files(inside)
    return [STATE] if missing is None else [STATE, f"{PARTS}/{missing}"]


def _step(directory: Path) -> int:
    return int(directory.name.removeprefix("step-").removesuffix(REPLACED))


def set_aside(broken: Path) -> None:
    """Renames a broken checkpoint to a free name, even if the same step was broken before."""
    names = (broken.with_name(f"{broken.name}.corrupt{number or ''}") for number in itertools.count())
    broken.rename(next(name for name in names if not name.exists()))


def sweep(parent: Path) -> None:
    """Removes what killed processes left: temporary directories, and checkpoints that were replaced."""
    for litter in [*parent.glob(".step-*.tmp-*"), *set(parent.glob(f"step-*{REPLACED}")).difference(steps(parent))]:
        shutil.rmtree(litter, ignore_errors=True)


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def size_of(tensors: Mapping[str, Tensor]) -> int:
    """Returns the bytes that this process holds of the tensors."""
    return sum(t.numel() * t.element_size() for t in sharded_checkpoint.local_shards(tensors.values()))


def _manifest(files: Mapping[str, Any]) -> str:
    """Returns the manifest's text in canonical form, so that any change to it is detected."""
    return json.dumps(dict(files), indent=1, sort_keys=True)


def _digest(path: Path) -> dict[str, Any]:
    with open_plain(path) as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
