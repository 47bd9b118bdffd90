"""The oldest checkpoint goes only after the new one is whole, and a kill in between costs nothing."""

import os
import shutil
from contextlib import suppress

import pytest
import torch

from pretextlm.training import checkpoint
from pretextlm.training.checkpoint import newest, save, steps, verify

MODEL = {"embed.weight": torch.arange(400.0).view(20, 20)}
OPTIMIZER = {"adamw.0.exp_avg": torch.ones(20, 20)}


class Killed(BaseException):
    """What a kill is to code that cannot catch it."""


def write(parent, step, keep=2):
    return save(parent, step, MODEL, OPTIMIZER, {"step": step}, keep)


def events(parent, step, monkeypatch):
    """Everything that a save does to the file system's names, in order, with the checkpoints that verify by then."""
    seen = []
    for owner, name in ((os, "replace"), (os, "rename"), (os, "rmdir"), (os, "unlink"), (shutil, "rmtree")):
        original = getattr(owner, name)

        def noted(*of, _original=original, _name=name, **options):
            seen.append((_name, [path.name for path in steps(parent) if verify(path) is None]))
            return _original(*of, **options)

        monkeypatch.setattr(owner, name, noted)
    write(parent, step)
    return seen


def test_at_every_moment_of_a_save_as_many_checkpoints_verify_as_are_kept(tmp_path, monkeypatch):
    for step in (1, 2):
        write(tmp_path, step)
    seen = events(tmp_path, 3, monkeypatch)
    assert len(seen) >= 3
    assert all(len(sound) >= 2 for _, sound in seen)
    assert [path.name for path in steps(tmp_path)] == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("moment", range(12))
def test_a_kill_at_any_moment_of_a_save_or_of_retention_does_no_harm(tmp_path, monkeypatch, moment):
    for step in (1, 2):
        write(tmp_path, step)
    left = [moment]

    def counted(original):
        def act(*of, **options):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return original(*of, **options)

        return act

    with monkeypatch.context() as patch:
        for owner, name in ((os, "rename"), (os, "rmdir"), (os, "unlink"), (os, "fsync"), (os, "mkdir")):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        patch.setattr(checkpoint, "save_file", counted(checkpoint.save_file))
        with suppress(Killed):
            write(tmp_path, 3)
    found = newest(tmp_path)
    assert found.step in (2, 3)
    assert found.faults == ()
    write(tmp_path, 4)
    assert newest(tmp_path).step == 4
    assert len(steps(tmp_path)) == 2
    assert not list(tmp_path.glob(".*"))


def test_a_checkpoint_that_cannot_be_removed_does_not_end_a_run(tmp_path, monkeypatch):
    for step in (1, 2):
        write(tmp_path, step)

    def refused(self, *_):
        raise PermissionError(13, "Permission denied", str(self))

    rename = type(tmp_path).rename

    def renamed(self, target):
        return refused(self) if self.name == "step-00000001" else rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "rename", renamed)
        write(tmp_path, 3)
    assert newest(tmp_path).step == 3
    write(tmp_path, 4)
    assert [path.name for path in steps(tmp_path)] == ["step-00000003", "step-00000004"]
