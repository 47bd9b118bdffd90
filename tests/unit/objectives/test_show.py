"""`pretextlm show`: the picture says what the arrays say, in eighty columns, with Hangul in line."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from rich.cells import cell_len
from tests.commands import printed_by

from pretextlm.cli.show import draw
from pretextlm.cli.show import show as command
from pretextlm.errors import UserError
from pretextlm.objectives.preview.example_tokenizer import Pieces
from pretextlm.objectives.preview.show import show
from pretextlm.objectives.registry import OBJECTIVES

SENTENCE = "나는 오늘 라면을 먹었다. 그리고 language models are wonderful."

PAIR = "A small ship sails home. => Ein kleines Schiff fährt heim."
LECTURE = {
    "english": "The house is old. Nobody lives in it.",
    "korean": "나는 밥을 먹었다. 이어서 커피를 마셨다.",
    "one word": "hello",
    "한 낱말": "안녕",
}
FUNCTION = '''def larger(a, b):
    """Return the larger of two numbers."""
    return max(a, b)'''


def run(*arguments: str) -> str:
    return printed_by(command, *arguments, columns=80)


def test_words_are_cut_into_pieces_and_hangul_more_finely():
    pieces = Pieces.of(["나는 라면을 먹었다. language"])
    texts = [pieces.tokens[i] for i in pieces.documents[0]]
    assert texts == ["나는", "라면", "##을", "먹었", "##다", ".", "lang", "##uage"]
    assert pieces.word_starts == [[True, True, False, True, False, True, True, False]]
    assert not pieces.vocabulary.is_special[pieces.documents[0]].any()


def test_a_special_token_written_in_the_text_is_text():
    pieces = Pieces.of(["a [MASK] </s> <extra_id_0>"])
    assert not pieces.vocabulary.is_special[pieces.documents[0]].any()


@pytest.mark.parametrize("text", [SENTENCE, *LECTURE.values()], ids=["mixed", *LECTURE])
@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_every_objective_can_be_shown_and_fits_eighty_columns(name, text):
    printed = run(name, text)
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
    (shown,) = shown["cases"]
    labels = shown["arrays"]["labels"]
    assert shown["loss"]["targets"] == sum(label != -100 for label in labels)
    assert shown["loss"]["positions"] == len(labels)
    for text, label, token in zip(shown["texts"]["labels"], labels, shown["tokens"], strict=True):
        assert text == (None if label == -100 else token)
    assert np.array(shown["visibility"]["input"]).all()


def test_documents_on_lines_of_their_own_do_not_see_each_other():
    (shown,) = show("causal", {}, "가 나\n\n다 라 마\n").cases
    sight = shown.visibility["input"]
    assert (sight == np.tril(np.ones((8, 8), bool)) & (np.arange(8)[:, None] // 4 == np.arange(8) // 4)).all()
    assert shown.tokens == ["<s>", "가", "나", "</s>", "<s>", "다", "라", "마", "</s>"]


def test_an_encoder_decoder_has_three_sights():
    (shown,) = show("span_corruption", {"rate": 0.3}, SENTENCE).cases
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
    shown = json.loads(run(name, SENTENCE, "--json"))["cases"][0]
    loss, arrays = shown["loss"], shown["arrays"]
    assert loss["share"] == loss["targets"] / loss["positions"] > 0
    assert loss["positions"] == len(arrays.get("decoder_input_ids", arrays["input_ids"]))
    if name not in ("replaced_token", "distillation", "word_structure"):  # whose losses need no label of their own
        labels = arrays.get("decoder_labels", arrays.get("labels"))
        assert loss["targets"] == sum(label != -100 for label in labels) == loss["terms"]["lm"]


def test_an_objective_of_several_variants_shows_them_in_turn():
    shown = [json.loads(run("denoisers", SENTENCE, "--json", "--seed", str(n)))["cases"][0] for n in range(7)]
    assert len({one["variant"] for one in shown}) == 7
    assert [one["tokens"] for one in shown] == [shown[0]["tokens"]] * 7
    modes = [one["texts"]["input_ids"][0] for one in shown]
    assert modes == ["[NLU]"] * 2 + ["[NLG]"] * 4 + ["[S2S]"]


def test_a_pair_is_shown_as_source_and_target():
    (shown,) = json.loads(run("text_to_text", PAIR, "--json"))["cases"]
    assert shown["texts"]["input_ids"] == ["A", "small", "ship", "sails", "home", ".", "</s>"]
    assert shown["texts"]["decoder_labels"][-3:] == ["heim", ".", "</s>"]


def test_a_text_gains_its_marks_without_losing_its_end():
    for seed in range(20):
        (shown,) = json.loads(run("fill_in_middle", SENTENCE, "rate=1.0", "--json", "--seed", str(seed)))["cases"]
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


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_no_text_is_a_clear_error_for_every_objective(name):
    with pytest.raises(UserError, match="no text to show"):
        show(name, {}, " \n")


def test_both_answers_of_next_sentence_prediction_are_shown_for_two_korean_sentences():
    shown = show("next_sentence", {}, LECTURE["korean"])
    following, random = shown.cases
    first = ["[CLS]", "나는", "밥을", "먹었", "##다", ".", "[SEP]"]
    assert following.tokens == [*first, "이어", "##서", "커피", "##를", "마셨", "##다", ".", "[SEP]"]
    assert random.tokens[:7] == first
    assert "이어" not in random.tokens
    assert (following.row_label, random.row_label) == (0, 1)
    (note,) = shown.notes
    assert "three example sentences: 고양이가" in note
    printed = run("next_sentence", LECTURE["korean"])
    assert "Label of the whole row: 0 = IsNext: B follows A." in printed
    assert "Label of the whole row: 1 = NotNext: B is from another document." in printed


def test_reversed_labels_keep_their_meaning():
    shown = show("sentence_order", {"reverse_labels": True}, LECTURE["english"])
    swapped, ordered = shown.cases
    assert (swapped.row_label, ordered.row_label) == (0, 1)
    assert ordered.tokens[1:3] == ["The", "house"]
    assert ordered.title.startswith("in order")
    assert len(show("next_sentence", {"classes": 3}, LECTURE["english"]).cases) == 3


def test_own_documents_are_the_negatives_where_there_are_any():
    shown = show("next_sentence", {}, "One ship. Two ships.\nNobody knew.")
    assert not shown.notes
    assert shown.cases[1].tokens[-5:] == ["Nobo", "##dy", "knew", ".", "[SEP]"]


def test_a_functions_docstring_is_the_text_of_its_code():
    shown = show("bimodal_code", {}, FUNCTION)
    (case,) = shown.cases
    text = " ".join(case.tokens).replace(" ##", "")
    assert text == (
        "[CLS] Return the larger of two numbers . [SEP] def larger ( a , b ) : ↵▁▁▁▁ return max ( a , b ) [SEP]"
    )
    assert "docstring" in shown.notes[0]
    one_line = show("bimodal_code", {}, 'def f(가): "둘을 더한다."; return 가 + 2').cases[0]
    assert (
        " ".join(one_line.tokens).replace(" ##", "") == "[CLS] 둘을 더한다 . [SEP] def f ( 가 ) : return 가 + 2 [SEP]"
    )


def test_a_function_is_one_document_with_its_lines():
    (case,) = show("fill_in_middle", {}, FUNCTION).cases
    assert case.tokens.count("<s>") == 1
    assert case.tokens.count("↵▁▁▁▁") == 2
    assert {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"} <= set(case.row("input_ids"))


def test_what_is_brought_along_is_in_the_language_of_the_text_and_said():
    plain, pair = show("text_to_text", {}, LECTURE["english"]).cases
    assert plain.title == "plain text"
    assert pair.row("decoder_labels") == ["Das", "Haus", "ist", "alt", ".", "</s>"]
    korean = show("text_to_text", {}, LECTURE["korean"])
    assert korean.cases[1].row("decoder_labels")[:2] == ["그", "집은"]
    assert "source => target" in korean.notes[0]
    (plain,) = show("text_to_text", {"unsupervised": 1.0}, LECTURE["english"]).cases
    assert plain.title == "plain text"


def test_replaced_tokens_are_shown_with_the_generators_proposals_and_labels():
    shown = show("replaced_token", {}, LECTURE["english"])
    (case,) = shown.cases
    originals, labels = case.tokens, case.replaced[0].tolist()
    assert [int(a != b) for a, b in zip(originals, case.judged_row, strict=True)] == labels
    assert 1 in labels
    assert all(label is not None for label, one in zip(case.row("labels"), labels, strict=True) if one)
    printed = run("replaced_token", LECTURE["english"])
    assert "0 = original, 1 = replaced" in printed
    assert "No generator is trained here" in printed


def test_a_draw_that_shuffles_words_is_shown():
    (case,) = show("word_structure", {}, LECTURE["korean"]).cases
    order = case.row("shuffled_labels")
    assert [token for token, moved in zip(case.row("input_ids"), order, strict=True) if moved] != [*filter(None, order)]


def test_a_long_text_is_cut_and_the_output_says_so():
    shown = show("masked", {}, "a " * 100)
    assert len(shown.cases[0].tokens) == 62
    assert shown.notes == ["The text has 100 tokens; the first 60 are shown."]
    assert len(show("causal", {}, "\n".join(["one word"] * 40)).cases[0].tokens) <= 62


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("maskd", {}, "a b"), "Did you mean 'masked'?"),
        (("masked", {}, ""), "no text"),
        (("masked", {}, " \n "), "no text"),
        (("masked", {}, "a" * 20_000), "20,000 characters"),
        (("masked", {"rate": 3.0}, "a b"), "rate"),
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
