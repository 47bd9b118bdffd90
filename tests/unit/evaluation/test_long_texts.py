"""Texts that are longer than a model reads: truncated, read in part or refused, and never without a word."""

from __future__ import annotations

import dataclasses
from itertools import count

import pytest
import torch

from pretextlm.errors import UserError
from pretextlm.evaluation.fill import fill_blanks
from pretextlm.evaluation.prompts import continue_texts
from pretextlm.evaluation.trained_model import blank_scorer
from pretextlm.model.config import ModelConfig
from pretextlm.model.generation import GenerationConfig
from pretextlm.model.presets.preset import presets
from pretextlm.model.transformer import Transformer
from pretextlm.objectives.registry import build
from pretextlm.scoring.blank import Blank
from pretextlm.scoring.token_texts import TokenTexts
from pretextlm.scoring.window import FRAME_TOKENS, fitting

LIMIT = 64
LEARNED = {"kind": "learned", "max_position_embeddings": LIMIT + 2, "offset": 2}
KINDS = {
    "rotary": {},
    "sinusoidal": {"offset": 2, "max_position_embeddings": LIMIT + 2},
    "relative": {},
    "disentangled": {"num_buckets": 8, "max_distance": 32},
    "alibi": {},
    "none": {},
}
FILLERS = {
    "masked": ("masked", {}, "encoder"),
    "next": ("masked", {"predict": "next"}, "encoder"),
    "causal": ("causal", {}, "decoder"),
    "prefix": ("prefix", {}, "decoder"),
    "prefix of an encoder": ("prefix", {}, "encoder_decoder"),
    "spans": ("span_corruption", {}, "encoder_decoder"),
    "spans in a decoder": ("span_corruption", {"layout": "prefix"}, "decoder"),
    "infilling": ("denoising", {}, "encoder_decoder"),
    "middle": ("fill_in_middle", {}, "decoder"),
    "permutation": ("permutation", {}, "encoder"),
    "stretch": ("masked_sequence", {}, "encoder_decoder"),
    "replaced": ("replaced_token", {}, "encoder"),
}


def model_of(store, name, options, architecture, positions):
    """(model, objective, tokens) with random weights."""
    torch.manual_seed(0)
    objective = build(name, options)
    config = ModelConfig(
        architecture=architecture,
        vocab_size=store.vocabulary.size,
        type_vocab_size=objective.num_token_types(),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        positions=positions,
    )
    model = Transformer(config, objective.heads(config)).eval()
    return model, objective, TokenTexts(store.tokenizer, store.vocabulary)


def text_of(store, tokens):
    """A text of at least so many tokens."""
    split = store.train
    return store.tokenizer.decode(split.tokens[: tokens + 8].astype(int).tolist())


@pytest.mark.parametrize("filler", FILLERS)
def test_a_blank_sees_the_tokens_around_it_where_a_table_ends_the_text(store, filler):
    name, options, architecture = FILLERS[filler]
    scorer = blank_scorer(*model_of(store, name, options, architecture, LEARNED))
    before, after = text_of(store, 70), text_of(store, 90)
    for text in (f"{before} ____", f"____ {after}", f"{before} ____ {after} [MASK] {after}", f"{before} ____ [MASK]"):
        found = fill_blanks(scorer, text, top=2, max_new_tokens=2)
        assert all(blank.answers for blank in found.blanks)
        assert found.notes
        assert all(f"the model reads {LIMIT}" in note for note in found.notes)
    assert fill_blanks(scorer, "A short ____ text.", top=2, max_new_tokens=2).notes == ()


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_a_table_reads_on_and_says_from_where_it_was_not_made_for_it(store, kind):
    text = f"{text_of(store, 100)} ____"
    for longest in (0, LIMIT):
        if kind == "sinusoidal" and not longest:
            continue
        positions = {"kind": kind, "max_position_embeddings": longest, **KINDS[kind]}
        scorer = blank_scorer(*model_of(store, "masked", {}, "encoder", positions))
        notes = fill_blanks(scorer, text, top=1, max_new_tokens=1).notes
        assert len(notes) == bool(longest)
        assert all(f"the model was made for {LIMIT}" in note for note in notes)
        if kind == "disentangled":  # of encoders alone
            continue
        model, objective, texts = model_of(store, "causal", {}, "decoder", positions)
        told = []
        prompts = [texts.encode(text)[:60], texts.encode(text)[:20]]
        answers = continue_texts(
            model, objective, texts, prompts, GenerationConfig(max_new_tokens=8, stop=()), on_note=told.append
        )
        assert [len(answer) for answer in answers] == [8, 8]
        assert told == [f"Text 1 reaches 69 tokens; the model was made for {LIMIT}."] * bool(longest)


WRITERS = {name: FILLERS[name] for name in ("causal", "prefix", "prefix of an encoder", "spans", "infilling", "middle")}


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_text_ends_where_the_table_does_and_a_longer_prompt_is_refused_or_truncated(store, writer, beams):
    name, options, architecture = WRITERS[writer]
    model, objective, texts = model_of(store, name, options, architecture, LEARNED)
    ids = texts.encode(text_of(store, 100))

    def answers(sizes, new=20, **more):
        told = []
        settings = GenerationConfig(max_new_tokens=new, temperature=0.0, stop=(), beams=beams)
        prompts = [ids[:size] for size in sizes]
        found = continue_texts(model, objective, texts, prompts, settings, on_note=told.append, **more)
        return found, told

    (free,), told = answers([4], new=6)
    assert told == []
    if architecture == "decoder" or writer == "infilling":  # positions are used up by the prompt and the answer
        frame = next(n for n in count() if len(answers([LIMIT - 4 - n], new=99)[0][0]) == 5)
        further = 2 * (writer == "infilling")  # the encoder's row has two tokens more than the decoder's
        (short, last, alone), told = answers([4, LIMIT - 4 - frame, LIMIT - frame - further])
        assert (len(short), len(last), len(alone)) == (20, 5, 1 + further)
        assert short[:6] == free or beams > 1
        assert told == [f"Text {n} stops at the model's {LIMIT} positions." for n in (2, 3)]
        assert last == answers([LIMIT - 4 - frame], new=5)[0][0]
    else:
        (short, last), told = answers([4, 50], new=LIMIT + 20)
        assert len(short) == len(last)
        assert LIMIT - 2 <= len(short) <= LIMIT
        assert told == [f"Text {n} stops at the model's {LIMIT} positions." for n in (1, 2)]
    with pytest.raises(UserError, match=rf"The prompt has \d+ tokens; the model reads {LIMIT}"):
        answers([4, 90])
    (short, long), told = answers([4, 90], truncate_left=True)
    assert (len(short), len(long), told) == (20, 20, [])
    (longer,), _ = answers([90], new=200, truncate_left=True)
    assert len(longer) >= LIMIT // 2


def test_a_window_has_half_of_the_room_on_either_side_or_what_the_other_leaves():
    blank = Blank(tuple(range(7)), tuple(range(20)), ((1, 2), (3,)))
    room = 10
    limit = FRAME_TOKENS + 2 + 2 + room  # a candidate of 2 tokens, 2 further blanks
    assert fitting(blank, None, 2) is blank
    assert fitting(blank, limit + 20, 2) is blank
    cut = fitting(blank, limit, 2)
    assert (cut.left, cut.right, cut.later) == ((2, 3, 4, 5, 6), tuple(range(5)), ())
    assert not cut.starts_document
    assert not cut.ends_document
    cut = fitting(dataclasses.replace(blank, left=(1, 2, 3)), limit, 2)
    assert (cut.left, cut.right, cut.starts_document) == ((1, 2, 3), tuple(range(7)), True)
    cut = fitting(dataclasses.replace(blank, left=tuple(range(30)), right=(9,)), limit, 2)
    assert (len(cut.left), cut.right, cut.later, cut.ends_document) == (6, (9,), ((1, 2), (3,)), True)
    with pytest.raises(UserError, match="no room"):
        fitting(blank, FRAME_TOKENS + 5, 4)


TABLES = {
    "albert": 512, "bart": 1024, "bert": 512, "big_bird": 4096, "distilbert": 512, "electra": 512, "gpt2": 1024,
    "longformer": 4096, "mbart": 1024, "openai-gpt": 512, "roberta": 512, "xlm-roberta": 512,
}  # fmt: skip


def test_every_family_with_a_table_knows_the_length_of_its_published_models():
    found = {one.family: set() for one in presets().values()}
    for one in presets().values():
        found[one.family].add(one.config().positions.limit)
    assert {family: min(limits) for family, limits in found.items() if limits != {None}} == TABLES
