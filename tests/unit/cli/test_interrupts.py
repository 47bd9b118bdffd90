"""Ctrl-C: commands stop within a second or two, leave nothing half-written, and say how to go on."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pretextlm.cli.main import app


def interrupted(arguments, cwd, ready):
    """Interrupts a command as soon as `ready`; returns its exit code, its messages and the seconds it still took."""
    command = [sys.executable, "-m", "pretextlm", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not ready():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.5)
    start = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    return process.returncode, " ".join(said.split()), time.monotonic() - start


@pytest.mark.slow
def test_preparing_stops_while_a_tokenizer_is_trained_and_the_same_command_goes_on(tmp_path):
    rng = np.random.default_rng(0)
    letters = rng.integers(97, 123, (20_000, 9), np.uint8)
    letters[:, 6:][rng.random((20_000, 3)) < 0.5] = 32
    words = letters[rng.zipf(1.3, 600_000) % 20_000].tobytes().decode()
    (tmp_path / "text.txt").write_text("\n".join(words[at : at + 300] for at in range(0, len(words), 300)))
    options = ["data", "prepare", "text.txt", "--out", "store", "--tokenizer", "unigram", "--text-mode", "lines"]
    work = tmp_path / "store.partial"

    def reading_is_over():
        return work.exists() and time.time() - (work / "options.json").stat().st_mtime > 2

    code, said, seconds = interrupted(options, tmp_path, reading_is_over)
    assert code == 130
    assert "stopped. The same command goes on; what is finished is kept in store.partial." in said
    assert seconds < 4
    assert not (work / "tokenizer.json").exists()
    assert not (tmp_path / "store").exists()


def test_evaluation_says_that_the_same_command_starts_again(tmp_path, monkeypatch, capsys):
    def interrupted_at_once(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("pretextlm.evaluation.evaluate.evaluate", interrupted_at_once)
    monkeypatch.setattr("sys.argv", ["pretextlm", "evaluate", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        app()
    assert left.value.code == 130
    assert "the same command starts again" in capsys.readouterr().err
