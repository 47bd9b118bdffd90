"""A checkpoint comes back as it was, and only the newest stay; tests/faults breaks them in every way."""

import errno

import pytest
import torch

from pretextlm.errors import UserError
from pretextlm.training import checkpoint
from pretextlm.training.checkpoint import newest, save, steps

MODEL = {"embed.weight": torch.arange(400.0).view(20, 20)}
OPTIMIZER = {"adamw.0.step": torch.tensor(3.0), "adamw.0.exp_avg": torch.ones(20, 20)}


def write(parent, step, keep=9):
    return save(parent, step, MODEL, OPTIMIZER, {"step": step, "window": {"loss": 0.1 + 0.2}}, keep)


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    write(tmp_path, 7)
    found = newest(tmp_path)
    assert found.step == 7
    assert found.state == {"step": 7, "window": {"loss": 0.1 + 0.2}}
    assert torch.equal(found.model()["embed.weight"], MODEL["embed.weight"])
    assert torch.equal(found.optimizer()["adamw.0.exp_avg"], OPTIMIZER["adamw.0.exp_avg"])


def test_only_the_newest_are_kept_and_litter_of_killed_writers_goes(tmp_path):
    (tmp_path / ".step-00000002.tmp-99").mkdir()
    for step in (1, 2, 3, 4):
        write(tmp_path, step, keep=2)
    assert [p.name for p in tmp_path.iterdir()] == [p.name for p in steps(tmp_path)]
    assert [p.name for p in steps(tmp_path)] == ["step-00000003", "step-00000004"]


def test_quarantine_makes_room_for_the_step_to_be_written_again(tmp_path):
    write(tmp_path, 1)
    (write(tmp_path, 2) / "model.safetensors").unlink()
    assert newest(tmp_path, quarantine=True).step == 1
    assert (tmp_path / "step-00000002.corrupt").is_dir()
    assert newest(tmp_path).step == 1
    write(tmp_path, 2)
    assert newest(tmp_path).step == 2


@pytest.mark.parametrize("fails_at", ["save_file", "hashlib.file_digest", "flush", "create_partial"])
def test_a_full_disk_leaves_earlier_checkpoints_and_no_litter(tmp_path, monkeypatch, fails_at):
    write(tmp_path, 1)

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"{checkpoint.__name__}.{fails_at}", full)
        with pytest.raises(UserError, match="No space left") as caught:
            write(tmp_path, 2)
    assert "--resume" in caught.value.hint
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    assert newest(tmp_path).step == 1
