"""Experiments with SIGKILL: at random instants and at calls of the file system, of a run of one process and of two."""

import itertools
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.harness import Child, litter, places, story, training, values

SHARE = 0.4
"""Of a run's time within which it is killed, so that it takes several kills."""

PATIENCE = 15
"""Seconds that processes wait for each other: as long as a kill costs while they are still connecting."""


def alone(store: str, place: str, kills: int, seeds: int, steps: int = 50) -> dict:
    """Kill a run at random instants and go on with it, until it is done; then the next, until there were `kills`."""
    began, root = time.monotonic(), Path(place)
    found = {"kills": 0, "in a save": 0, "in retention": 0, "while starting": 0, "runs": 0, "differ": []}
    for seed in range(seeds):
        recipe, draw = values(store, seed, steps), random.Random(seed)
        reference = root / f"whole{seed}"
        start = time.monotonic()
        child = Child(training(recipe, reference), root / "log")
        assert child.wait() == 0, child.log.read_text()
        whole = time.monotonic() - start
        expected, number = story(reference), 0
        while found["kills"] < kills * (seed + 1) // seeds:
            out, number = root / f"run{seed}-{number}", number + 1
            while True:
                child = Child(training(recipe, out), root / "log")
                wanted = found["kills"] < kills * (seed + 1) // seeds
                if wanted and not _ends_within(child, draw.uniform(0, SHARE * whole)):
                    child.send(signal.SIGKILL)
                    if child.wait() == -9:
                        found["kills"] += 1
                        found["while starting"] += "training" not in child.said
                        _note_where(out, child.pid, found)
                        continue
                assert child.wait() == 0, f"{out} is lost: {child.log.read_text()}"
                break
            found["runs"] += 1
            if story(out) != expected or litter(out):
                found["differ"].append([str(out), *map(str, litter(out))])
            else:
                shutil.rmtree(out)
    return found | {"seconds": round(time.monotonic() - began)}


def _ends_within(child: Child, seconds: float) -> bool:
    """Whether a child ends by itself before so many seconds."""
    try:
        child.wait_for("nothing", seconds)
    except AssertionError:
        return False
    return True


def _note_where(out: Path, pid: int, found: dict) -> None:
    """Count a kill by what it left behind."""
    left = {path.name.split(".")[1] for path in (out / "checkpoints").glob(f".step-*.tmp-{pid}")}
    whole = {path.name for path in (out / "checkpoints").glob("step-*")}
    newest = max(whole, default="")
    found["in a save"] += any(name > newest for name in left)
    found["in retention"] += any(name < newest for name in left)


def one_of_two(store: str, place: str, kills: int, ways: list[str], steps: int = 20) -> dict:
    """Kill one of two processes; the other says so and leaves, and both go on."""
    began, root = time.monotonic(), Path(place)
    found = {"kills": 0, "in a save": 0, "in retention": 0, "runs": 0, "slowest exit": 0.0, "differ": [], "unclear": []}

    def both(recipe: dict, out: Path) -> list[Child]:
        return [Child(training(recipe, out, place), root / f"log{i}") for i, place in enumerate(places(2))]

    for turn, way in enumerate(ways):
        recipe, draw = values(store, 0, steps, parallel=way, timeout_seconds=PATIENCE), random.Random(turn)
        reference = root / f"whole-{way}"
        start = time.monotonic()
        for child in both(recipe, reference):
            assert child.wait() == 0, child.log.read_text()
        whole, expected, number = time.monotonic() - start, story(reference), 0
        last = kills * (turn + 1) // len(ways)
        while found["kills"] < last:
            out, number = root / f"run-{way}-{number}", number + 1
            while True:
                children = both(recipe, out)
                if found["kills"] < last and all(child.wait_for("joined") for child in children):
                    victim, other = children if draw.random() < 0.5 else children[::-1]
                    if not _ends_within(victim, draw.uniform(0, SHARE * whole)):
                        killed_at = time.monotonic()
                        victim.send(signal.SIGKILL)
                        victim.wait()
                        code = other.wait(60)
                        found["kills"] += 1
                        if code == 0 and victim.code == -9:  # it was done with its work already
                            continue
                        found["slowest exit"] = max(found["slowest exit"], round(time.monotonic() - killed_at, 1))
                        said = other.log.read_text()
                        clear = "lost another process" in said or "for the other processes" in said
                        if code != 2 or not clear or "--resume" not in said:
                            found["unclear"].append([code, said[-3000:]])
                        _note_where(out, children[0].pid, found)
                        continue
                for child in children:
                    assert child.wait() == 0, f"{out} is lost: {child.log.read_text()}"
                break
            found["runs"] += 1
            if story(out) != expected or litter(out):
                found["differ"].append([str(out), *map(str, litter(out))])
            else:
                shutil.rmtree(out)
    return found | {"seconds": round(time.monotonic() - began)}


def at_calls(store: str, place: str, kills: int) -> dict:
    """Kill a run with `keep_best` at calls of the file system, spread over all that it makes, and go on with it.

    After each kill, the best weights that the newest checkpoint names must be there.
    """
    root = Path(place)
    recipe = values(store, 0, 10, 64, validations=10, keep_best=True, learning_rate=0.05, keep_checkpoints=1)
    found = {"kills": 0, "between best and checkpoint": 0, "unnamed": [], "differ": []}
    counted = Child(_killed_at(recipe, root / "whole", None), root / "log")
    assert counted.wait() == 0, counted.log.read_text()
    assert counted.wait_for("calls")
    total, expected = int(counted.said.split()[-2]), story(root / "whole")
    for number in range(kills):
        out = root / f"run-{number}"
        child = Child(_killed_at(recipe, out, number * total // kills), root / "log")
        assert child.wait() == -9, child.log.read_text()
        found["kills"] += 1
        named, there, step = _best(out)
        found["between best and checkpoint"] += max(there, default=-1) > step
        if not named <= there:
            found["unnamed"].append([number, sorted(named), sorted(there)])
        child = Child(training(recipe, out), root / "log")
        assert child.wait() == 0, f"{out} is lost: {child.log.read_text()}"
        if story(out) != expected or litter(out) or (out / "best").exists():
            found["differ"].append([str(out), *map(str, litter(out))])
        else:
            shutil.rmtree(out)
    return found | {"calls": total}


def _best(out: Path) -> tuple[set[int], set[int], int]:
    """The steps whose weights the newest checkpoint needs, those that are there and verify, and the checkpoint's."""
    from pretextlm.training.checkpoint import newest, steps, verify

    found = newest(out / "checkpoints")
    state = {} if found is None else found.state
    needed = state.get("best") is not None and not state["is_best"] and state["best_step"] != state["step"]
    there = {int(path.name.removeprefix("step-")) for path in steps(out / "best") if verify(path) is None}
    return {state["best_step"]} if needed else set(), there, -1 if found is None else found.step


def _killed_at(recipe: dict, out: Path, moment: int | None) -> Callable[[Callable[[str], None]], None]:
    """A training that is killed before its n-th call; with None, it says how many calls it made."""
    train = training(recipe, out)

    def work(say: Callable[[str], None]) -> None:
        from pretextlm.training import checkpoint

        calls = itertools.count()

        def counting(original: Callable[..., object]) -> Callable[..., object]:
            def call(*of: object, **options: object) -> object:
                if next(calls) == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*of, **options)

            return call

        for name in ("rename", "replace", "mkdir", "unlink", "rmdir", "fsync"):
            setattr(os, name, counting(getattr(os, name)))
        checkpoint.save_file = counting(checkpoint.save_file)
        train(say)
        if moment is None:
            say(f"{next(calls)} calls")

    return work
