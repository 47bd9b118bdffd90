"""No broken checkpoint is ever read, in either of its two forms; the one before it is, and it is told why."""

import hashlib
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from pretextlm.errors import UserError
from pretextlm.training import checkpoint, sharded_checkpoint
from pretextlm.training.checkpoint import newest, verify

pytestmark = pytest.mark.filterwarnings("ignore:.*is used instead")
FORMS = ["whole", "in parts"]
FLIPS, TRUNCATIONS = 100, 20
MODEL = {"embed.weight": torch.arange(400.0).view(20, 20), "norm.weight": torch.ones(20)}
OPTIMIZER = {"adamw.0.step": torch.tensor(3.0), "adamw.0.exp_avg": torch.ones(20, 20)}


def write(form, parent, step, processes, scale=1.0):
    model = {name: tensor * scale for name, tensor in MODEL.items()}
    if form == "whole":
        return checkpoint.save(parent, step, model, OPTIMIZER, {"step": step}, 9)
    final = checkpoint.checkpoint_path(parent, step)
    partial = checkpoint.create_partial(parent, step, 1)
    groups = {"model": model, "optimizer": OPTIMIZER}
    sharded_checkpoint.write(partial / checkpoint.PARTS, groups, ThreadPoolExecutor(1), processes).result()
    checkpoint.finish(partial, final, {"step": step}, 9)
    return final


@pytest.fixture(params=FORMS)
def pair(request, tmp_path, processes):
    """Two checkpoints of one run, and a copy of the newer one."""
    older = write(request.param, tmp_path / "run", 1, processes, scale=2.0)
    newer = write(request.param, tmp_path / "run", 2, processes)
    shutil.copytree(newer, tmp_path / "copy")
    return older, newer, tmp_path / "copy"


def files(directory):
    return sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())


def restore(newer, copy):
    shutil.rmtree(newer)
    shutil.copytree(copy, newer)


def assert_found(older, newer, name):
    """The fault is seen, named, and costs one checkpoint."""
    reason = verify(newer)
    assert reason is not None, name
    with pytest.warns(UserWarning, match=re.escape(reason)):
        found = newest(newer.parent)
    assert found.directory == older
    assert found.faults == (f"{newer.name}: {reason}",)
    if name.name != checkpoint.MANIFEST:  # a digest that is broken speaks of the file it belongs to
        assert name.as_posix() in reason


def test_every_flipped_bit_is_found(pair):
    older, newer, copy = pair
    rng, names = np.random.default_rng(0), files(newer)
    for number in range(FLIPS):
        name = names[number % len(names)]
        data = bytearray((copy / name).read_bytes())
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        (newer / name).write_bytes(data)
        assert_found(older, newer, name)
        (newer / name).write_bytes((copy / name).read_bytes())
    assert newest(newer.parent).directory == newer


def test_every_truncation_is_found(pair):
    older, newer, copy = pair
    rng, names = np.random.default_rng(1), files(newer)
    for number in range(TRUNCATIONS):
        name = names[number % len(names)]
        data = (copy / name).read_bytes()
        (newer / name).write_bytes(data[: int(rng.integers(len(data)))])
        assert_found(older, newer, name)
        (newer / name).write_bytes(data)


@pytest.mark.parametrize("fault", ["missing", "empty", "longer", "a directory"])
def test_every_file_that_is_not_there_as_written_is_found(pair, fault):
    older, newer, copy = pair
    for name in files(copy):
        if fault == "longer":
            with (newer / name).open("ab") as file:
                file.write(b"\0")
        elif fault == "empty":
            (newer / name).write_bytes(b"")
        else:
            (newer / name).unlink()
            if fault == "a directory":
                (newer / name).mkdir()
        assert_found(older, newer, name)
        restore(newer, copy)


def test_files_swapped_between_checkpoints_are_found(pair):
    older, newer, copy = pair
    for name in files(copy):
        if (older / name).read_bytes() != (copy / name).read_bytes():
            shutil.copyfile(older / name, newer / name)
            assert_found(older, newer, name)
            restore(newer, copy)


def test_a_checkpoint_under_the_name_of_another_step_is_found(pair):
    older, newer, _ = pair
    shutil.rmtree(newer)
    shutil.copytree(older, newer)
    assert verify(newer) == "state.json is of another step"
    assert newest(newer.parent).directory == older


def test_a_checkpoint_that_is_an_empty_directory_or_a_file_is_not_taken(pair):
    older, newer, _ = pair
    shutil.rmtree(newer)
    newer.mkdir()
    assert newest(newer.parent).directory == older
    newer.rmdir()
    newer.write_text("")
    assert newest(newer.parent).directory == older


def test_an_error_of_the_disk_while_reading_is_a_fault_of_that_checkpoint(pair, monkeypatch):
    older, newer, _ = pair
    digest = hashlib.file_digest

    def failing(file, name):
        if newer in Path(file.name).parents:
            raise OSError(5, os.strerror(5), file.name)
        return digest(file, name)

    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", failing)
        found = newest(newer.parent)
    assert found.directory == older
    assert "Input/output error" in found.faults[0]


def test_when_all_are_broken_each_reason_is_told_and_nothing_is_deleted_or_renamed_however_often_it_is_tried(pair):
    older, newer, _ = pair
    for directory in (older, newer):
        (directory / "state.json").write_text("{}")
    before = sorted(newer.parent.rglob("*"))
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            newest(newer.parent, quarantine=True)
        for directory in (older, newer):
            assert f"{directory.name}: state.json does not match its hash" in caught.value.message
        assert "Nothing was deleted" in caught.value.hint
        assert sorted(newer.parent.rglob("*")) == before


def test_a_step_that_breaks_twice_is_set_aside_twice(pair):
    older, newer, copy = pair
    for name in ("step-00000002.corrupt", "step-00000002.corrupt1"):
        (newer / "state.json").write_text(json.dumps({"step": 3}))
        assert newest(newer.parent, quarantine=True).directory == older
        assert (newer.parent / name).is_dir()
        shutil.copytree(copy, newer)
    assert newest(newer.parent).directory == newer


def test_reading_back_a_gigabyte_takes_less_than_two_seconds_of_hashing(tmp_path):
    """What a fall-back costs is the hashing of the broken one and of the one before."""
    import time

    (tmp_path / "run").mkdir()
    size = 64 << 20
    tensor = {"w": torch.zeros(size // 4)}
    checkpoint.save(tmp_path / "run", 1, tensor, {}, {"step": 1}, 2)
    start = time.process_time()
    assert verify(tmp_path / "run" / "step-00000001") is None
    assert (time.process_time() - start) * (1 << 30) / size < 2.0
