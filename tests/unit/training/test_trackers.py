"""Trackers are told what metrics.jsonl is told, and none of them can stop or slow a training."""

import sys
import threading
import time
from types import SimpleNamespace

import pytest
from tests.builders import make_store

from pretextlm.errors import UserError
from pretextlm.training import trackers as module
from pretextlm.training.pretrain import pretrain
from pretextlm.training.progress import Silent
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.trackers import TRACKERS, Trackers, check_installed


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store")


def recipe(store, *trackers, steps=6) -> Recipe:
    return Recipe.load(
        {
            "data": {"store": str(store.path), "length": 64},
            "objective": {"name": "causal"},
            "model": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
            "training": {
                "budget_steps": steps,
                "batch_tokens": 256,
                "dtype": "fp32",
                "log_every": 2,
                "validations": 2,
                "trackers": list(trackers),
            },
        }
    )


class Notes(Silent):
    """Remembers what people are told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    @property
    def of_trackers(self) -> list[str]:
        return [line for line in self.lines if "tracker" in line]


class Recorded:
    """A tracker's client: what it was begun with, what it was given, whether it was closed."""

    def __init__(self, *args, **kwargs) -> None:
        self.begun, self.lines, self.closed = (args, kwargs), [], False

    def log(self, values, step) -> None:
        self.lines += [(step, name, value) for name, value in values.items()]

    def add_scalar(self, name, value, step) -> None:
        self.lines.append((step, name, value))

    def close(self) -> None:
        self.closed = True

    finish = close


@pytest.fixture
def clients(monkeypatch):
    """Stand-ins for the three packages; the clients they made."""
    made: dict[str, list[Recorded]] = {name: [] for name in TRACKERS}

    def maker(name):
        def make(*args, **kwargs):
            made[name].append(Recorded(*args, **kwargs))
            return made[name][-1]

        return make

    wandb = SimpleNamespace(init=maker("wandb"), Settings=lambda **options: options, __spec__=object())
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=maker("trackio"), __spec__=object()))
    monkeypatch.setitem(sys.modules, "tensorboard", SimpleNamespace(__spec__=object()))
    board = SimpleNamespace(SummaryWriter=maker("tensorboard"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    return made


def as_written(run: Run) -> list[tuple[int, str, float]]:
    """The lines of metrics.jsonl, as trackers are given them."""
    lines = [
        (line["step"], f"{line['kind']}/{name}", value)
        for line in run.metrics()
        for name, value in line.items()
        if name not in ("kind", "step")
    ]
    assert {"train/loss", "train/learning_rate", "train/memory", "train/mfu", "validation/loss"} <= {
        x[1] for x in lines
    }
    return lines


def test_every_tracker_is_given_every_line(store, tmp_path, clients):
    run = pretrain(recipe(store, *TRACKERS), tmp_path / "run")
    for name in TRACKERS:
        (client,) = clients[name]
        assert client.lines == as_written(run)
        assert client.closed


def test_a_run_that_goes_on_is_the_same_run_there(store, tmp_path, clients):
    pretrain(recipe(store, *TRACKERS), tmp_path / "run")
    pretrain(recipe(store, *TRACKERS), tmp_path / "run", resume=True)
    boards, weights, trackios = (clients[name] for name in ("tensorboard", "wandb", "trackio"))
    assert [client.begun[1] for client in boards] == [{"purge_step": None}, {"purge_step": 7}]
    assert weights[0].begun[1]["id"] == weights[1].begun[1]["id"]
    assert [client.begun[1]["resume"] for client in trackios] == ["never", "allow"]
    assert weights[0].begun[1]["config"] == Run.open(tmp_path / "run").recipe.dump()


def test_a_tracker_that_goes_down_in_the_midst_of_a_run_has_what_came_before_and_is_told_of_once(
    store, tmp_path, clients, monkeypatch
):
    log = Recorded.log

    def fails_later(self, values, step):
        if step > 2 and self in clients["wandb"]:
            raise ConnectionError("503 from api.wandb.ai")
        log(self, values, step)

    monkeypatch.setattr(Recorded, "log", fails_later)
    notes = Notes()
    run = pretrain(recipe(store, "wandb", "trackio"), tmp_path / "run", progress=notes)
    every = as_written(run)
    assert clients["wandb"][0].lines == [line for line in every if line[0] <= 2]
    assert clients["trackio"][0].lines == every
    assert notes.of_trackers == [
        "the tracker wandb failed (ConnectionError: 503 from api.wandb.ai); training goes on without it"
    ]


@pytest.mark.parametrize("fails_at", ["begin", "log", "close"])
def test_a_tracker_that_raises_is_told_of_once_and_the_others_go_on(store, tmp_path, clients, monkeypatch, fails_at):
    def fail(*args, **kwargs):
        raise ConnectionError("no route to host")

    if fails_at == "begin":
        monkeypatch.setattr(sys.modules["wandb"], "init", fail)
    else:
        client = Recorded()
        setattr(client, {"log": "log", "close": "finish"}[fails_at], fail)
        monkeypatch.setattr(sys.modules["wandb"], "init", lambda **kwargs: client)
    notes = Notes()
    run = pretrain(recipe(store, "wandb", "trackio"), tmp_path / "run", progress=notes)
    assert (run.directory / "cost.json").exists()
    assert clients["trackio"][0].lines == as_written(run)
    expected = "the tracker wandb failed (ConnectionError: no route to host); training goes on without it"
    assert notes.of_trackers == [expected]


def test_a_tracker_that_hangs_slows_nothing_and_is_left_behind(store, tmp_path, clients, monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(sys.modules["wandb"], "init", lambda **kwargs: never.wait())
    monkeypatch.setattr(module, "CLOSING_SECONDS", 0.2)
    notes = Notes()
    start = time.monotonic()
    run = pretrain(recipe(store, "wandb"), tmp_path / "run", progress=notes)
    assert time.monotonic() - start < 30
    assert len(as_written(run)) > 0
    assert notes.of_trackers == ["the tracker wandb does not end; training goes on without it"]
    never.set()


def test_a_tracker_that_does_not_keep_up_is_dropped_when_its_queue_is_full(store, tmp_path, clients, monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(sys.modules["trackio"], "init", lambda **kwargs: never.wait())
    monkeypatch.setattr(module, "WAITING_LINES", 3)
    told: list[str] = []
    chosen = recipe(store, "trackio")
    all_of_them = Trackers(chosen.training.trackers, tmp_path, chosen, 0, told.append)
    for step in range(10):
        all_of_them.log(step, {"loss": 1.0})
    all_of_them.close()
    assert told == ["the tracker trackio does not keep up; training goes on without it"]
    never.set()


def test_a_tracker_that_is_not_there_is_refused_before_anything_is_written(store, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        pretrain(recipe(store, "wandb"), tmp_path / "run")
    assert caught.value.hint == "Install it with: pip install 'pretextlm[wandb]'"
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="tensorboard"):
        recipe(store, "tensorbored")
    with pytest.raises(UserError, match="no tracker named"):
        check_installed(["tensorbored"])


def test_event_files_of_tensorboard_read_back_as_they_were_written(store, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = pretrain(recipe(store, "tensorboard"), tmp_path / "run")
    events = EventAccumulator(str(run.directory / "tensorboard"))
    events.Reload()
    read = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert read == [(m["step"], pytest.approx(m["loss"])) for m in run.metrics() if m["kind"] == "train"]
