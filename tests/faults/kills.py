"""Experiments with SIGKILL: at random instants of a run of one process, and of one of two."""

import random
import shutil
import signal
import time
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
