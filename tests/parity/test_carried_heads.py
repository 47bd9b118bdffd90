"""Heads that published models come with: carried by an import, the same logits as transformers, the same bytes back."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.foreign import BERT, word_pieces
from tests.parity.encoders import CLOSE
from tests.parity.families import exported_alike, our_states, randomised, their_logits

from pretextlm.hf.export_model import export_model
from pretextlm.hf.import_model import import_model
from pretextlm.hf.provenance import origin_of
from pretextlm.training import checkpoint as checkpoints
from pretextlm.training.state import TrainerState

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

SHAPE = {name: value for name, value in BERT.items() if name not in ("model_type", "architectures")}
NARROW = {**SHAPE, "embedding_size": 16}
IDS = [[2, 9, 11, 7, 3, 14, 15, 3], [2, 12, 3, 8, 6, 3, 0, 0]]
TYPES = [[0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 0, 0]]
MASK = [[1] * 8, [1] * 6 + [0] * 2]
SEGMENTS = [[0] * 8, [0] * 6 + [-1] * 2]
MODELS = {
    "bert": ("BertForPreTraining", "BertConfig", SHAPE, "next_sentence"),
    "albert": ("AlbertForPreTraining", "AlbertConfig", NARROW, "sentence_order"),
    "electra": ("ElectraForPreTraining", "ElectraConfig", NARROW, "replaced_token"),
}


def foreign(kind, place):
    """A random model with its head, saved by transformers with a tokenizer."""
    name, config, shape, _ = MODELS[kind]
    model = randomised(getattr(transformers, name)(getattr(transformers, config)(**shape)))
    model.save_pretrained(place)
    word_pieces().save(str(place / "tokenizer.json"))
    return model


@pytest.fixture(scope="module", params=list(MODELS))
def carried(request, tmp_path_factory):
    place = tmp_path_factory.mktemp(request.param)
    model = foreign(request.param, place / "theirs")
    run = import_model(str(place / "theirs"), place / "run")
    origin = origin_of(run.directory)
    return model, run, origin, place, MODELS[request.param][3]


def test_the_run_is_of_the_objective_that_trains_the_head_and_nothing_is_left(carried):
    _, run, origin, _, objective = carried
    assert run.recipe.training_objective.name == objective
    assert origin.not_carried == ()
    assert [name for name in origin.drawn if not name.startswith(("heads.generator.", "head_layers."))] == []


def test_the_head_has_the_same_logits(carried):
    model, run, _, _, objective = carried
    ours = run.load_model()
    arrays = {"input_ids": IDS, "token_type_ids": TYPES}
    states = our_states(ours, segment_ids=SEGMENTS, position_ids=[[*range(8)], [*range(6), 0, 0]], **arrays)
    with torch.inference_mode():
        theirs = model(**{k: torch.tensor(v) for k, v in {**arrays, "attention_mask": MASK}.items()})
        if objective == "replaced_token":
            keep = torch.tensor(MASK) == 1
            torch.testing.assert_close(ours.heads["replaced"](states)[keep], theirs.logits[keep], **CLOSE)
        else:
            expected = theirs.seq_relationship_logits if model.config.model_type == "bert" else theirs.sop_logits
            torch.testing.assert_close(ours.heads["pair"](states[:, 0]), expected, **CLOSE)


def test_an_export_gives_back_the_same_bytes(carried, tmp_path):
    model, run, _, place, _ = carried
    again = exported_alike(run, model, place / "theirs", tmp_path / "out")
    if "electra" in str(place):
        assert torch.equal(their_logits(again.eval(), input_ids=IDS), their_logits(model, input_ids=IDS))


def test_a_head_is_left_where_the_user_says_another_objective(carried, tmp_path):
    place = carried[3]
    run = import_model(str(place / "theirs"), tmp_path / "run", objective="masked")
    origin = origin_of(run.directory)
    assert run.recipe.training_objective.name == "masked"
    assert origin.not_carried != ()
    assert not [name for name in run.load_model().state_dict() if name.startswith("heads.")]


BARE = {
    "BertModel": ("BertConfig", SHAPE),
    "AlbertModel": ("AlbertConfig", NARROW),
    "RobertaModel": ("RobertaConfig", SHAPE),
    "LongformerModel": ("LongformerConfig", {**SHAPE, "attention_window": 8}),
}


@pytest.mark.parametrize("name", list(BARE))
def test_a_pooler_alone_is_no_head_but_comes_back_and_is_left_out_after_training(tmp_path, name):
    config, shape = BARE[name]
    model = randomised(getattr(transformers, name)(getattr(transformers, config)(**shape)))
    model.save_pretrained(tmp_path / "theirs")
    word_pieces().save(str(tmp_path / "theirs" / "tokenizer.json"))
    run = import_model(str(tmp_path / "theirs"), tmp_path / "run")
    origin = origin_of(run.directory)
    assert run.recipe.training_objective.name == "masked"
    assert origin.not_carried == ()
    done = export_model(run.directory, tmp_path / "out")
    expected, found = (load_file(tmp_path / place / "model.safetensors") for place in ("theirs", "out"))
    assert done.architecture == name
    assert set(found) == set(expected)
    assert all(torch.equal(found[tensor], expected[tensor]) for tensor in expected)

    checkpoints.save(run.checkpoints, 1, run.load_model().state_dict(), {}, vars(TrainerState(step=1)), keep=1)
    done = export_model(run.directory, tmp_path / "trained")
    assert done.architecture == name.replace("Model", "ForMaskedLM")
    _, report = getattr(transformers, done.architecture).from_pretrained(tmp_path / "trained", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


@pytest.mark.parametrize("kind", ["bert", "albert"])
def test_a_model_of_one_token_type_is_not_taken_for_one_of_pairs(tmp_path, kind):
    place = tmp_path / "theirs"
    foreign(kind, place)
    tensors = load_file(place / "model.safetensors")
    types = f"{kind}.embeddings.token_type_embeddings.weight"
    save_file({**tensors, types: tensors[types][:1].clone()}, place / "model.safetensors")
    values = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**values, "type_vocab_size": 1}))
    run = import_model(str(place), tmp_path / "run")
    origin = origin_of(run.directory)
    assert run.recipe.training_objective.name == "masked"
    assert origin.not_carried != ()
