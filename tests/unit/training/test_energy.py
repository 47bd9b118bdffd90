"""Energy by counters: what they say is added up, and what they cannot say is said."""

import os
import signal
import sys
from types import SimpleNamespace

import pytest
import torch
from tests.builders import make_store

from pretextlm.training.callbacks import cost as cost_callback
from pretextlm.training.callbacks.cost import energy
from pretextlm.training.distributed import DistributedContext
from pretextlm.training.energy import Meter
from pretextlm.training.pretrain import pretrain
from pretextlm.training.progress import Silent
from pretextlm.training.recipe import Recipe
from pretextlm.training.signals import Stopped

CPU, GPU = torch.device("cpu"), torch.device("cuda")
RANGE = 1_000_000_000


def zone(powercap, number: int, name: str, microjoules: int):
    place = powercap / f"intel-rapl:{number}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "name").write_text(f"{name}\n")
    (place / "max_energy_range_uj").write_text(f"{RANGE}\n")
    (place / "energy_uj").write_text(f"{microjoules}\n")
    return place / "energy_uj"


def test_the_joules_of_all_processors_are_added_also_where_a_counter_begins_anew(tmp_path):
    first, second = zone(tmp_path, 0, "package-0", 900_000_000), zone(tmp_path, 1, "package-1", 0)
    zone(tmp_path, 2, "psys", 5)
    meter = Meter(CPU, powercap=tmp_path)
    assert meter.source == "processors (RAPL)"
    first.write_text("100000000")
    second.write_text("3000000")
    assert meter.used() == 0.0, "it is not read more often than once a second"
    assert meter.used(at_once=True) == pytest.approx(200 + 3)
    assert meter.used(at_once=True) == 0.0


def test_a_counter_that_fails_in_the_middle_adds_nothing(tmp_path):
    file = zone(tmp_path, 0, "package-0", 0)
    meter = Meter(CPU, powercap=tmp_path)
    file.unlink()
    assert meter.used(at_once=True) == 0.0


def test_processors_are_counted_by_the_first_process_of_a_machine_alone(tmp_path):
    zone(tmp_path, 0, "package-0", 0)
    assert Meter(CPU, DistributedContext(3, 4, 1, 2), tmp_path).source == ""
    assert Meter(CPU, DistributedContext(2, 4, 0, 2), tmp_path).source == "processors (RAPL)"


def test_where_nothing_can_be_read_the_reason_is_given(tmp_path):
    meter = Meter(CPU, powercap=tmp_path / "absent")
    assert meter.used(at_once=True) == 0.0
    assert (meter.source, meter.reason) == (
        "",
        f"no counter of a processor can be read under {tmp_path / 'absent'}",
    )


class Nvml:
    """NVML with one GPU whose counter stands at 5,000 mJ and grows by 250 a reading."""

    NVMLError = type("NVMLError", (Exception,), {})

    def __init__(self, there: bool = True) -> None:
        self.there, self.millijoules = there, 4750

    def nvmlInit(self):
        if not self.there:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetHandleByUUID(self, uuid):
        assert uuid == "GPU-12-34"
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        assert handle == "handle"
        self.millijoules += 250
        return self.millijoules


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="12-34"))


def test_a_gpus_joules_are_the_difference_of_its_counter(gpu, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    zone(tmp_path, 0, "package-0", 0)
    meter = Meter(GPU, powercap=tmp_path)
    assert meter.source == "GPUs (NVML), processors (RAPL)"
    assert meter.used(at_once=True) == pytest.approx(0.25)


def test_without_a_driver_or_the_package_a_gpu_is_not_counted(gpu, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(there=False))
    assert "Driver Not Loaded" in Meter(GPU, powercap=tmp_path).reason
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "pip install 'pretextlm[energy]'" in Meter(GPU, powercap=tmp_path).reason


def test_grams_are_joules_times_the_recipes_intensity_and_nothing_is_made_up():
    assert energy(7.2e6, "GPUs (NVML)", "", 300.0) == {
        "energy_joules": 7.2e6,
        "energy_source": "GPUs (NVML)",
        "co2_grams": 600.0,
    }
    assert energy(7.2e6, "GPUs (NVML)", "", None)["co2_grams"] is None
    assert energy(0.0, "", "no counter", 300.0) == {
        "energy_joules": None,
        "energy_source": "not measured: no counter",
        "co2_grams": None,
    }


class Counting:
    """A meter that says 2 J whenever it is asked."""

    source, reason, calls = "a meter", "", 0

    def __init__(self, device, distributed) -> None:
        pass

    def used(self, at_once: bool = False) -> float:
        Counting.calls += 1
        return 2.0


class StopAtStep(Silent):
    def step(self, share, values) -> None:
        if values["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def test_energy_and_device_hours_add_up_over_interruptions(tmp_path, monkeypatch):
    monkeypatch.setattr(cost_callback, "Meter", Counting)
    store = make_store(tmp_path / "store")
    values = {
        "data": {"store": str(store.path), "length": 64},
        "objective": {"name": "causal"},
        "model": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        "training": {"budget_steps": 4, "batch_tokens": 256, "validations": 0, "carbon_grams_per_kwh": 360.0},
    }
    with pytest.raises(Stopped):
        pretrain(Recipe.load(values), tmp_path / "run", progress=StopAtStep())
    cost = pretrain(Recipe.load(values), tmp_path / "run", resume=True).cost()
    assert (cost["steps"], Counting.calls) == (4, 6), "after each step, where it stops, and at its end"
    assert (cost["energy_joules"], cost["co2_grams"]) == (12.0, pytest.approx(0.0012))
    assert cost["device_hours"] == pytest.approx(cost["seconds"] / 3600)
