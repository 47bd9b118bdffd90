"""Data in which an objective finds nothing to learn is refused, instead of a loss of 0 from the first step on."""

import pytest

from pretextlm.data.prepare import prepare
from pretextlm.errors import UserError
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe

SHAPE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "type_vocab_size": 2}
TRAINING = {"budget_steps": 3, "batch_tokens": 256, "dtype": "fp32", "compile": "off", "validations": 1}


def trained(store, out, objective, **training):
    data = {"store": str(store), "length": 32}
    values = {"data": data, "objective": objective, "model": SHAPE, "training": {**TRAINING, **training}}
    return pretrain(Recipe.load(values), out)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Documents of one sentence."""
    place = tmp_path_factory.mktemp("short")
    (place / "text.txt").write_text("".join(f"Only one sentence, number {n}.\n" for n in range(200)))
    prepare(place / "text.txt", place / "store", tokenizer="wordpiece", vocab_size=1024, text_mode="lines")
    return place / "store"


@pytest.mark.parametrize("objective", ["next_sentence", {"name": "next_sentence", "classes": 3}, "sentence_order"])
def test_pairs_of_documents_of_one_sentence_are_refused(short, tmp_path, objective):
    with pytest.raises(UserError, match=r"No document of the split has (a sentence|two sentences)"):
        trained(short, tmp_path / "run", objective)


@pytest.mark.parametrize("validations", [0, 1])
def test_a_run_without_any_target_is_refused(short, tmp_path, monkeypatch, validations):
    from pretextlm.objectives.masked import Masked

    collate = Masked.collate

    def without_labels(self, *of):
        batch = collate(self, *of)
        batch.labels[:] = -100
        return batch

    monkeypatch.setattr(Masked, "collate", without_labels)
    with pytest.raises(UserError, match="target under 'masked': there is nothing to"):
        trained(short, tmp_path / "run", "masked", validations=validations)
