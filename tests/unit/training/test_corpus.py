"""What a run reads of a store that holds pairs."""

import json

import pytest

from pretextlm.data.prepare import prepare
from pretextlm.errors import UserError
from pretextlm.training.corpus import open_corpus
from pretextlm.training.distributed import SINGLE_PROCESS
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_setup import set_up

SHAPE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def recipe(store, objective="causal"):
    training = {"budget_steps": 1, "batch_tokens": 256, "dtype": "fp32", "compile": "off"}
    values = {"data": {"store": str(store.path), "length": 32}, "objective": objective, "model": SHAPE}
    return Recipe.load(values | {"training": training})


def test_a_store_of_pairs_is_refused_by_objectives_of_running_text_which_read_both_fields_as_one_text(tmp_path):
    records = [{"review": f"Film number {n} is an encouraging return", "label": "positive"} for n in range(60)]
    path = tmp_path / "reviews.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    pairs = prepare(f"{path}?source=review&target=label", tmp_path / "pairs", vocab_size=512, validation=0.2)
    with pytest.raises(UserError, match="All documents are pairs") as caught:
        open_corpus(recipe(pairs))
    assert "?field=SOURCE,TARGET" in caught.value.hint
    joined = prepare(f"{path}?field=review,label", tmp_path / "joined", vocab_size=512, validation=0.2)
    _, corpus = open_corpus(recipe(joined))
    text = joined.tokenizer.decode(corpus.train.document(0).tolist())
    assert text.endswith("an encouraging return\n\npositive")


def test_pairs_beside_plain_text_are_left_out_and_said(some_of_all):
    setup = set_up(recipe(some_of_all), SINGLE_PROCESS)
    assert setup.corpus.train.num_documents == 24
    assert setup.corpus.num_tokens == some_of_all.train.plain().num_tokens
    assert "24 pairs left out, which the objective does not read" in setup.notes
