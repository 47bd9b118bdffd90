"""Running out of memory: an error that says what was asked for, and what there is."""

import numpy as np
import pytest
import torch
from tests.builders import make_store
from tests.faults.harness import values

from pretextlm import memory as module
from pretextlm.errors import UserError
from pretextlm.evaluation.evaluate import evaluate
from pretextlm.evaluation.fill import fill
from pretextlm.evaluation.generate import generate
from pretextlm.evaluation.predict import predict
from pretextlm.evaluation.sliding_window import evaluate_text
from pretextlm.memory import ensure_memory, is_out_of_memory, memory, memory_errors
from pretextlm.model.attention import cross_attention_mask
from pretextlm.training.memory_estimate import MemoryEstimate
from pretextlm.training.memory_plan import MemoryPlan, refuse_too_large
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run

CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79 GiB of which 1.50 GiB is free."
)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A machine with 300 MB of free memory and swap."""
    (tmp_path / "meminfo").write_text("MemTotal:  4000000 kB\nMemAvailable:  200000 kB\nSwapFree:  100000 kB\n")
    monkeypatch.setattr(module, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(module, "CGROUP_LIMIT", tmp_path / "max")


def test_memory_is_no_more_than_a_containers_limit(small, tmp_path, monkeypatch):
    assert memory("MemTotal") == 4_000_000 * 1024
    (tmp_path / "max").write_text("2048\n")
    assert memory("MemTotal") == 2048
    monkeypatch.setattr(module, "MEMORY", tmp_path / "absent")
    assert memory("MemTotal") is None


@pytest.mark.parametrize(
    ("work", "asked"),
    [
        (lambda: torch.empty(1 << 50, dtype=torch.uint8), "1125899906842624 bytes were asked for"),
        (lambda: np.empty(1 << 50, np.uint8), "1.00 PiB were asked for"),
        (lambda: torch.empty(1 << 62), "Out of memory while doing it"),
        (lambda: bytearray(1 << 60), "Out of memory while doing it"),
    ],
)
def test_every_librarys_error_is_one_of_the_user(work, asked):
    with pytest.raises(UserError, match=asked) as caught, memory_errors("while doing it", "Do less."):
        work()
    assert "bytes are free" in caught.value.message
    assert caught.value.hint == "Do less."


def test_a_gpu_says_what_it_has_left():
    with pytest.raises(UserError, match=r"20\.00 GiB were asked for, 1\.50 GiB are free"), memory_errors("", ""):
        raise torch.OutOfMemoryError(CUDA)


def test_other_errors_pass():
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"), memory_errors("", ""):
        raise RuntimeError("shapes")


def test_what_does_not_fit_is_told_before_it_is_made(small):
    ensure_memory(300_000 * 1024)
    with pytest.raises(MemoryError, match="it needs 307,200,001 bytes"):
        ensure_memory(300_000 * 1024 + 1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    store = make_store(place / "store")
    for objective in ("causal", "masked"):
        recipe = values(str(store.path), steps=1, hidden_size=16)
        pretrain({**recipe, "objective": {"name": objective}}, place / objective)
    return place


@pytest.mark.parametrize(
    ("ask", "hint"),
    [
        (lambda run: generate(run, "text"), "shorter or fewer prompts"),
        (lambda run: fill(run, "a [MASK]"), "shorter one"),
        (lambda run: predict(run, "text"), "shorter texts"),
        (lambda run: evaluate(run), "data.length"),
        (lambda run: evaluate_text(run, ["file"]), "shorter windows"),
    ],
)
def test_a_model_that_is_asked_for_too_much_says_so(runs, monkeypatch, ask, hint):
    monkeypatch.setattr(Run, "open", lambda _: torch.empty(1 << 50, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"Out of memory while .*: 1125899906842624 bytes were asked for") as caught:
        ask(runs / "causal")
    assert hint in caught.value.hint


def test_a_mask_is_not_made_where_it_does_not_fit(small):
    """Linux would give the memory, and end the process when it is used."""
    segments = torch.zeros(1, 10_000, dtype=torch.int32)
    with pytest.raises(MemoryError, match="it needs 500,000,000 bytes"):
        cross_attention_mask(segments, segments, (1, 10_000), (1, 10_000), segments.device, torch.float32)


def test_rows_that_are_too_long_are_refused_by_their_setting(runs, small, tmp_path):
    recipe = values(str(runs / "store"), steps=1, hidden_size=16)
    recipe["data"]["length"] = 1 << 20
    with pytest.raises(UserError, match=r"data\.length = 1,048,576") as caught:
        pretrain(recipe, tmp_path / "run")
    assert "bytes" in caught.value.message
    assert "smaller data.length" in caught.value.hint


@pytest.mark.parametrize(("needed", "refused"), [(307_200_000, False), (383_999_999, False), (384_000_000, True)])
def test_a_step_is_refused_only_where_it_cannot_fit(runs, small, needed, refused):
    """1.25 times the free memory and swap: the estimate may be too high."""
    recipe = Recipe.load(values(str(runs / "store")))
    plan = MemoryPlan(2, 0, MemoryEstimate(0, 0, 0, needed), 200_000 * 1024)
    if not refused:
        return refuse_too_large(recipe, plan, torch.device("cpu"), True)
    with pytest.raises(UserError, match=r"384,000,000 of them for 2 rows of data\.length = 64; 307,200,000 are free"):
        refuse_too_large(recipe, plan, torch.device("cpu"), True)
