"""Experiments with processes that start together in one directory, never come, hang, or lose their data."""

import os
import signal
import time
from pathlib import Path

from tests.faults.harness import Child, places, training, values


def crowd(store: str, place: str, count: int) -> dict:
    """So many starts in one directory at the same moment, in which a process was killed before."""
    root = Path(place)
    dead = Child(training(values(store), root / "run"), root / "log")
    dead.wait_for("training")
    dead.send(signal.SIGKILL)
    dead.wait()
    stale = (root / "run" / "run.lock").read_text().strip()
    gate, open_gate = os.pipe()
    hold, release = os.pipe()

    def start(say) -> None:
        from pretextlm.training import trainer

        os.close(open_gate)
        os.close(release)
        os.read(gate, 1)
        trainer.Trainer.train = lambda *_: os.read(hold, 1)  # the winner stays until all others have left
        began, used = time.monotonic(), time.process_time()
        try:
            training(values(store), root / "run")(say)
        finally:
            say(f"{time.monotonic() - began:.2f}/{time.process_time() - used:.2f}")

    children = [Child(start, root / f"log{number}") for number in range(count)]
    os.close(open_gate)
    while sum(child.poll() is None for child in children) > 1:
        time.sleep(0.01)
    winner = next((child for child in children if child.code is None), None)
    os.close(release)
    times = []
    for child in children:
        child.wait_for("nothing")
        times += [word.split("/") for word in child.said.split() if "/" in word and child is not winner]
    return {
        "codes": sorted(child.wait() for child in children),
        "stale": stale,
        "winner": winner.pid if winner else None,
        "refused": [child.log.read_text() for child in children if child is not winner],
        "slowest": max(float(wall) for wall, _ in times),
        "most work": max(float(cpu) for _, cpu in times),
    }


def hang(store: str, place: str, patience: float) -> dict:
    """One of two processes falls asleep in a step."""
    root = Path(place)
    recipe = values(store, timeout_seconds=patience)

    def sleepy(train, say) -> None:
        from pretextlm.training import trainer

        step = trainer.Trainer.step

        def falls_asleep(self, *of):
            if self.state.step == 3:
                say("asleep")
                time.sleep(600)
            return step(self, *of)

        trainer.Trainer.step = falls_asleep
        train(say)

    jobs = [training(recipe, root / "run", one) for one in places(2)]
    children = [Child(jobs[0], root / "log0"), Child(lambda say: sleepy(jobs[1], say), root / "log1")]
    children[1].wait_for("asleep")
    began = time.monotonic()
    codes = [child.wait(patience + 60) for child in children]
    return {
        "codes": codes,
        "seconds": round(time.monotonic() - began, 1),
        "said": [child.log.read_text() for child in children],
        "stacks": [(root / "run" / f"stacks-rank{rank}.txt").read_text() for rank in range(2)],
    }


def alone_of_two(store: str, place: str, patience: float) -> dict:
    """One of two processes never starts."""
    root = Path(place)
    child = Child(training(values(store, timeout_seconds=patience), root / "run", places(2)[0]), root / "log")
    began = time.monotonic()
    return {"code": child.wait(patience + 60), "seconds": time.monotonic() - began, "said": child.log.read_text()}


def killed_while_joining(store: str, place: str, patience: float) -> dict:
    """One of two processes is killed when it has found the other, and before it is connected to it."""
    root = Path(place)

    def killed(train, say) -> None:
        import torch.distributed as dist

        dist.init_process_group = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        train(say)

    jobs = [training(values(store, join_seconds=patience), root / "run", one) for one in places(2)]
    children = [Child(jobs[0], root / "log0"), Child(lambda say: killed(jobs[1], say), root / "log1")]
    began = time.monotonic()
    codes = [child.wait(patience + 60) for child in children]
    return {"codes": codes, "seconds": time.monotonic() - began, "said": children[0].log.read_text()}


def slow(store: str, place: str, patience: float) -> dict:
    """One of two processes takes longer for a step than they have waited for each other to join."""
    root = Path(place)

    def sleepy(train, say) -> None:
        from pretextlm.training import trainer

        step = trainer.Trainer.step

        def takes_its_time(self, *of):
            if self.state.step == 3:
                time.sleep(patience + 1)
            return step(self, *of)

        trainer.Trainer.step = takes_its_time
        train(say)

    jobs = [training(values(store, steps=5, join_seconds=patience), root / "run", one) for one in places(2)]
    children = [Child(jobs[0], root / "log0"), Child(lambda say: sleepy(jobs[1], say), root / "log1")]
    return {"codes": [child.wait(60) for child in children], "said": [c.log.read_text() for c in children]}


def one_fails(store: str, place: str, patience: float) -> dict:
    """The data of one of two processes turns out to be damaged in a step; it ends, and so does the other."""
    root = Path(place)

    def failing(train, say) -> None:
        from pretextlm.data.loader import Loader
        from pretextlm.errors import UserError

        step = Loader.step

        def fails(self, first, *of):
            if first >= 8:
                raise UserError("tokens.bin is damaged.", "Prepare the data again.")
            return step(self, first, *of)

        Loader.step = fails
        train(say)

    jobs = [training(values(store, timeout_seconds=patience), root / "run", one) for one in places(2)]
    children = [Child(jobs[0], root / "log0"), Child(lambda say: failing(jobs[1], say), root / "log1")]
    began = time.monotonic()
    codes = [child.wait(patience + 60) for child in children]
    return {"codes": codes, "seconds": time.monotonic() - began, "said": [c.log.read_text() for c in children]}


def first_fails(store: str, place: str, patience: float) -> dict:
    """The first of two processes meets a fault of ours in something that it does for both."""
    root = Path(place)

    def failing(train, say) -> None:
        from pretextlm.training import pretrain

        def fails(*_):
            raise ZeroDivisionError("a fault of ours")

        pretrain.start_run = fails
        train(say)

    jobs = [training(values(store, timeout_seconds=patience), root / "run", one) for one in places(2)]
    children = [Child(lambda say: failing(jobs[0], say), root / "log0"), Child(jobs[1], root / "log1")]
    codes = [child.wait(patience + 60) for child in children]
    return {"codes": codes, "said": [c.log.read_text() for c in children]}
