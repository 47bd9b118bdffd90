"""Ids that a published model's settings name: writing starts and stops as in transformers, and so does training."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.foreign import word_pieces
from tests.parity.families import randomised

from pretextlm.batch import IGNORE, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.hf.export_model import export_model
from pretextlm.hf.import_model import import_model
from pretextlm.model.generation import GenerationConfig, generate
from pretextlm.model.model_inputs import prepare
from pretextlm.objectives.shared import layout
from pretextlm.training.run_directory import Run

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

PAD, UNK, CLS, SEP, MASK = range(5)
LLAMA = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
}
BART = {
    "vocab_size": 64,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 40,
    "pad_token_id": PAD,
    "bos_token_id": CLS,
    "eos_token_id": SEP,
    "decoder_start_token_id": SEP,
    "forced_eos_token_id": None,
}
PROMPTS = np.random.default_rng(0).integers(5, 60, (10, 7))


def saved(model, place, generation=None, **changes):
    """By transformers, with a tokenizer; changes are of config.json alone."""
    model.save_pretrained(place)
    word_pieces().save(str(place / "tokenizer.json"))
    values = json.loads((place / "config.json").read_text()) | changes
    (place / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v != "absent"}))
    (place / "generation_config.json").unlink(missing_ok=True)
    if generation is not None:
        (place / "generation_config.json").write_text(json.dumps(generation))
    return place


@pytest.fixture(scope="module")
def llama():
    model = randomised(transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.ndim == 2 else 1)
    return model


@pytest.fixture(scope="module")
def bart():
    return randomised(transformers.BartForConditionalGeneration(transformers.BartConfig(**BART)))


@pytest.mark.parametrize(
    ("generation", "changes", "ends"),
    [
        (None, {"eos_token_id": 7}, (7,)),
        (None, {"eos_token_id": [7, 11, 23]}, (7, 11, 23)),
        ({"eos_token_id": [9, 40, 30, 8]}, {"eos_token_id": 30}, (30, 9, 40, 8)),
    ],
    ids=["one", "several", "those of writing"],
)
def test_texts_end_where_transformers_ends_them(llama, tmp_path, generation, changes, ends):
    place = saved(llama, tmp_path / "theirs", generation, bos_token_id=12, pad_token_id=3, **changes)
    run = import_model(str(place), tmp_path / "run")
    vocabulary = run.vocabulary
    assert (vocabulary.ends, vocabulary.bos, vocabulary.pad) == (ends, 12, 3)
    theirs = transformers.LlamaForCausalLM.from_pretrained(place).eval()
    with torch.inference_mode():
        rows = theirs.generate(torch.from_numpy(PROMPTS), do_sample=False, max_new_tokens=20)[:, 7:].tolist()
    expected = [row[: next((n for n, token in enumerate(row) if token in ends), None)] for row in rows]
    settings = GenerationConfig(temperature=0, max_new_tokens=20, suppress=())
    assert generate(run.load_model(), vocabulary, PROMPTS.tolist(), settings) == expected
    assert len({len(text) for text in expected}) > 1


def test_ids_that_are_no_tokens_are_left_to_the_names(llama, tmp_path):
    place = saved(llama, tmp_path / "theirs", {}, bos_token_id=-1, eos_token_id=[10**9, True], pad_token_id="x")
    run = import_model(str(place), tmp_path / "run")
    tokens = [
        run.tokenizer.id_to_token(index) for index in (run.vocabulary.pad, run.vocabulary.bos, *run.vocabulary.ends)
    ]
    assert tokens == ["[PAD]", "<s>", "</s>"]


def test_a_run_begun_from_an_import_keeps_its_ids_and_its_export_names_them(llama, tmp_path):
    place = saved(llama, tmp_path / "theirs", {"eos_token_id": [7, 11]}, bos_token_id=12, pad_token_id=3)
    run = import_model(str(place), tmp_path / "run")
    assert Run.open(run.directory).vocabulary == run.vocabulary
    export_model(run.directory, tmp_path / "out")
    again = import_model(str(tmp_path / "out"), tmp_path / "again")
    assert again.recipe.model.special_token_ids == run.recipe.model.special_token_ids


@pytest.mark.parametrize("named", [SEP, CLS, "absent"])
def test_a_decoder_over_an_encoder_is_trained_from_the_start_that_is_named(bart, tmp_path, named):
    place = saved(bart, tmp_path / "theirs", {}, decoder_start_token_id=named)
    run = import_model(str(place), tmp_path / "run")
    start = SEP if named == "absent" else named
    assert run.recipe.training_objective.name == "denoising"
    assert run.vocabulary.start == start
    rng = np.random.default_rng(3)
    source, target = (rng.integers(5, 60, (4, width)).astype(np.int32) for width in (9, 6))
    batch = layout.encoder_decoder(source, target, run.vocabulary, np.arange(4))
    ours = run.load_model()
    with torch.inference_mode():
        outputs = ours(prepare(batch, ours.config, torch.device("cpu"), torch.float32))
        logits = outputs.logits_NV[:, :64]  # rows that the import added are not theirs
        found = torch.nn.functional.cross_entropy(logits, outputs.labels_N)
        theirs = transformers.BartForConditionalGeneration.from_pretrained(place).eval()
        theirs.config.decoder_start_token_id = start
        expected = theirs(input_ids=torch.from_numpy(source).long(), labels=torch.from_numpy(target).long()).loss
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_padded_row_of_a_bart_has_the_loss_of_transformers(bart, tmp_path):
    run = import_model(str(saved(bart, tmp_path / "theirs")), tmp_path / "run")
    objective, vocabulary = run.recipe.training_objective, run.vocabulary
    lengths, width = np.array([12, 8, 10]), 12
    real = np.arange(width) < lengths[:, None]
    tokens = np.where(real, np.random.default_rng(5).integers(5, 60, real.shape), vocabulary.pad).astype(np.int32)
    ids = np.arange(3)
    rows = Rows(
        tokens=tokens.reshape(-1),
        offsets=np.arange(len(lengths) + 1) * width,
        segment_ids=np.where(real, 0, -1).astype(np.int32).reshape(-1),
        position_ids=np.where(real, np.arange(width), 0).astype(np.int32).reshape(-1),
        word_starts=np.ones(real.size, bool),
        sentence_starts=np.zeros(real.size, bool),
        example_ids=ids,
    )
    batch = objective.collate(rows, vocabulary, CounterRNG.of(0, 0, ids))
    ours = run.load_model()
    with torch.inference_mode():
        outputs = ours(prepare(batch, ours.config, torch.device("cpu"), torch.float32))
        found = torch.nn.functional.cross_entropy(outputs.logits_NV[:, :64], outputs.labels_N)
        labels = np.where(batch.decoder_labels == IGNORE, -100, batch.decoder_labels)
        expected = bart(
            input_ids=torch.from_numpy(batch.input_ids).long(),
            attention_mask=torch.from_numpy(batch.segment_ids >= 0).long(),
            labels=torch.from_numpy(labels).long(),
        ).loss
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
