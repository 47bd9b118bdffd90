"""Objectives asked for what they cannot do: an error that names it, before anything is trained."""

from __future__ import annotations

import pytest

from pretextlm.data.vocabulary import NAMED, Vocabulary, sentinel
from pretextlm.errors import UserError
from pretextlm.objectives.base import build

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
