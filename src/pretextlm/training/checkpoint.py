"""Checkpoints that a kill, a full disk or a flipped bit cannot turn into a lost or silently wrong run.

A checkpoint is a directory, written under another name, hashed, flushed to the disk and then renamed; its manifest is
written last. Loading takes the newest one whose every byte is as its manifest says, and sets broken ones aside.

    model.safetensors  optimizer.safetensors  state.json  manifest.json     of weights that every process has
    parts/             state.json             manifest.json                 of weights spread over processes (parts.py)
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pretextlm.errors import UserError
from pretextlm.files import flush
from pretextlm.training import sharded_checkpoint as parts

MODEL, OPTIMIZER, STATE, MANIFEST = "model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"
PARTS = "parts"
MARGIN = 1.1
"""Free space asked for, as a multiple of what is to be written."""


@dataclass(frozen=True)
class Checkpoint:
    """Attributes: directory; step; state: the trainer's plain values; faults: what is wrong with newer ones."""

    directory: Path
    step: int
    state: dict[str, Any]
    faults: tuple[str, ...] = ()

    @property
    def in_parts(self) -> bool:
        """Whether it was written by processes that each had a part of the weights."""
        return (self.directory / PARTS).is_dir()

    def model(self) -> dict[str, Tensor]:
        """The weights by name, whole."""
        return parts.read(self.directory / PARTS, "model") if self.in_parts else load_file(self.directory / MODEL)

    def optimizer(self) -> dict[str, Tensor]:
        """The optimizer's state by name, whole."""
        if self.in_parts:
            return parts.read(self.directory / PARTS, "optimizer")
        return load_file(self.directory / OPTIMIZER)

    def read_into(self, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
        """Fill tensors, whole ones or parts, on any number of processes, all of which call this."""
        if self.in_parts:
            parts.read_into(self.directory / PARTS, {"model": model, "optimizer": optimizer})
            return
        for targets, file in ((model, MODEL), (optimizer, OPTIMIZER)):
            if targets:
                parts.fill(targets, load_file(self.directory / file))


def save(
    parent: Path,
    step: int,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    state: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write one checkpoint whole, then remove the oldest beyond `keep`. Raises UserError when the disk is full."""
    final = place(parent, step)
    if final.exists():
        return final
    size = size_of(model) + size_of(optimizer)
    with told(final, size):
        partial = begin(parent, step, size)
        save_file(_contiguous(model), partial / MODEL)
        save_file(_contiguous(optimizer), partial / OPTIMIZER)
        finish(partial, final, state, keep)
    return final


def place(parent: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return parent / f"step-{step:08d}"


def begin(parent: Path, step: int, size: int) -> Path:
    """An empty directory to write a checkpoint of so many bytes into. Raises OSError where they do not fit."""
    parent.mkdir(exist_ok=True)
    sweep(parent)
    free = shutil.disk_usage(parent).free
    if free < MARGIN * size:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}, {free:,} bytes are free")
    partial = parent / f".{place(parent, step).name}.tmp-{os.getpid()}"
    partial.mkdir()
    return partial


def finish(partial: Path, final: Path, state: Mapping[str, Any], keep: int) -> None:
    """Hash and flush what was written, give it its name, and remove the oldest checkpoints. Raises OSError."""
    (partial / STATE).write_text(json.dumps(dict(state), indent=1))
    written = sorted(path for path in partial.rglob("*") if path.is_file())
    files = {path.relative_to(partial).as_posix(): _digest(path) for path in written}
    (partial / MANIFEST).write_text(_manifest(files))
    for path in [*written, partial / MANIFEST, *(p for p in partial.rglob("*") if p.is_dir()), partial]:
        flush(path)
    partial.rename(final)
    flush(final.parent)
    for old in steps(final.parent)[:-keep]:
        # Under a name that nobody reads, so that half of it is never taken for a checkpoint.
        litter = old.with_name(f".{old.name}.tmp-{os.getpid()}")
        with suppress(OSError):
            old.rename(litter)
        shutil.rmtree(litter, ignore_errors=True)


@contextmanager
def told(final: Path, size: int) -> Iterator[None]:
    """Turn what the disk says into a UserError, after which nothing half-written is left."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, parts.failure()) as error:
        for litter in final.parent.glob(f".{final.name}.tmp-{os.getpid()}"):
            shutil.rmtree(litter, ignore_errors=True)
        raise UserError(
            f"Cannot write the checkpoint {final}, which needs {size:,} bytes: {_reason(error)}.",
            "Earlier checkpoints are untouched. Free space or replace the disk, then use --resume.",
        ) from None


def _reason(error: BaseException) -> str:
    """In one line. torch, which writes parts, says of a disk that takes no more only where it stands in the file."""
    lines = (getattr(error, "strerror", None) or str(error)).strip().splitlines() or [type(error).__name__]
    return (
        "a file was cut short; no space is left, or a quota is reached" if "unexpected pos" in lines[-1] else lines[-1]
    )


def steps(parent: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(p for p in parent.glob("step-*") if p.is_dir() and p.name.removeprefix("step-").isdigit())


def newest(parent: Path, quarantine: bool = False) -> Checkpoint | None:
    """The newest checkpoint that verifies; None when there is none at all.

    Args:
        quarantine: rename broken ones that are newer to NAME.corrupt, so that training can write those steps again.

    Raises:
        UserError: there are checkpoints, and every one is broken; each reason is listed.
    """
    faults: dict[Path, str] = {}
    for directory in reversed(steps(parent)):
        fault = verify(directory)
        if fault is None:
            state = json.loads((directory / STATE).read_text())
            for broken, reason in faults.items():
                if quarantine:
                    _set_aside(broken)
                else:
                    warnings.warn(f"{parent}: {reason}; {directory.name} is used instead.", stacklevel=2)
            return Checkpoint(directory, _step(directory), state, tuple(faults.values()))
        faults[directory] = f"{directory.name}: {fault}"
    if faults:
        raise UserError(
            f"No checkpoint under {parent} can be used: {'; '.join(faults.values())}.",
            "Nothing was deleted. Train again into another directory, or bring the files back from a copy.",
        )
    return None


def verify(directory: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        text = (directory / MANIFEST).read_text(encoding="utf-8")
        files = json.loads(text)
        if text != _manifest(files):
            return f"{MANIFEST} is not as it was written"
        for name in (STATE, f"{PARTS}/{parts.INDEX}") if (directory / PARTS).is_dir() else (MODEL, OPTIMIZER, STATE):
            if name not in files:
                return f"{MANIFEST} says nothing of {name}"
        for name, digest in files.items():
            if not (directory / name).is_file():
                return f"{name} is missing"
            if _digest(directory / name) != digest:
                return f"{name} is not as it was written"
        if json.loads((directory / STATE).read_text()).get("step", _step(directory)) != _step(directory):
            return f"{STATE} is of another step"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{error.filename or directory}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({type(error).__name__}: {error})"
    return None


def _step(directory: Path) -> int:
    return int(directory.name.removeprefix("step-"))


def _set_aside(broken: Path) -> None:
    """Under another name, also where that step was broken before."""
    names = (broken.with_name(f"{broken.name}.corrupt{number or ''}") for number in itertools.count())
    broken.rename(next(name for name in names if not name.exists()))


def sweep(parent: Path) -> None:
    """Remove what killed writers left behind."""
    for litter in parent.glob(".step-*.tmp-*"):
        shutil.rmtree(litter, ignore_errors=True)


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def size_of(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of what this process holds of them."""
    return sum(t.numel() * t.element_size() for t in parts.local_shards(tensors.values()))


def _manifest(files: Mapping[str, Any]) -> str:
    """One form only, so that a change anywhere in it is seen."""
    return json.dumps(dict(files), indent=1, sort_keys=True)


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
