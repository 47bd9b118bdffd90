from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pretextlm.data.store import Store

sys.path.insert(0, str(Path(__file__).parent))

from small_corpus import write_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_store(tmp_path_factory.mktemp("evaluation") / "store")


@pytest.fixture(scope="session")
def pair_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same text with pairs behind it."""
    return write_store(tmp_path_factory.mktemp("evaluation") / "pairs", with_pairs=True)
