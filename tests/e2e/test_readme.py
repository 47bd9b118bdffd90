"""The Python code of the README runs, in the order in which a reader would try it, and prints what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.builders import documents, sentences

ROOT = Path(__file__).resolve().parents[2]
README, KOREAN = ROOT / "README.md", ROOT / "README.ko.md"
SMALLER = {"2e6": "4e3", "vocab_size=4096": "vocab_size=448", '"hidden_size": 256': '"hidden_size": 32'}
"""What the README says → a size for a test."""


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def write_inputs(directory: Path) -> None:
    (directory / "my_text").mkdir()
    for number, text in enumerate(documents(200)):
        (directory / "my_text" / f"{number:03}.txt").write_text(text, encoding="utf-8")
    for name, seed in (("train.jsonl", 1), ("dev.jsonl", 2)):
        records = [{"sentence": text, "label": str("river" in text)} for text in sentences(60, seed)]
        (directory / name).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


@pytest.mark.slow
def test_the_python_code_of_the_readme_runs_and_prints_only_what_it_asks_for(tmp_path, monkeypatch, capfd):
    blocks = python_blocks(README)
    assert len(blocks) >= 3
    code = "\n".join(blocks)
    write_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    for said, smaller in SMALLER.items():
        assert said in code, f"{said} is what the test makes smaller"
    for block in blocks:
        for said, smaller in SMALLER.items():
            block = block.replace(said, smaller)
        exec(compile(block, str(README), "exec"), {})
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == code.count("print(")
    assert err == ""
    assert (tmp_path / "studies/compared/report.html").is_file()
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "my-bert")
    assert type(model).__name__ == "BertForMaskedLM"


def test_the_code_uses_the_public_names_alone():
    for block in python_blocks(README):
        imports = [line for line in block.splitlines() if re.match(r"\s*(import|from)\s", line)]
        assert imports == ["import pretextlm as pt"]


def test_both_languages_show_the_same_code():
    assert python_blocks(KOREAN) == python_blocks(README)


def test_no_path_leads_out_of_the_repository_and_every_link_to_a_file_leads_to_one():
    for path in (README, KOREAN):
        text = path.read_text(encoding="utf-8")
        assert "../" not in text
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (ROOT / link).exists(), f"{path.name}: {link}"
