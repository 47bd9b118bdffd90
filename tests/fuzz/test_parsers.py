"""Every parser, on its seeds and on changes of them: what it refuses, it refuses with a `UserError`.

`make test` reads each seed and a few hundred changes in all, the same ones every time. `make fuzz` tries others for as
long as PRETEXTLM_FUZZ_SECONDS says, and prints the bytes that broke a parser; put them into the corpus.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
import warnings
from pathlib import Path

import pytest

from tests.fuzz.mutations import mutated
from tests.fuzz.targets import CORPUS, TARGETS

SECONDS = float(os.environ.get("PRETEXTLM_FUZZ_SECONDS", "0"))
"""Per target; 0: a fixed number of changes."""
CHANGES = {"tokenizer": 3, "vocabulary": 3, "run_files": 12}
"""Of targets that start a process or draw a page; 60 of the others."""
MOST_SECONDS = 10.0
"""For one input."""

SEEDS = {name: sorted((CORPUS / name).iterdir()) for name in TARGETS}


def parse(name: str, data: bytes) -> None:
    """Gives bytes to a parser, and says which if it breaks."""
    with tempfile.TemporaryDirectory(prefix="pretextlm-fuzz-") as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        begun = time.monotonic()
        try:
            TARGETS[name](data, Path(directory))
        except BaseException as error:
            error.add_note(f"{name} was given {data[:2000]!r}")
            raise
        assert time.monotonic() - begun < MOST_SECONDS, f"{name} was slow on {data[:2000]!r}"


@pytest.mark.parametrize(("name", "seed"), [(name, seed) for name, seeds in SEEDS.items() for seed in seeds])
def test_a_seed_is_read_or_refused(name, seed):
    parse(name, seed.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_a_changed_seed_is_read_or_refused(name):
    draw = random.Random(None if SECONDS else name)
    seeds = [seed.read_bytes() for seed in SEEDS[name]]
    until, tried = time.monotonic() + SECONDS, 0
    while time.monotonic() < until or tried < CHANGES.get(name, 60):
        parse(name, mutated(draw.choice(seeds), draw))
        tried += 1
    print(f"{name}: {tried:,} inputs")  # shown by -s
