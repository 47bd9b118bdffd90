"""The small corpus of the evaluation's tests serves the scorers' too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pretextlm.data.store import Store

sys.path.insert(0, str(Path(__file__).parent.parent / "evaluation"))

from small_corpus import write_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_store(tmp_path_factory.mktemp("scoring") / "store")
