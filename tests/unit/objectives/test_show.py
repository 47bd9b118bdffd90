"""`pretextlm show`: the picture says what the arrays say, in eighty columns, with Hangul in line."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import typer
from rich.cells import cell_len
from typer.testing import CliRunner

from pretextlm.cli.show import draw
from pretextlm.cli.show import show as command
from pretextlm.errors import UserError
from pretextlm.objectives.preview.example_tokenizer import Pieces
from pretextlm.objectives.preview.show import show
from pretextlm.objectives.registry import OBJECTIVES

SENTENCE = "나는 오늘 라면을 먹었다. 그리고 language models are wonderful."

PAIR = "A small ship sails home. => Ein kleines Schiff fährt heim."
TEXTS = {
    "next_sentence": "The ship sails. It is old.\nNobody knew the law. It was long.",
    "sentence_order": "The ship sails home. It is old. Nobody knew it.",
    "bimodal_code": "Add two numbers. => return first + second",
    "text_to_text": PAIR,
}
OPTIONS = {"text_to_text": ["unsupervised=0.0"]}
"""Where one sentence, or the usual options, are not enough."""


def run(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "80"}, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_words_are_cut_into_pieces_and_hangul_more_finely():
    pieces = Pieces.of(["나는 라면을 먹었다. language"])
    texts = [pieces.tokens[i] for i in pieces.documents[0]]
    assert texts == ["나는", "라면", "##을", "먹었", "##다", ".", "lang", "##uage"]
    assert pieces.word_starts == [[True, True, False, True, False, True, True, False]]
    assert not pieces.vocabulary.is_special[pieces.documents[0]].any()


def test_a_special_token_written_in_the_text_is_text():
    pieces = Pieces.of(["a [MASK] </s> <extra_id_0>"])
    assert not pieces.vocabulary.is_special[pieces.documents[0]].any()


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_every_objective_can_be_shown_and_fits_eighty_columns(name):
    printed = run(name, TEXTS.get(name, SENTENCE), *OPTIONS.get(name, []))
    assert max(cell_len(line.rstrip()) for line in printed.splitlines() if "https://" not in line) <= 80
    assert OBJECTIVES[name].title in printed
    assert "made from this text alone" in printed


def test_hangul_columns_stand_under_each_other():
    lines = [line for line in run("masked", "나는 라면을 먹었다 a b", "rate=0.4").splitlines() if line]
    (tokens,), (given,) = ([x for x in lines if x.startswith(word)] for word in ("tokens", "input"))

    def starts(line):
        return [cell_len(line[:i]) for i in range(1, len(line)) if line[i - 1] == " " and line[i] != " "]

    assert starts(tokens) == starts(given)


def test_the_picture_is_the_matrix():
    matrix = np.random.default_rng(0).random((7, 9)) < 0.5
    lines = [line.partition("│")[2].rstrip("│") for line in draw(matrix.tolist())[1:-1]]
    upper = [[cell in "▀█" for cell in line] for line in lines]
    lower = [[cell in "▄█" for cell in line] for line in lines]
    drawn = [row for pair in zip(upper, lower, strict=True) for row in pair][:7]
    assert drawn == matrix.tolist()


def test_json_holds_arrays_texts_and_matrices_that_agree():
    shown = json.loads(run("masked", SENTENCE, "rate=0.3", "unit=word", "--json", "--seed", "3"))
    assert shown["options"]["unit"] == "word"
    assert shown["seed"] == 3
    labels = shown["arrays"]["labels"]
    assert shown["loss"]["targets"] == sum(label != -100 for label in labels)
    assert shown["loss"]["positions"] == len(labels)
    for text, label, token in zip(shown["texts"]["labels"], labels, shown["tokens"], strict=True):
        assert text == (None if label == -100 else token)
    assert np.array(shown["visibility"]["input"]).all()


def test_documents_on_lines_of_their_own_do_not_see_each_other():
    shown = show("causal", {}, "가 나\n\n다 라 마\n")
    sight = shown.visibility["input"]
    assert (sight == np.tril(np.ones((8, 8), bool)) & (np.arange(8)[:, None] // 4 == np.arange(8) // 4)).all()
    assert shown.tokens == ["<s>", "가", "나", "</s>", "<s>", "다", "라", "마", "</s>"]


def test_an_encoder_decoder_has_three_sights():
    shown = show("span_corruption", {"rate": 0.3}, SENTENCE)
    source, target = shown.batch.input_ids.shape[1], shown.batch.decoder_input_ids.shape[1]
    assert {name: sight.shape for name, sight in shown.visibility.items()} == {
        "input": (source, source),
        "decoder": (target, target),
        "cross": (target, source),
    }
    assert (shown.visibility["decoder"] == np.tril(np.ones((target, target), bool))).all()
    assert shown.visibility["cross"].all()


def test_the_same_seed_shows_the_same_and_another_shows_another():
    first, again = (run("masked", SENTENCE, "--json") for _ in range(2))
    assert first == again
    assert len({run("masked", SENTENCE, "--json", "--seed", str(s)) for s in range(5)}) == 5


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_every_objective_says_which_share_of_positions_carries_a_loss(name):
    shown = json.loads(run(name, TEXTS.get(name, SENTENCE), *OPTIONS.get(name, []), "--json"))
    loss, arrays = shown["loss"], shown["arrays"]
    assert loss["share"] == loss["targets"] / loss["positions"] > 0
    assert loss["positions"] == len(arrays.get("decoder_input_ids", arrays["input_ids"]))
    if name not in ("replaced_token", "distillation", "word_structure"):  # whose losses need no label of their own
        labels = arrays.get("decoder_labels", arrays.get("labels"))
        assert loss["targets"] == sum(label != -100 for label in labels) == loss["terms"]["lm"]


def test_an_objective_of_several_variants_shows_them_in_turn():
    shown = [json.loads(run("denoisers", SENTENCE, "--json", "--seed", str(seed))) for seed in range(7)]
    assert len({one["variant"] for one in shown}) == 7
    assert [one["tokens"] for one in shown] == [shown[0]["tokens"]] * 7
    modes = [one["texts"]["input_ids"][0] for one in shown]
    assert modes == ["[NLU]"] * 2 + ["[NLG]"] * 4 + ["[S2S]"]


def test_a_pair_is_shown_as_source_and_target_and_its_label_as_a_row():
    shown = json.loads(run("text_to_text", PAIR, "unsupervised=0.0", "--json"))
    assert shown["texts"]["input_ids"] == ["A", "small", "ship", "sails", "home", ".", "</s>"]
    assert shown["texts"]["decoder_labels"][-3:] == ["heim", ".", "</s>"]
    assert "Label of the whole row: 0." in run("sentence_order", TEXTS["sentence_order"], "--seed", "3") or (
        "Label of the whole row: 1." in run("sentence_order", TEXTS["sentence_order"], "--seed", "3")
    )


def test_a_text_gains_its_marks_without_losing_its_end():
    for seed in range(20):
        shown = json.loads(run("fill_in_middle", SENTENCE, "rate=1.0", "--json", "--seed", str(seed)))
        assert {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"} <= set(shown["texts"]["input_ids"])
        assert shown["texts"]["input_ids"][-1] == "</s>"


def test_the_list_names_every_objective_with_its_options():
    listed = json.loads(run("--list", "--json"))["objectives"]
    assert [entry["objective"] for entry in listed] == list(OBJECTIVES)
    masked = next(entry for entry in listed if entry["objective"] == "masked")
    assert masked["options"]["rate"] == {"default": 0.15, "description": "share of the tokens that are selected"}
    assert "arxiv.org/abs/1810.04805" in masked["paper"]
    printed = run("--list")
    assert all(entry["title"] in printed for entry in listed)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("maskd", {}, "a b"), "Did you mean 'masked'?"),
        (("masked", {}, ""), "no text"),
        (("masked", {}, " \n "), "no text"),
        (("masked", {}, "a " * 100), "between 2 and 62"),
        (("masked", {}, "a" * 20_000), "20,000 characters"),
        (("span_corruption", {}, "a"), "between 2"),
        (("masked", {"rate": 3.0}, "a b"), "rate"),
        (("next_sentence", {}, "One. Two."), "two documents"),
        (("text_to_text", {}, "One. Two."), "pair"),
    ],
)
def test_what_cannot_be_shown_is_said(arguments, part):
    with pytest.raises(UserError) as fault:
        show(*arguments)
    assert part in str(fault.value)


def test_a_store_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        show("masked", {}, "a b", store=tmp_path / "nowhere")


def test_showing_does_not_import_torch():
    code = (
        "import sys; from pretextlm.cli.show import show;"
        "show('masked', 'a b c', as_json=False, every=False, store=None, seed=0, options=None);"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
