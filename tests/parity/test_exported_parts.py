"""What is exported computes the same in transformers: both models of replaced tokens, positions that begin later."""

from __future__ import annotations

import pytest
import torch
from tests.builders import make_store
from tests.parity.families import our_logits, our_states, randomised, their_logits

from pretextlm.config import apply_overrides
from pretextlm.errors import UserError
from pretextlm.hf.export_model import export_model
from pretextlm.training import checkpoint as checkpoints
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.run_start import build_model
from pretextlm.training.state import TrainerState

transformers = pytest.importorskip("transformers", reason="it is the reader (extra hub)")

BERT = ['model.preset="bert-base-uncased"']
IDS = [[2, 300, 301, 302, 303, 3], [2, 300, 305, 3, 0, 0]]
MASK = [[1] * 6, [1] * 4 + [0] * 2]
REAL = torch.tensor(MASK) == 1
ROWS = {
    "input_ids": IDS,
    "segment_ids": [[0] * 6, [0] * 4 + [-1] * 2],
    "position_ids": [[*range(6)], [*range(4), 0, 0]],
}
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store", train=40, validation=10)


def made(store, directory, objective, *overrides):
    """A run whose every parameter is random, as if it had been trained."""
    values = {
        "data": {"store": str(store.path), "length": 64},
        "objective": objective,
        "model": {"architecture": "encoder", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
        "training": {"budget_steps": 2},
    }
    recipe = Recipe.load(apply_overrides(values, [*BERT, *overrides])).with_vocabulary(store.vocabulary)
    run = Run.create(directory, recipe, {}, store.path / "tokenizer.json")
    model = randomised(build_model(recipe, torch.device("cpu")))
    checkpoints.save(run.checkpoints, 2, model.state_dict(), {}, vars(TrainerState(step=2)), keep=1)
    return run


@pytest.mark.parametrize(
    ("sharing", "narrow"),
    [
        ("tied", True),
        ("tied", False),
        ("gradient_disentangled", True),
        ("gradient_disentangled", False),
        ("none", True),
    ],
)
def test_both_models_of_replaced_tokens_have_our_logits_in_transformers(store, tmp_path, sharing, narrow):
    more = ["model.embedding_size=16", "model.embedding={projection_bias=true}"] if narrow else []
    objective = {"name": "replaced_token", "sharing": sharing, "generator_size": 0.5}
    run = made(store, tmp_path / "run", objective, *more)
    ours = run.load_model()
    done = export_model(run.directory, tmp_path / "judge")
    assert (done.family, done.architecture) == ("electra", "ElectraForPreTraining")
    judge, report = transformers.ElectraForPreTraining.from_pretrained(tmp_path / "judge", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    with torch.inference_mode():
        found = ours.heads["replaced"](our_states(ours, **ROWS))
    theirs = their_logits(judge.eval(), input_ids=IDS, attention_mask=MASK)
    torch.testing.assert_close(theirs[REAL], found[REAL], **CLOSE)

    done = export_model(run.directory, tmp_path / "generator", part="generator")
    assert (done.family, done.architecture) == ("electra", "ElectraForMaskedLM")
    small, report = transformers.ElectraForMaskedLM.from_pretrained(tmp_path / "generator", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    theirs = their_logits(small.eval(), input_ids=IDS, attention_mask=MASK)
    torch.testing.assert_close(theirs[REAL], our_logits(ours.heads["generator"], **ROWS)[REAL], **CLOSE)


def test_a_judge_in_a_family_without_one_is_written_without_a_head(store, tmp_path):
    run = made(store, tmp_path / "run", {"name": "replaced_token", "generator_size": 0.5})
    done = export_model(run.directory, tmp_path / "out", family="bert")
    assert done.architecture == "BertModel"
    assert done.lost == ("replaced",)
    model = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    with torch.inference_mode():
        theirs = model(torch.tensor(IDS), attention_mask=torch.tensor(MASK)).last_hidden_state
    torch.testing.assert_close(theirs[REAL], our_states(run.load_model(), **ROWS)[REAL], **CLOSE)


def test_a_run_without_a_generator_has_none_to_export(store, tmp_path):
    run = made(store, tmp_path / "run", {"name": "masked"})
    with pytest.raises(UserError, match="no generator"):
        export_model(run.directory, tmp_path / "out", part="generator")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("offset", "family"), [(0, "bert"), (1, "roberta"), (2, "roberta"), (5, "roberta")])
def test_a_model_whose_positions_begin_later_has_our_logits_on_padded_rows(store, tmp_path, offset, family):
    rows = f"model.positions={{kind='learned',max_position_embeddings=80,offset={offset}}}"
    run = made(store, tmp_path / "run", {"name": "masked"}, rows)
    done = export_model(run.directory, tmp_path / "out")
    assert done.family == family
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    assert model.config.pad_token_id == run.vocabulary.pad
    theirs = their_logits(model, input_ids=IDS, attention_mask=MASK)
    torch.testing.assert_close(theirs[REAL], our_logits(run.load_model(), **ROWS)[REAL], **CLOSE)


def test_a_family_that_counts_positions_from_other_padding_is_refused(store, tmp_path):
    rows = "model.positions={kind='learned',max_position_embeddings=80,offset=2}"
    run = made(store, tmp_path / "run", {"name": "masked"}, rows, "model.special_token_ids={pad=5}")
    with pytest.raises(UserError, match="padding of id 1") as caught:
        export_model(run.directory, tmp_path / "out", family="roberta")
    assert "--family bert" in caught.value.hint
    assert export_model(run.directory, tmp_path / "out", family="bert").family == "bert"
