"""`data prepare` and `data inspect` as a user runs them."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from pretextlm.cli import data
from pretextlm.errors import UserError


@pytest.fixture
def run(tmp_path):
    app = typer.Typer()
    app.command("prepare")(data.prepare)
    app.command("inspect")(data.inspect)
    lines = (
        json.dumps({"body": f"The {n}th day. 바다는 {n * 31 % 97}번 넓다."}, ensure_ascii=False) for n in range(120)
    )
    (tmp_path / "days.jsonl").write_text("\n".join(lines), encoding="utf-8")

    def invoke(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)

    return invoke


def test_prepare_and_inspect_print_one_json_object(run, tmp_path):
    store = tmp_path / "store"
    options = ["--vocab-size", 448, "--field", "body", "--validation", 0.1, "--licence", "CC0-1.0", "--json"]
    made = run("prepare", tmp_path / "days.jsonl", "--out", store, *options)
    assert made.exit_code == 0
    summary = json.loads(made.stdout)
    assert summary["splits"]["train"]["documents"] == 108
    assert summary["splits"]["validation"]["documents"] == 12
    assert summary["sources"][0]["licence"] == "CC0-1.0"
    seen = json.loads(run("inspect", store, "--samples", 2, "--verify", "--json").stdout)
    assert seen["splits"] == summary["splits"]
    assert seen["verified"] is True
    assert len(seen["samples"]) == 2
    assert seen["samples"][0]["text"].startswith("The ")
    assert sum(row["documents"] for row in seen["lengths"]) == 108


def test_inspect_shows_counts_sources_lengths_and_samples_to_people(run, tmp_path):
    run("prepare", tmp_path / "days.jsonl", "--out", tmp_path / "store", "--vocab-size", 448, "--field", "body")
    shown = run("inspect", tmp_path / "store").stdout
    for part in ("448 ids", "days.jsonl", "not known", "Tokens in a document", "바다는"):
        assert part in shown.replace("\n", "")


def test_a_wrong_option_reaches_the_user_as_an_error_with_a_hint(run, tmp_path):
    with pytest.raises(UserError, match="no field 'text'") as caught:
        run("prepare", tmp_path / "days.jsonl", "--out", tmp_path / "store")
    assert "--field" in caught.value.hint


def test_text_that_the_tokenizer_does_not_know_is_counted_by_source_and_warned_of(run, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "day"])}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "known.txt").write_text("the day\nday the\n" * 50)
    (tmp_path / "korean.txt").write_text("the day 바다\n바다 the day the\n" * 50)
    options = ["--out", tmp_path / "store", "--tokenizer", tmp_path / "tokenizer.json", "--text-mode", "lines"]
    shown = " ".join(run("prepare", tmp_path / "known.txt", tmp_path / "korean.txt", *options).stdout.split())
    assert "Warning: 28.6% of the tokens of" in shown
    assert shown.count("Warning") == 1
    known, korean = json.loads(run("inspect", tmp_path / "store", "--json").stdout)["sources"]
    assert (known["tokens"], known["unknown"], korean["tokens"], korean["unknown"]) == (200, 0, 350, 100)
    assert "28.6%" in run("inspect", tmp_path / "store").stdout


def test_what_a_directory_holds_beside_text_is_said(run, tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.png").write_bytes(b"\x89PNG\0")
    for n in range(9):
        (tmp_path / "corpus" / f"{n}.py").write_text(f"print('바다 {n}')\n" * 9)
    shown = run("prepare", tmp_path / "corpus", "--out", tmp_path / "store", "--vocab-size", 448).stdout
    assert " ".join(shown.split()).endswith("corpus: 1 .png (binary).")
    assert json.loads(run("inspect", tmp_path / "store", "--json").stdout)["sources"][0]["left_out"] == {
        ".png (binary)": 1
    }


def test_text_in_another_encoding_is_not_overlooked(run, tmp_path):
    (tmp_path / "corpus").mkdir()
    for n in range(9):
        (tmp_path / "corpus" / f"{n}.txt").write_bytes(f"바다는 {n}번 넓다.".encode("cp949"))
    (tmp_path / "corpus" / "a.py").write_text("print('바다')")
    options = [tmp_path / "corpus", "--out", tmp_path / "store", "--vocab-size", 448]
    left_out = r"only one distinct document.* 9 \.txt \(not in utf-8\)\. --encoding auto reads text in another encoding"
    with pytest.raises(UserError, match=left_out):
        run("prepare", *options)
    pytest.importorskip("charset_normalizer")
    made = run("prepare", *options, "--encoding", "auto", "--json")
    assert json.loads(made.stdout)["sources"][0]["documents"] == 10
