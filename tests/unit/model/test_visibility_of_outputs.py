"""Changing a token never changes an output that may not see it, and does change one that may: for every architecture,
across packed documents, and equally for what the gradient sees."""

import dataclasses

import numpy as np
import pytest
import torch
from tests.builders import make_model

from pretextlm.attention_mask import may_attend
from pretextlm.batch import Batch
from pretextlm.model.model_inputs import prepare
from pretextlm.model.transformer import Transformer

CPU = torch.device("cpu")
WIDTH = 12
SEGMENTS = np.array([[0] * 5 + [1] * 4 + [2] * 3, [0] * 12], dtype=np.int32)
POSITIONS = np.array([[*range(5), *range(4), *range(3)], [*range(12)]], dtype=np.int32)
PREFIXES = {
    "causal": None,
    "bidirectional": None,
    "prefix": np.array([[3] * 5 + [0] * 4 + [3] * 3, [7] * 12], dtype=np.int32),
}


def row_batch(attention: str) -> Batch:
    ids = np.random.default_rng(1).integers(0, 128, (2, WIDTH)).astype(np.int32)
    return Batch(ids, ids, SEGMENTS, POSITIONS, PREFIXES[attention], attention)


def two_row_batch() -> Batch:
    rng = np.random.default_rng(2)
    source, target = rng.integers(0, 128, (2, 2, WIDTH)).astype(np.int32)
    target_segments = np.array([[0] * 3 + [1] * 7 + [2] * 2, [0] * 12], dtype=np.int32)
    target_positions = np.array([[*range(3), *range(7), *range(2)], [*range(12)]], dtype=np.int32)
    return Batch(
        source,
        segment_ids=SEGMENTS,
        position_ids=POSITIONS,
        decoder_input_ids=target,
        decoder_labels=target,
        decoder_segment_ids=target_segments,
        decoder_position_ids=target_positions,
    )


def hidden(model: Transformer, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(prepare(batch, model.config, CPU, torch.float32)).hidden_BTD
    return out


def influence(model: Transformer, batch: Batch, field: str) -> np.ndarray:
    """(B, T, S) True where changing entry s of `field` changes output t."""
    before = hidden(model, batch)
    columns = []
    for column in range(WIDTH):
        ids = getattr(batch, field).copy()
        ids[:, column] = (ids[:, column] + 1) % 128
        after = hidden(model, dataclasses.replace(batch, **{field: ids}))
        columns.append((before - after).abs().amax(dim=-1).numpy() > 1e-6)
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("architecture", ["encoder", "decoder"])
@pytest.mark.parametrize("attention", ["causal", "bidirectional", "prefix"])
def test_an_output_depends_on_exactly_the_tokens_it_may_see(architecture, attention):
    batch = row_batch(attention)
    allowed = may_attend(SEGMENTS, SEGMENTS, POSITIONS, POSITIONS, PREFIXES[attention], attention)
    if attention == "prefix":  # two layers deep: what a visible token sees comes along
        allowed = (allowed.astype(int) @ allowed.astype(int)) > 0
    seen = influence(make_model(architecture=architecture), batch, "input_ids")
    assert (seen == allowed).all()


def test_an_encoder_decoder_stays_within_the_document_and_never_looks_ahead():
    batch, model = two_row_batch(), make_model(architecture="encoder_decoder")
    crossed = may_attend(batch.decoder_segment_ids, batch.segment_ids)
    assert (influence(model, batch, "input_ids") == crossed).all()
    own = may_attend(
        batch.decoder_segment_ids,
        batch.decoder_segment_ids,
        batch.decoder_position_ids,
        batch.decoder_position_ids,
        attention="causal",
    )
    assert (influence(model, batch, "decoder_input_ids") == own).all()


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_a_packed_document_is_computed_as_if_it_were_alone(attention):
    model, batch = make_model(architecture="decoder"), row_batch(attention)
    packed = hidden(model, batch)[0, 5:9]
    alone = Batch(batch.input_ids[:1, 5:9], batch.input_ids[:1, 5:9], attention=attention)
    torch.testing.assert_close(packed, hidden(model, alone)[0], atol=1e-6, rtol=1e-5)


def test_the_gradient_of_a_loss_reaches_only_visible_inputs():
    model, batch = make_model(architecture="decoder"), row_batch("causal")
    inputs = prepare(batch, model.config, CPU, torch.float32)
    found: list[torch.Tensor] = []
    model.embed_tokens.register_forward_hook(lambda m, i, out: (out.retain_grad(), found.append(out))[0])
    model(inputs).hidden_BTD[0, 6].sum().backward()
    touched = found[0].grad.abs().amax(dim=-1)[0] > 0
    assert touched.tolist() == [5 <= t <= 6 for t in range(WIDTH)]


def test_logits_are_computed_only_where_there_is_a_label():
    model, batch = make_model(architecture="encoder"), row_batch("bidirectional")
    labels = np.full_like(batch.input_ids, -100)
    labels[0, 3], labels[1, 11] = 7, 9
    out = model(prepare(dataclasses.replace(batch, labels=labels), model.config, CPU, torch.float32))
    assert out.logits_NV.shape == (2, 128)
    assert out.labels_N.tolist() == [7, 9]
    everything = model.logits(out.hidden_BTD)
    torch.testing.assert_close(out.logits_NV[1], everything[1, 11])
