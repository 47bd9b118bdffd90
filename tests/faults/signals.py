"""Experiments with SIGINT and SIGTERM: at random steps and in work that is no step."""

import random
import shutil
import signal
import threading
import time
from pathlib import Path

from tests.faults.harness import Child, litter, places, story, training, values

WORK = ("step", "validation", "data", "save", "compile")


def stopped(store: str, place: str, instants: dict[str, int], seed: int = 0) -> dict:
    """Stop runs by a signal at some instants of each kind of work, go on with them, and compare the end.

    "data" is a wait for data that lasts a minute; "compile" is cold.
    """
    root, draw = Path(place), random.Random(seed)
    found: dict = {"instants": 0, "slowest exit": {}, "wrong": []}
    wholes: dict[bool, tuple[str, str]] = {}
    for work, number in instants.items():
        for turn in range(number):
            compiled = work == "compile"
            seconds = 1e-9 if work == "save" else 60  # a save after every step, or none but the last
            recipe = values(store, 0, 20, checkpoint_seconds=seconds, compile="on" if compiled else "off")
            if compiled not in wholes:
                child = Child(training(recipe, root / f"whole-{compiled}"), root / "log")
                assert child.wait(300) == 0, child.log.read_text()
                wholes[compiled] = story(root / f"whole-{compiled}")
            out, sent = root / f"{work}{turn}", draw.choice([signal.SIGINT, signal.SIGTERM])
            child = Child(_at(work, draw.randrange(1, 15), training(recipe, out), root / f"cache{turn}"), root / "log")
            child.wait_for("now")
            time.sleep(draw.uniform(0, 4.0 if compiled else 0.02))
            at = time.monotonic()
            child.send(sent)
            code = child.wait(180)
            took = time.monotonic() - at
            found["instants"] += 1
            found["slowest exit"][work] = max(found["slowest exit"].get(work, 0.0), round(took, 2))
            steps = [path.name for path in (out / "checkpoints").glob("step-*")]
            if code != 128 + sent or not steps or litter(out):
                found["wrong"].append([work, turn, code, steps, child.log.read_text()[-3000:]])
            child = Child(training(recipe, out), root / "log")
            code = child.wait(300)
            if code or story(out) != wholes[compiled]:
                found["wrong"].append([work, turn, "resumed", code, child.log.read_text()[-3000:]])
            shutil.rmtree(out)
    return found


def compiling_together(store: str, place: str, way: str, seconds: list[float], to: list[int]) -> dict:
    """SIGTERM comes to some of two processes while each compiles for so many seconds; then they go on."""
    root = Path(place)
    recipe = values(store, 0, 4, parallel=way, checkpoint_seconds=60, compile="on")

    def children(out: Path, slow: bool) -> list[Child]:
        jobs = [training(recipe, out, one) for one in places(2)]
        return [
            Child(_compiling(job, lasts if slow else 0.0), root / f"log{rank}")
            for rank, (job, lasts) in enumerate(zip(jobs, seconds, strict=True))
        ]

    for child in children(root / "whole", slow=False):
        assert child.wait() == 0, child.log.read_text()
    both = children(root / "run", slow=True)
    for child in both:
        child.wait_for("compiling")
    began = time.monotonic()
    for number in to:
        both[number].send(signal.SIGTERM)
    codes = [child.wait() for child in both]
    took = time.monotonic() - began
    steps = [path.name for path in (root / "run" / "checkpoints").glob("step-*")]
    for child in children(root / "run", slow=False):
        assert child.wait() == 0, child.log.read_text()
    return {"codes": codes, "seconds": took, "steps": steps, "same": story(root / "run") == story(root / "whole")}


def _compiling(train, seconds: float):
    """`train`, with a compiler that does nothing for so many seconds."""

    def child(say) -> None:
        from pretextlm.model.transformer import Transformer
        from pretextlm.training.objective_module import ObjectiveModule

        forward, seen = ObjectiveModule.forward, []

        def compiles_first(self, batch):
            if not seen:
                seen.append(1)
                say("compiling")
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    time.sleep(0.01)
            return forward(self, batch)

        Transformer.compile_blocks = lambda *_: None
        ObjectiveModule.forward = compiles_first
        train(say)

    return child


def _at(work: str, step: int, train, cache: Path):
    """`train`, saying "now" once it does that kind of work for the so-manyth time."""

    def child(say) -> None:
        import os

        from pretextlm.data.loader import Loader
        from pretextlm.training import checkpoint, trainer
        from pretextlm.training.callbacks import validation

        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
        seen = []

        def count() -> None:
            seen.append(1)
            if len(seen) == step:
                say("now")

        def before(function, act=count):
            def wrapped(*args, **options):
                act()
                return function(*args, **options)

            return wrapped

        def stall() -> None:
            seen.append(1)
            if len(seen) == step + 3:  # not the plan's sample, nor the first steps
                say("now")
                threading.Event().wait(60)

        if work == "step":
            trainer.Trainer.step = before(trainer.Trainer.step)
        elif work == "validation":
            validation.validate = before(validation.validate, lambda: (say("now"), time.sleep(0.05)))
        elif work == "data":
            Loader.step = before(Loader.step, stall)
        elif work == "save":
            checkpoint.save_file = before(checkpoint.save_file, lambda: (say("now"), time.sleep(0.05)))
        else:
            trainer.Trainer.compile = before(trainer.Trainer.compile, lambda: say("now"))
        train(say)

    return child
