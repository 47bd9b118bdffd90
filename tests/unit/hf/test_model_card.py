"""The model card of a run whose files hold anything."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from tests.builders import make_run, make_store

from pretextlm.hf.export_model import export_model
from pretextlm.printable import COMMANDING


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    return make_run(make_store(folder / "store"), folder / "run")


ODD = ["5", '"text"', "[]", "null", "{}", '{"steps": "many"}', '{"metrics": 5}', '{"metrics": {"loss": 5}}', "[" * 3000]
METRIC = {"value": "much", "stderr": [], "unit": {}, "better": 5}
ODD += [json.dumps({"metrics": {"loss": METRIC}}), '{"metrics": [1], "settings": 3}']


@pytest.mark.parametrize("content", ODD)
def test_values_of_other_types_do_not_break_an_export(run, tmp_path, content):
    shutil.copytree(run, tmp_path / "run")
    for name in ("cost.json", "evaluation.json", "environment.json"):
        (tmp_path / "run" / name).write_text(content)
    export_model(tmp_path / "run", tmp_path / "out", check=False)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "## Cost" in card
    assert "## Scores" in card
    assert "is damaged" in card or "not known" in card
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_what_a_run_holds_cannot_leave_its_cell(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    hostile = "a|b\n# Title\n<script>\x1b[2J\u202e`c`"
    metric = {"value": 1.0, "stderr": None, "unit": hostile, "better": hostile, "n": 1}
    (tmp_path / "run" / "evaluation.json").write_text(json.dumps({"metrics": {hostile: metric}}))
    export_model(tmp_path / "run", tmp_path / "out", check=False)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert not COMMANDING.search(card)
    assert "<script>" not in card
    assert "\n# Title" not in card
    row = next(line for line in card.split("\n") if "Title" in line)
    assert row.count("|") == 6
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "transformers"
