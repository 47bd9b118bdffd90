"""Embedding models as directories of sentence-transformers: the same vectors there, and the task back at import."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.builders import make_store
from tests.foreign import bert_directory, word_pieces
from tests.parity.families import randomised
from tests.parity.fine_tuned import LLAMA, tuned

from pretextlm.errors import UserError
from pretextlm.evaluation.predict import predict
from pretextlm.hf.export_model import export_model
from pretextlm.hf.import_model import import_model
from pretextlm.training import checkpoint as checkpoints
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.run_start import build_model
from pretextlm.training.state import TrainerState

transformers = pytest.importorskip("transformers", reason="it is the reader (extra hub)")
library = pytest.importorskip("sentence_transformers", reason="it is the reader (extra dev)")

pytestmark = pytest.mark.slow

TEXTS = [
    "The old ship sails down the river.",
    "a",
    "",
    "배는 강을 따라 내려간다. 🚢",
    "def add(a, b):\n    return a + b",
    "the ship " * 60,
]
PAIRS = {
    "sentence_embedding": [{"anchor": f"the ship {i}", "positive": f"a ship {i} sails", "score": i} for i in range(6)]
}


def ours(run):
    """The vectors of a run: (number of texts, width)."""
    return np.array([one["answer"] for one in predict(run, TEXTS)])


def theirs(directory, **options):
    model = library.SentenceTransformer(str(directory), device="cpu", **options)
    return np.concatenate([model.encode(TEXTS[:3]), model.encode(TEXTS[3:])])


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "last"])
def test_an_embedding_model_gives_the_same_vectors_there_and_after_import(pooling, tmp_path):
    start = import_model(bert_directory(tmp_path / "theirs"), tmp_path / "start")
    task = {"name": "sentence_embedding", "pooling": pooling}
    run = tuned(tmp_path, start.directory, task, rows_of=PAIRS)
    done = export_model(run.directory, tmp_path / "out")
    assert (done.architecture, done.checked[:8]) == ("BertModel", "checked:")
    found = theirs(tmp_path / "out")
    np.testing.assert_allclose(found, ours(run), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    again = import_model(tmp_path / "out", tmp_path / "again")
    assert (again.recipe.task.name, again.recipe.task.pooling) == ("sentence_embedding", pooling)
    assert again.recipe.data.length == run.recipe.data.length
    np.testing.assert_allclose(ours(again), found, atol=1e-5)
    export_model(again.directory, tmp_path / "back")
    np.testing.assert_allclose(theirs(tmp_path / "back"), found, atol=1e-6)
    assert "sentence-similarity" in (tmp_path / "back" / "README.md").read_text()


def test_a_decoder_embeds_there_as_here(tmp_path):
    model = randomised(transformers.LlamaModel(transformers.LlamaConfig(**LLAMA)))
    model.save_pretrained(tmp_path / "theirs")
    word_pieces().save(str(tmp_path / "theirs" / "tokenizer.json"))
    start = import_model(tmp_path / "theirs", tmp_path / "start")
    run = tuned(tmp_path, start.directory, {"name": "sentence_embedding", "pooling": "last"}, rows_of=PAIRS)
    done = export_model(run.directory, tmp_path / "out")
    assert done.architecture == "LlamaModel"
    filled = [place for place, text in enumerate(TEXTS) if text]  # no token is left of an empty text
    np.testing.assert_allclose(theirs(tmp_path / "out")[filled], ours(run)[filled], atol=1e-5)


@pytest.mark.parametrize("architecture", ["encoder", "decoder"])
def test_the_default_trunk_embeds_there_with_its_own_code(architecture, tmp_path):
    store = make_store(tmp_path / "store", train=40, validation=10)
    values = {
        "data": {"train": "rows.jsonl", "validation": "rows.jsonl", "length": 32},
        "task": {"name": "sentence_embedding"},
        "model": {"architecture": architecture, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
        "training": {"budget_steps": 2},
    }
    recipe = Recipe.load(values).with_vocabulary(store.vocabulary)
    run = Run.create(tmp_path / "run", recipe, {}, store.path / "tokenizer.json")
    model = randomised(build_model(recipe, torch.device("cpu")))
    checkpoints.save(run.checkpoints, 2, model.state_dict(), {}, vars(TrainerState(step=2)), keep=1)
    done = export_model(run.directory, tmp_path / "out")
    assert done.checked.startswith("checked")
    own = done.family == "pretextlm"
    found = theirs(tmp_path / "out", **({"trust_remote_code": True} if own else {}))
    np.testing.assert_allclose(found, ours(run), atol=1e-5)


def test_what_the_library_writes_is_read_and_other_modules_are_refused(tmp_path):
    start = import_model(bert_directory(tmp_path / "theirs"), tmp_path / "start")
    run = tuned(tmp_path, start.directory, {"name": "sentence_embedding", "pooling": "cls"}, rows_of=PAIRS)
    export_model(run.directory, tmp_path / "out")
    library.SentenceTransformer(str(tmp_path / "out"), device="cpu").save(str(tmp_path / "saved"))
    again = import_model(tmp_path / "saved", tmp_path / "again")
    assert again.recipe.task.pooling == "cls"
    np.testing.assert_allclose(ours(again), ours(run), atol=1e-5)
    values = json.loads((tmp_path / "saved" / "modules.json").read_text())
    values.insert(2, {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (tmp_path / "saved" / "modules.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="Transformer, Pooling, Dense, Normalize") as refused:
        import_model(tmp_path / "saved", tmp_path / "other")
    assert "--objective masked" in refused.value.hint
    assert import_model(tmp_path / "saved", tmp_path / "other", objective="masked").recipe.task is None
