"""Examples of several texts: each text is laid out by itself, all of an example in one pass, whatever is beside it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pretextlm.data.examples import ExampleReader, Examples, first_places, last_places, side_by_side

some_sizes = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=6), min_size=1, max_size=20)


def examples_of(sizes):
    """Tokens that are all different; sizes[e][t] of them are of text t of example e."""
    lengths = [length for example in sizes for length in example]
    offsets = np.concatenate([[0], np.cumsum([sum(example) for example in sizes])])
    return Examples(
        tokens=np.arange(1, sum(lengths) + 1, dtype=np.int32),
        offsets=offsets,
        records=np.arange(len(sizes)),
        texts=np.repeat([t for example in sizes for t in range(len(example))], lengths).astype(np.int32),
        labels=np.array([[0, len(example)] for example in sizes], np.int32),
    )


@given(some_sizes, st.randoms(use_true_random=False))
def test_every_text_is_a_segment_by_itself_and_an_examples_texts_follow_one_another(sizes, random):
    examples = examples_of(sizes)
    numbers = np.array(random.sample(range(len(sizes)), random.randint(1, len(sizes))))
    batch = side_by_side(ExampleReader(examples).read(numbers, np.zeros_like(numbers), 0), 0, "bidirectional")
    ids, segments = batch.input_ids.reshape(-1), batch.segment_ids.reshape(-1)
    first, last = first_places(batch), last_places(batch)
    expected = [
        examples.tokens[a:b][examples.texts[a:b] == text].tolist()
        for a, b in zip(examples.offsets[numbers], examples.offsets[numbers + 1])
        for text in range(examples.texts[a:b].max() + 1)
    ]
    assert [ids[a : b + 1].tolist() for a, b in zip(first, last, strict=True)] == expected
    assert all(len(set(segments[a : b + 1].tolist())) == 1 for a, b in zip(first, last, strict=True))
    positions = batch.position_ids.reshape(-1)
    assert all(np.array_equal(positions[a : b + 1], np.arange(b + 1 - a)) for a, b in zip(first, last, strict=True))
    rows = first // batch.input_ids.shape[1]
    beside = zip(rows[:-1], rows[1:], segments[first[:-1]], segments[first[1:]], strict=True)
    assert all(one != other or before != after for one, other, before, after in beside)
    assert batch.row_labels.tolist() == examples.labels[numbers].tolist()
