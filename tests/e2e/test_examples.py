"""The programs in examples/ run, on little text and with small models."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from tests.builders import documents

from pretextlm.objectives.registry import OBJECTIVES

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KOREAN = ["강은 새벽이 오기 전에 편지를 나른다.", "우리 이웃은 조용한 항구를 기억한다.", "아이들은 따뜻한 빵을 나눈다."]

pytestmark = pytest.mark.slow


def run(name: str, monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.fixture
def text(tmp_path) -> Path:
    directory = tmp_path / "my_text"
    directory.mkdir()
    for number, document in enumerate(documents(200)):
        (directory / f"{number:03}.txt").write_text(document, encoding="utf-8")
    return directory


def test_objectives_are_compared_on_a_text(text, tmp_path, monkeypatch, capsys):
    sizes = ["--tokens", 4e3, "--hidden-size", 32, "--vocab-size", 448]
    run("compare_objectives.py", monkeypatch, text, "--out", tmp_path / "out", *sizes)
    said = capsys.readouterr().out
    assert "masked: " in said
    assert "BertForMaskedLM" in said
    assert (tmp_path / "out/study/report.html").is_file()


def test_a_published_encoder_is_continued_in_korean(tmp_path, monkeypatch, capsys):
    transformers = pytest.importorskip("transformers")
    published, text = tmp_path / "published", tmp_path / "korean.txt"
    characters = sorted({character for sentence in KOREAN for character in sentence if character != " "})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{one}" for one in characters)]
    published.mkdir()
    (published / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    tokenizer = transformers.BertTokenizerFast(str(published / "vocab.txt"), do_lower_case=False)
    tokenizer.save_pretrained(published)
    config = transformers.BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    transformers.BertForMaskedLM(config).save_pretrained(published)
    text.write_text("\n\n".join(" ".join(KOREAN[n % 3 :] + KOREAN[: n % 3]) + f" {n}" for n in range(120)), "utf-8")
    options = [
        "--model",
        published,
        "--tokens",
        2e3,
        "--out",
        tmp_path / "out",
        "--blank",
        "아이들은 따뜻한 ____을 나눈다.",
    ]
    run("continue_in_korean.py", monkeypatch, text, *options, "--blank", "아이들은 따뜻한 ____을 나눈다.")
    said = capsys.readouterr().out
    assert "published: loss" in said
    assert "continued: loss" in said
    exported = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out/my-korean-bert")
    assert type(exported).__name__ == "BertForMaskedLM"


def test_an_objective_of_ones_own_is_compared_with_another(text, tmp_path, monkeypatch, capsys):
    try:
        run("add_an_objective.py", monkeypatch, text, "--out", tmp_path / "out", "--tokens", 4e3, "--hidden-size", 32)
    finally:
        OBJECTIVES.unregister("one_gap")
    assert "report: " in capsys.readouterr().out
    assert "One gap" in (tmp_path / "out/study/report.html").read_text(encoding="utf-8")
