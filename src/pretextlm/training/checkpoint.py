"""Checkpoints that a kill, a full disk or a flipped bit cannot turn into a lost or silently wrong run.

A checkpoint is a directory, written under another name, hashed, flushed to the disk and then renamed; its manifest is
written last. Loading takes the newest one whose every byte is as its manifest says, and sets broken ones aside.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pretextlm.errors import UserError
from pretextlm.files import flush

MODEL, OPTIMIZER, STATE, MANIFEST = "model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """Attributes: directory; step; state: the trainer's plain values."""

    directory: Path
    step: int
    state: dict[str, Any]

    def model(self) -> dict[str, Tensor]:
        """The weights by name."""
        return load_file(self.directory / MODEL)

    def optimizer(self) -> dict[str, Tensor]:
        """The optimizer's state by name."""
        return load_file(self.directory / OPTIMIZER)


def save(
    parent: Path,
    step: int,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    state: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write one checkpoint whole, then remove the oldest beyond `keep`. Raises UserError when the disk is full."""
    final = parent / f"step-{step:08d}"
    if final.exists():
        return final
    partial = parent / f".{final.name}.tmp-{os.getpid()}"
    try:
        parent.mkdir(exist_ok=True)
        sweep(parent)
        _require_space(parent, model, optimizer)
        _write(partial, step, model, optimizer, state)
        partial.rename(final)
        flush(parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(
            f"Cannot write the checkpoint {final}: {getattr(error, 'strerror', None) or error}.",
            "Earlier checkpoints are untouched. Free some space, then go on with --resume.",
        ) from None
    for old in steps(parent)[:-keep]:
        shutil.rmtree(old)
    return final


def _write(
    directory: Path, step: int, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: Mapping[str, Any]
) -> None:
    directory.mkdir()
    save_file(_contiguous(model), directory / MODEL)
    save_file(_contiguous(optimizer), directory / OPTIMIZER)
    (directory / STATE).write_text(json.dumps(dict(state), indent=1))
    files = {name: _digest(directory / name) for name in (MODEL, OPTIMIZER, STATE)}
    (directory / MANIFEST).write_text(json.dumps({"step": step, "files": files}, indent=1))
    for path in [*directory.iterdir(), directory]:
        flush(path)


def steps(parent: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(p for p in parent.glob("step-*") if p.is_dir() and p.name.removeprefix("step-").isdigit())


def newest(parent: Path, quarantine: bool = False) -> Checkpoint | None:
    """The newest checkpoint that verifies; None when there is none at all.

    Args:
        quarantine: rename broken ones to NAME.corrupt, so that training can write that step again.

    Raises:
        UserError: there are checkpoints, and every one is broken; each reason is listed.
    """
    faults = []
    for directory in reversed(steps(parent)):
        fault = verify(directory)
        if fault is None:
            state = json.loads((directory / STATE).read_text())
            return Checkpoint(directory, int(directory.name.removeprefix("step-")), state)
        faults.append(f"{directory.name}: {fault}")
        if quarantine:
            directory.rename(directory.with_name(directory.name + ".corrupt"))
    if faults:
        raise UserError(
            f"No checkpoint under {parent} can be used: {'; '.join(faults)}.",
            "Nothing was deleted. Train again into another directory, or bring the files back from a copy.",
        )
    return None


def verify(directory: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        files = json.loads((directory / MANIFEST).read_text())["files"]
        for name in (MODEL, OPTIMIZER, STATE):
            if _digest(directory / name) != files[name]:
                return f"{name} is not as it was written"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def sweep(parent: Path) -> None:
    """Remove what killed writers left behind."""
    for litter in parent.glob(".step-*.tmp-*"):
        shutil.rmtree(litter, ignore_errors=True)


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _require_space(parent: Path, *tensors: Mapping[str, Tensor]) -> None:
    needed = sum(t.numel() * t.element_size() for group in tensors for t in group.values())
    free = shutil.disk_usage(parent).free
    if free < 1.1 * needed:
        raise OSError(errno.ENOSPC, f"it needs {needed / 1e6:.1f} MB and {free / 1e6:.1f} MB are free")


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
