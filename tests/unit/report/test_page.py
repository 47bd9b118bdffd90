"""The page stands alone, runs nothing and shows nothing of a run unescaped."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.unit.report.synthetic_runs import EIGHT, NO_BLANKS, write_run, write_study

from pretextlm.errors import UserError
from pretextlm.report.measures import measures
from pretextlm.report.page import render, summary, write_report
from pretextlm.report.read import read

SCRIPT = "<script>alert(1)</script>"
VOID = {"meta", "br", "line", "rect", "circle", "path"}


class Tags(HTMLParser):
    """Collects tags and attributes, and checks that every element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture
def page(tmp_path: Path) -> str:
    return render(read([write_study(tmp_path / "s")]))


def test_the_page_is_well_formed_and_small(page: str) -> None:
    Tags(page)
    assert len(page.encode()) < 150_000


def test_the_page_asks_no_server_for_anything(page: str) -> None:
    tags = Tags(page).tags
    assert not {tag for tag, _ in tags} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "a",
        "use",
    }
    assert not [
        a for _, attrs in tags for a in attrs if a in {"src", "href", "xlink:href", "srcset"} or a.startswith("on")
    ]
    assert "url(" not in page
    assert "@import" not in page


def test_the_policy_of_the_page_forbids_what_it_does_not_need(page: str) -> None:
    policies = [a["content"] for tag, a in Tags(page).tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0] is not None
    assert policies[0].startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert "script-src" not in policies[0]


def test_names_samples_and_configuration_are_escaped(tmp_path: Path) -> None:
    names = dict.fromkeys(("name", "store", "device", "answer", "argument", "source"), SCRIPT)
    study = write_study(tmp_path / "s", seeds=(1,), **names)
    write_run(study / "runs" / "<script>alert(1)<x>-seed1", SCRIPT, 1, **names)
    text = render(read([study]))
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 10
    Tags(text)


def test_every_section_is_there_in_the_promised_order(page: str) -> None:
    titles = re.findall(r"<h2 [^>]*>([^<]*)</h2>", page)
    assert titles == [
        "What was compared",
        "Learning curves",
        "The same blanks for all",
        "All measures",
        "What they answer",
        "What it cost",
        "Do it again",
        "Environment",
    ]


def test_the_page_shows_exact_parameters_licence_command_and_that_energy_was_not_measured(page: str) -> None:
    for text in (
        "5,049,600",
        "public domain",
        "compare recipes/studies/three_objectives.toml &#39;store=my store&#39;",
    ):
        assert text in page
    assert page.count("not measured") == 3
    assert "losses" in page.lower()


def test_right_and_wrong_are_told_in_words(page: str) -> None:
    assert "✓ right" in page
    assert "✗ wrong" in page


def test_an_unfinished_run_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", seeds=(1, 2))
    shutil.rmtree(study / "runs/masked-seed2")
    write_run(study / "runs/masked-seed2", "masked", 2, finished=False)
    text = render(read([study]))
    assert "<b>masked-seed2</b> is unfinished: its last line is of step 320" in text
    assert "5 of 6 finished" in text


def test_a_study_without_any_finished_run_still_has_a_page(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", ("causal",), (1,))
    shutil.rmtree(study / "runs")
    Tags(render(read([study])))
    write_run(study / "runs/causal-seed1", "causal", 1, finished=False)
    Tags(render(read([study])))


def test_one_run_and_several_runs_have_a_page_too(tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "causal-seed1", "causal", 1), write_run(tmp_path / "masked-seed1", "masked", 1)
    Tags(render(read([one])))
    assert "2 runs" in render(read([one, two]))


def test_a_measure_that_nobody_knows_is_shown_by_its_unit(tmp_path: Path) -> None:
    path = write_run(tmp_path / "causal-seed1", "causal", 1)
    (path / "evaluation.json").write_text(
        '{"metrics": {"surprise_index": {"value": 0.123, "n": 5, "unit": "fraction", "better": "lower"}}}'
    )
    text = render(read([path]))
    assert "Surprise index" in text
    assert "12.3%" in text


def test_the_report_lies_in_the_study_and_is_replaced_whole(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", ("causal",), (1,))
    for _ in range(2):
        path, values = write_report([study])
    assert path == study / "report.html"
    assert [p.name for p in study.iterdir() if "report" in p.name] == ["report.html"]
    assert values["conditions"]["causal"]["blank_choice_accuracy"]["seeds"] == 1


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", ("causal",), (1,))
    with pytest.raises(UserError, match="Cannot write"):
        write_report([study], tmp_path / "missing" / "report.html")


def test_the_summary_has_every_measure_of_every_condition(tmp_path: Path) -> None:
    values = summary(read([write_study(tmp_path / "s")]))
    assert set(values["conditions"]["masked"]) == {
        "blank_choice_accuracy", "blank_exact_match", "blank_log_likelihood",
        "loss", "pseudo_perplexity", "fill_accuracy",
    }  # fmt: skip
    assert values["unfinished"] == {}


@pytest.mark.slow
def test_a_report_is_written_without_torch(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", ("causal", "masked"), (1, 2))
    code = (
        "import sys; from pathlib import Path; from pretextlm.report.page import write_report\n"
        f"write_report([Path({str(study)!r})])\n"
        "sys.exit('imported torch' if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_models_that_continue_no_text_are_named_once(page: str) -> None:
    assert page.count("Masked continues no text.") == 1
    assert page.count("not be afraid of the work") == 2


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine conditions, one of which fills no blanks."""
    return write_study(tmp_path_factory.mktemp("many") / "s", (*EIGHT, NO_BLANKS))


def test_many_conditions_are_surveyed_in_their_rank(many: Path) -> None:
    text = render(read([many]))
    Tags(text)
    assert len(text.encode()) < 250_000
    scores = [100 * m.summary.mean for m in measures(read([many]))[0].ranked()]
    charted = [float(value) for value in re.findall(r'class="value"[^>]*>(\d+\.\d)%', text)[:8]]
    assert charted == pytest.approx(scores, abs=0.06)
    assert len(re.findall(r"validation loss against", text)) == len(EIGHT) + 1
    assert len(re.findall(r"<th scope=\"row\">\w[^<]* less ", text)) == len(EIGHT) - 1
    assert text.count('<th scope="rowgroup"') == len(EIGHT) + 1


def test_a_condition_that_fills_no_blanks_has_its_own_measures_only(many: Path) -> None:
    text = render(read([many]))
    assert "Sentence order fills no blanks" in text
    assert "not all asked the same blanks" not in text
    assert "Pairs told right" in text
    assert text.count('<span class="verb">chooses</span>') == 8 * 6
    values = summary(read([many]))["conditions"]["sentence_order"]
    assert set(values) == {"loss", "pair_accuracy"}


def test_no_two_of_many_conditions_look_alike(tmp_path: Path) -> None:
    labels = [f"condition{n}" for n in range(20)]
    text = render(read([write_study(tmp_path / "s", tuple(labels), (1,))]))
    cards = re.findall(r'<article class="card (c\d)">\s*<div>\s*<h3>(<svg.*?</svg>)', text, re.DOTALL)
    shapes = [(colour, re.sub(r'class="key c\d"', "", shape)) for colour, shape in cards]
    assert len(shapes) == len(set(shapes)) == 20
    assert len({shape for _, shape in shapes[:7]}) == 7
