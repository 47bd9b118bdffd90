"""Every objective's decoder starts from the one token that is declared, and no other place changes with it."""

import dataclasses

import numpy as np
import pytest
from tests.unit.objectives.hand_rows import rows_of, text, vocabulary
from tests.unit.objectives.test_text_to_text import hand_rows

from pretextlm.counter_rng import CounterRNG
from pretextlm.errors import UserError
from pretextlm.model.config import SpecialTokenIds
from pretextlm.objectives.registry import OBJECTIVES, build

VOCABULARY = dataclasses.replace(vocabulary(), further={"[NLU]": 30, "[NLG]": 31, "[S2S]": 32})
STARTS = ("bos", "eos")
PLAIN = ["span_corruption", "denoisers", "denoising", "masked_sequence", "prefix"]


def batch_of(name, known):
    options = {} if name in ("denoising", "masked_sequence", "text_to_text") else {"layout": "encoder_decoder"}
    objective = build(name, options)
    if name == "text_to_text":
        rows = hand_rows(([40, 41, 42], [50, 51]), ([43, 44], [52, 53, 54]), width=24)
    else:
        variant = objective.variants(known, 40)[0]
        rows = rows_of(text(3, variant.raw, known))
        rows = dataclasses.replace(rows, sentence_starts=rows.position_ids == 0)
    return objective.collate(rows, known, CounterRNG.of(0, 0, rows.example_ids))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", [*PLAIN, "text_to_text"])
def test_the_decoder_starts_from_it_and_all_else_stays(name, start):
    index = getattr(VOCABULARY, start)
    plain, other = (
        batch_of(name, known) for known in (VOCABULARY, SpecialTokenIds(decoder_start=index).apply(VOCABULARY))
    )
    real = True if plain.decoder_segment_ids is None else plain.decoder_segment_ids >= 0
    opens = (plain.decoder_input_ids == VOCABULARY.pad) & real
    assert opens[:, 0].all()
    assert np.array_equal(other.decoder_input_ids, np.where(opens, index, plain.decoder_input_ids))
    assert np.array_equal(other.input_ids, plain.input_ids)
    assert np.array_equal(other.decoder_labels, plain.decoder_labels)


def test_every_objective_with_a_decoder_of_its_own_is_among_them():
    have = {name for name in OBJECTIVES if "encoder_decoder" in OBJECTIVES[name].architectures}
    assert have - {"distillation"} == {*PLAIN, "text_to_text"}


def test_a_vocabulary_keeps_the_roles_of_its_names_where_none_is_given():
    assert SpecialTokenIds().apply(VOCABULARY) is VOCABULARY
    assert VOCABULARY.start == VOCABULARY.pad
    assert VOCABULARY.ends == (VOCABULARY.eos,)
    assert SpecialTokenIds(eos=(30, 31)).apply(VOCABULARY).ends == (30, 31)
    assert SpecialTokenIds(pad=30).apply(VOCABULARY).start == 30


def test_an_id_that_the_tokenizer_lacks_is_refused():
    with pytest.raises(UserError, match="the token 400"):
        SpecialTokenIds(eos=(30, 400)).apply(VOCABULARY)
