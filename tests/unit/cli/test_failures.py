"""Failures of the input and the machine end with exit code 2, faults of the program with 1; neither is a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from pretextlm.cli.shared.failures import REMEDIES, as_user_error, report
from pretextlm.errors import UserError


@pytest.mark.parametrize("number", REMEDIES)
def test_an_error_of_the_file_system_names_the_file_and_a_remedy(number):
    found = as_user_error(OSError(number, os.strerror(number), "some/file"))
    assert found is not None
    assert found.message == f"some/file: {os.strerror(number)}."
    assert found.hint == REMEDIES[number]


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        (lambda: os.stat("a\0b"), "NUL"),
        (lambda: "text \udcff".encode(), "not valid UTF-8"),
        (lambda: int("9" * 5000), "thousands of digits"),
        (lambda: os.stat("n" * 5000), os.strerror(errno.ENAMETOOLONG)),
    ],
)
def test_errors_that_only_input_can_cause_are_the_inputs(fails, message):
    with pytest.raises((OSError, ValueError)) as raised:
        fails()
    found = as_user_error(raised.value)
    assert found is not None
    assert message in found.message
    assert found.hint


def test_other_errors_are_faults_of_the_program():
    assert all(as_user_error(error) is None for error in (TypeError("a"), KeyError("a"), ValueError("a"), OSError("a")))


def test_a_fault_of_the_program_is_one_line_without_a_traceback(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")

    def reported(debug: str) -> str:
        monkeypatch.setenv("PRETEXTLM_DEBUG", debug)
        with pytest.raises(KeyError) as raised:
            raise KeyError("rows\x1b[2J")
        assert report(raised.value) == 1
        return capsys.readouterr().err

    told = reported("")
    assert told.startswith("internal error: KeyError: ")
    assert "test_failures.py, line" in told
    assert "PRETEXTLM_DEBUG=1" in told
    assert "Traceback" not in told
    assert "Traceback" in reported("1")
    with pytest.raises(UserError) as raised:
        raise UserError("Wrong.", "Right.")
    assert report(raised.value) == 2
    assert capsys.readouterr().err == "error: Wrong.\nhint:  Right.\n"


def test_a_full_disk_behind_stdout_is_said():
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([sys.executable, "-m", "pretextlm", "recipes"], stdout=full, stderr=-1, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: No space left on device.")


def test_a_closed_stdout_ends_no_command():
    done = subprocess.run(f"exec >&-; exec {sys.executable} -m pretextlm recipes", shell=True, stderr=-1)
    assert (done.returncode, done.stderr) == (0, b"")
