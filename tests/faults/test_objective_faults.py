"""Objectives asked for what they cannot do: an error that names it, before anything is trained."""

from __future__ import annotations

import pytest
from tests.builders import make_store

from pretextlm.data.special_tokens import NAMED, sentinel
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.objectives.registry import build
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe

pytestmark = pytest.mark.slow

TOKENS = [*NAMED, *(sentinel(i) for i in range(100)), *"abc"]
V = Vocabulary.resolve({t: i for i, t in enumerate(TOKENS)}, len(TOKENS))


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("maskd", {}, "Did you mean 'masked'?"),
        ("masked", {"rat": 0.2}, "Did you mean 'rate'?"),
        ("masked", {"rate": 0.0}, "rate"),
        ("masked", {"rate": 1.1}, "rate"),
        ("masked", {"rate": "much"}, "rate"),
        ("masked", {"rate": float("nan")}, "rate"),
        ("masked", {"count": "roughly"}, "count"),
        ("masked", {"unit": "sentence"}, "unit"),
        ("masked", {"mask_share": -0.1}, "mask_share"),
        ("masked", {"mask_share": 0.8, "random_share": 0.3}, "exceed 1 together"),
        ("span_corruption", {"rate": 1.0}, "rate"),
        ("span_corruption", {"mean_span_length": 0.5}, "mean_span_length"),
        ("span_corruption", {"layout": "encoder"}, "layout"),
        ("causal", {"isolate": "maybe"}, "isolate"),
        ("masked", {"rate": 0.3, "final_rate": 0.0}, "final_rate"),
        ("masked", {"unit": "span", "count": "bernoulli"}, "exact"),
        ("masked", {"longest_span": 3}, "longest_span"),
        ("masked", {"static_masks": -1}, "static_masks"),
        ("prefix", {"rate": 0.6}, "0.5"),
        ("span_corruption", {"edges": "round"}, "'t5' or 'free'"),
        ("denoisers", {"table": "ul3"}, "Did you mean 'ul2'?"),
        ("denoisers", {"table": []}, "table"),
        ("denoisers", {"table": [{"mode": "[R]", "rate": 0.95, "mean_span_length": 3.0}]}, "table.0.rate"),
        ("denoisers", {"table": [{"mode": "[R]", "mean_span_length": [8, 3]}]}, "low ≤ high"),
        ("denoisers", {"table": [{"mode": "[Q]", "mean_span_length": 3.0}]}, "'[NLU]'"),
        ("denoisers", {"table": [{"mode": "[R]", "mean_span_length": 3.0, "weight": 0.0}]}, "weight"),
        ("next_sentence", {"inner": "causal"}, "cannot be joined with 'causal'"),
        ("next_sentence", {"classes": 4}, "2 or 3"),
        ("next_sentence", {"classes": 3, "reverse_labels": True}, "reverse_labels is for two classes"),
        ("next_sentence", {"inner": {"name": "masked", "predict": "next"}}, 'inner.predict="here"'),
        ("sentence_order", {"short": 1.5}, "short"),
        ("word_structure", {"share": 0.0}, "share"),
        ("word_structure", {"inner": {"name": "causal"}}, "cannot be hidden by 'causal'"),
        ("span_boundary", {"rate": 0.0}, "rate"),
        ("replaced_token", {"inner": {"name": "causal"}}, "cannot learn 'causal'"),
        ("replaced_token", {"weight": 0.0}, "weight"),
        ("denoising", {"rate": 0.0}, "rate"),
        ("denoising", {"noise": "deletion", "rate": 1.0}, "rate"),
        ("denoising", {"rotate": 1.5}, "rotate"),
        ("masked_sequence", {"rate": 0.0}, "rate"),
        ("mixed_visibility", {"masked": 0.0, "causal": 0.0}, "must be above 0"),
        ("permutation", {"rate": 0.9}, "0.5"),
        ("fill_in_middle", {"rate": 1.2}, "rate"),
        ("bimodal_code", {"masked": {"rate": 2.0}}, "masked.rate"),
        ("text_to_text", {"unsupervised": 1.5}, "unsupervised"),
        ("text_to_text", {"denoiser": "causal"}, "cannot be read under 'causal'"),
        ("text_to_text", {"temperature": 0.5}, "temperature"),
        ("distillation", {"temperature": -1.0}, "temperature"),
        ("distillation", {"inner": {"name": "replaced_token"}}, "cannot be distilled"),
    ],
)
def test_a_wrong_name_or_option_is_named(name, options, part):
    with pytest.raises(UserError) as fault:
        build(name, options)
    assert part in str(fault.value)


@pytest.mark.parametrize(
    ("name", "options", "length", "part"),
    [
        ("causal", {}, 0, "length"),
        ("masked", {}, 1, "length"),
        ("span_corruption", {}, 2, "longer row"),
        ("span_corruption", {"layout": "prefix"}, 3, "longer row"),
        ("span_corruption", {}, 2048, "114 sentinels"),
        ("span_corruption", {"rate": 0.5}, 512, "128 sentinels"),
        ("prefix", {"layout": "encoder_decoder"}, 3, "at least 4"),
        ("denoisers", {"modes": False}, 512, "NLG 3 at 0.5"),
        ("next_sentence", {}, 4, "at least 5"),
        ("sentence_order", {}, 4, "at least 5"),
        ("masked_sequence", {}, 1, "at least 2"),
        ("mixed_visibility", {}, 1, "at least 2"),
        ("bimodal_code", {}, 4, "at least 5"),
        ("text_to_text", {}, 3, "at least 4"),
        ("replaced_token", {}, 1, "at least 2"),
        ("distillation", {}, 1, "at least 2"),
    ],
)
def test_a_length_that_cannot_work_is_refused_at_the_start(name, options, length, part):
    with pytest.raises(UserError) as fault:
        build(name, options).variants(V, length)
    assert part in str(fault.value)
    assert fault.value.hint


@pytest.mark.parametrize(
    ("name", "options", "length"), [("causal", {}, 1), ("masked", {}, 2), ("span_corruption", {}, 3)]
)
def test_the_shortest_row_that_works_is_accepted(name, options, length):
    (variant,) = build(name, options).variants(V, length)
    assert variant.length == length


def test_a_vocabulary_of_special_tokens_alone_cannot_replace_tokens():
    bare = Vocabulary.resolve({t: i for i, t in enumerate(NAMED)}, len(NAMED))
    no_words = Vocabulary(**{**{k: getattr(bare, k) for k in bare.__dataclass_fields__}, "size": len(NAMED)})
    assert no_words.ordinary.size == 0
    with pytest.raises(UserError, match="random_share=0"):
        build("masked").variants(no_words, 16)


@pytest.mark.parametrize(
    ("name", "options", "token"),
    [("denoisers", {}, "[NLU]"), ("denoisers", {"table": "teaching"}, "[R]"), ("fill_in_middle", {}, "<fim_prefix>")],
)
def test_a_special_token_that_the_tokenizer_lacks_is_named(name, options, token):
    with pytest.raises(UserError) as fault:
        build(name, options).variants(V, 64)
    assert token in str(fault.value)
    assert "data prepare" in fault.value.hint


def recipe_of(store, name, **values):
    return {
        "data": {"store": str(store), "length": 64},
        "objective": {"name": name},
        "training": {"budget_steps": 2},
        **values,
    }


@pytest.mark.parametrize(
    ("name", "architecture", "suits"),
    [
        ("causal", "encoder", "decoder"),
        ("next_sentence", "decoder", "encoder"),
        ("replaced_token", "encoder_decoder", "encoder"),
        ("denoising", "decoder", "encoder_decoder"),
        ("denoisers", "encoder", "encoder_decoder"),
    ],
)
def test_an_architecture_that_does_not_suit_is_refused_with_those_that_do(name, architecture, suits):
    with pytest.raises(UserError) as fault:
        Recipe.load(recipe_of("nowhere", name, model={"architecture": architecture}))
    assert architecture in str(fault.value)
    assert suits in fault.value.hint


def test_one_document_is_not_enough_for_next_sentence_and_nothing_is_written(tmp_path):
    store = make_store(tmp_path / "store", train=1, validation=2)
    with pytest.raises(UserError, match="two documents"):
        pretrain(Recipe.load(recipe_of(store.path, "next_sentence")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["text_to_text", "bimodal_code"])
def test_a_store_without_pairs_is_refused_with_the_way_to_make_one(tmp_path, name):
    store = make_store(tmp_path / "store", train=20, validation=5)
    with pytest.raises(UserError) as fault:
        pretrain(Recipe.load(recipe_of(store.path, name)), tmp_path / "run")
    assert "pairs" in str(fault.value)
    assert "source=FIELD&target=FIELD" in fault.value.hint
    assert not (tmp_path / "run").exists()
