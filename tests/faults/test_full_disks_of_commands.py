"""A full disk under each command that writes: the output, the bytes and the reason are named, and nothing is left."""

import pytest
from tests.builders import make_store
from tests.faults.harness import FULL, values
from tests.faults.test_full_disks import fill, small_disk  # noqa: F401 - a fixture

from pretextlm.compression.prune import Pruning, prune_run
from pretextlm.data.prepare import prepare
from pretextlm.errors import UserError
from pretextlm.evaluation.evaluate import evaluate
from pretextlm.hf.export_model import export_model
from pretextlm.hf.import_model import import_model
from pretextlm.report.page import write_report
from pretextlm.training.pretrain import pretrain

OFFSETS = range(0, 200_000, 10_000) if FULL else [0, 40_000]
"""Bytes that are left on the disk."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    store = make_store(place / "store")
    (place / "text.txt").write_text("".join(f"Ship number {one} is at sea.\n" * 3 for one in range(2000)))
    pretrain(values(str(store.path), steps=1, hidden_size=64), place / "run")
    export_model(place / "run", place / "exported", check=False)
    evaluate(place / "run")
    return place


WRITERS = {
    "export": lambda place, out: export_model(place / "run", out, check=False),
    "prune": lambda place, out: prune_run(place / "run", out, Pruning(sparsity=0.5)),
    "import": lambda place, out: import_model(place / "exported", out),
    "report": lambda place, out: write_report([place / "run"], out),
    "prepare": lambda place, out: prepare(place / "text.txt", out, vocab_size=500, text_mode="lines"),
}


CASES = [(name, left) for name in WRITERS for left in OFFSETS if name != "report" or left <= 40_000]
"""A report of one run has 45 kB."""


@pytest.mark.parametrize(("command", "left"), CASES)
def test_nothing_is_left_and_it_works_once_there_is_room(small_disk, place, monkeypatch, command, left):  # noqa: F811
    (small_disk / "kept").write_text("kept")
    fill(small_disk, left)
    with pytest.raises(UserError, match=rf"Cannot write {small_disk / 'out'}.*No space left") as caught:
        WRITERS[command](place, small_disk / "out")
    assert "--resume" not in caught.value.hint
    left_over = {path.name for path in small_disk.iterdir()} - {"filler", "kept"}
    assert left_over <= ({"out.partial"} if command == "prepare" else set())
    (small_disk / "filler").unlink()
    WRITERS[command](place, small_disk / "out")
    assert {path.name for path in small_disk.iterdir()} == {"kept", "out"}
