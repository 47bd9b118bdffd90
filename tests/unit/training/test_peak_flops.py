"""What a device can compute at most, from the table or measured."""

import json

import pytest
import torch
from tests.builders import make_store

from pretextlm.training.peak_flops import MEASURED, TABLE, Peak, find_peak, listed, peak_of_run
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.runtime import device_name

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "half", "single"),
    [
        ("NVIDIA H200", 989, 67),
        ("NVIDIA H100 80GB HBM3", 989, 67),
        ("NVIDIA H100 PCIe", 756, 51),
        ("NVIDIA A100-SXM4-80GB", 312, 19.5),
        ("NVIDIA A10", 125, 31.2),
        ("NVIDIA L4", 121, 30.3),
        ("NVIDIA L40S", 362, 91.6),
        ("NVIDIA GeForce RTX 4090", 165.2, 82.6),
    ],
)
def test_a_gpu_is_found_by_the_longest_name_that_fits(name, half, single):
    assert listed(name, torch.bfloat16) == Peak(half * 1e12, TABLE)
    assert listed(name, torch.float32) == Peak(single * 1e12, TABLE)


def test_a_gpu_that_nobody_knows_is_not_in_the_table():
    assert listed("NVIDIA A1000 Laptop GPU", torch.bfloat16) is None


def test_a_processor_is_measured():
    peak = find_peak(CPU, torch.float32)
    assert peak.source == MEASURED
    assert 1e8 < peak.flops_per_second < 1e15


def test_a_run_keeps_what_was_measured_for_its_device_and_number_format(tmp_path):
    assert peak_of_run(tmp_path, CPU, torch.float32) is None
    known = {"device": device_name(CPU), "dtype": "fp32", "peak": {"flops_per_second": 1.0, "source": MEASURED}}
    (tmp_path / "environment.json").write_text(json.dumps(known))
    assert peak_of_run(tmp_path, CPU, torch.float32) == Peak(1.0, MEASURED)
    (tmp_path / "environment.json").write_text(json.dumps({**known, "device": "another"}))
    assert peak_of_run(tmp_path, CPU, torch.float32).flops_per_second > 1e8


def test_a_line_of_metrics_has_the_share_of_the_peak_that_the_model_used_and_the_memory(tmp_path):
    store = make_store(tmp_path / "store")
    values = {
        "data": {"store": str(store.path), "length": 64},
        "objective": {"name": "causal"},
        "model": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        "training": {"budget_steps": 4, "batch_tokens": 256, "log_every": 1, "validations": 0},
    }
    run = pretrain(Recipe.load(values), tmp_path / "run")
    peak = json.loads((run.directory / "environment.json").read_text())["peak"]["flops_per_second"]
    for line in run.metrics():
        flops, tokens = line["flops"] / line["step"], line["tokens"] / line["step"]
        assert line["mfu"] == pytest.approx(flops * line["tokens_per_second"] / tokens / peak)
        assert line["memory"] > 50e6
    cost = run.cost()
    assert cost["device_hours"] == pytest.approx(cost["seconds"] / 3600)
