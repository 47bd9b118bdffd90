"""What doctor says: what is there, and what the trainer itself would choose."""

import os
import re
import tempfile
import tomllib
from pathlib import Path

import pytest
import torch

from pretextlm.training import machine_report as module
from pretextlm.training.distributed import SINGLE_PROCESS
from pretextlm.training.machine_report import EXTRAS, default_settings, describe_machine, place
from pretextlm.training.recipe import TrainingConfig
from pretextlm.training.runtime import Runtime, compile_cache, device_name, dtype_name

ROOT = Path(__file__).parents[3]


def test_the_extras_are_those_of_the_package():
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {extra: tuple(re.split(r"[=<>!\[]", wanted)[0] for wanted in table[extra]) for extra in table}
    names = {extra: tuple(name for name in wanted if name != "pretextlm") for extra, wanted in names.items()}
    of_developers = {"dev", "bench", "test"}
    assert {extra: packages for extra, packages in names.items() if extra not in of_developers} == dict(EXTRAS)


def test_what_will_be_used_is_what_the_trainer_chooses():
    runtime = Runtime.choose(TrainingConfig(budget_steps=1), float("inf"))
    found = default_settings(SINGLE_PROCESS)
    assert found["device"] == device_name(runtime.device)
    assert found["dtype"] == dtype_name(runtime.dtype)
    assert (found["threads"], found["compile"]) == (runtime.threads, runtime.compile)


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(module.EXTRAS, "wandb", ("no-such-package",))
    assert describe_machine(SINGLE_PROCESS)["extras"]["wandb"] == {
        "packages": {"no-such-package": None},
        "install": "pip install 'pretextlm[wandb]'",
    }


def test_gpus_are_described_by_name_memory_and_capability(monkeypatch):
    class About:
        name, total_memory, major, minor = "NVIDIA H200", 150_000, 9, 0

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: About)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (140_000, 150_000))
    assert describe_machine(SINGLE_PROCESS)["gpus"] == [
        {"name": "NVIDIA H200", "memory_bytes": 150_000, "free_memory_bytes": 140_000, "compute_capability": "9.0"}
    ]


def test_a_directory_that_is_to_be_made_is_judged_by_the_one_above_it(tmp_path, monkeypatch):
    found = place(tmp_path / "a" / "b")
    assert found["writable"]
    assert found["free_bytes"] > 0
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert not place(tmp_path / "a")["writable"]
    assert not describe_machine(SINGLE_PROCESS)["here"]["writable"]


def test_who_has_no_place_for_compiled_code_gets_a_temporary_one(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compile_cache() == tmp_path / "pretextlm" / "inductor"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert compile_cache() == Path(tempfile.gettempdir()) / f"pretextlm-{os.getuid()}" / "inductor"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "mine")
    assert compile_cache() == Path("mine")


@pytest.mark.parametrize("name", ["processor", "cores", "compiler", "energy", "torch"])
def test_the_machine_is_described_without_a_gpu(name):
    assert name in describe_machine(SINGLE_PROCESS)
