"""The same questions side by side, cut to what one reads at a glance."""

from __future__ import annotations

from pathlib import Path

from tests.unit.report.synthetic_runs import EIGHT, NO_BLANKS, write_study

from pretextlm.report import samples
from pretextlm.report.read import read


def test_blanks_on_which_models_differ_come_first_and_some_on_which_they_agree_after(tmp_path: Path) -> None:
    shown = samples.blanks(read([write_study(tmp_path / "s")]))
    differ = [len({answer.chose_right for answer in sample.answers}) > 1 for sample in shown]
    assert differ == [True] * (samples.BLANKS - samples.AGREED) + [False] * samples.AGREED


def test_every_model_answers_every_blank_in_the_order_of_the_study(tmp_path: Path) -> None:
    for sample in samples.blanks(read([write_study(tmp_path / "s", ("masked", "causal"))])):
        assert [answer.label for answer in sample.answers] == ["masked", "causal"]
        assert all(answer.correct == (answer.text == sample.expected) for answer in sample.answers)


def test_of_many_models_fewer_samples_are_shown_and_none_is_missing(tmp_path: Path) -> None:
    study = read([write_study(tmp_path / "s", (*EIGHT, NO_BLANKS), (1,))])
    shown = samples.blanks(study)
    assert len(shown) == samples.FEWER_BLANKS
    assert all([answer.label for answer in sample.answers] == list(EIGHT) for sample in shown)
    assert samples.silent(study) == ["masked", "replaced_token", "permutation", NO_BLANKS]
    speaking = ["causal", "span_corruption", "prefix", "denoising", "fill_in_middle"]
    assert all([answer.label for answer in sample.answers] == speaking for sample in samples.prompts(study))


def test_long_contexts_are_cut_at_words_and_say_so() -> None:
    left, right = samples._parts("before " * 100 + "____" + " after" * 100)
    assert left.startswith("… before ")
    assert right.endswith(" after …")
    assert len(left) <= samples.BEFORE + 2
    assert len(right) <= samples.AFTER + 2


def test_a_whole_sentence_is_shown_as_it_is() -> None:
    assert samples._parts("The ____ is strong.") == ["The ", " is strong."]


def test_without_a_finished_run_there_is_nothing_to_show(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", ("causal",), (1,))
    (study / "runs/causal-seed1/evaluation.json").unlink()
    assert samples.blanks(read([study])) == samples.prompts(read([study])) == []
