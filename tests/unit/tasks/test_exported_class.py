"""What a fine-tuning says at its start is the class that its run is exported as."""

from __future__ import annotations

import pytest
from tests.builders import sentences

from pretextlm.cli.pretrain import how_it_leaves
from pretextlm.hf.custom_code import auto_class
from pretextlm.hf.export_model import export_model
from pretextlm.training.pretrain import pretrain

RECORDS = [
    {"text": text, "label": i % 2, "tokens": text.split(), "tags": ["B-X", *["O"] * (len(text.split()) - 1)]}
    for i, text in enumerate(sentences(24))
]


@pytest.mark.parametrize(
    ("task", "named"),
    [
        ({"name": "text_classification"}, "AutoModelForSequenceClassification"),
        ({"name": "token_classification"}, "AutoModelForTokenClassification"),
    ],
)
def test_a_fine_tuning_names_the_class_before_it_has_read_a_label(recipe, written, tmp_path, task, named, recwarn):
    wanted = recipe(task, written(RECORDS))
    said = how_it_leaves(wanted)
    assert said.architecture == named
    assert not [warning for warning in recwarn if "zero-element" in str(warning.message)]
    done = export_model(pretrain(wanted, tmp_path / "run"), tmp_path / "out")
    assert (done.family, auto_class(done.architecture)) == (said.family, named)
