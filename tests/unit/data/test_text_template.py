"""Templates around texts: read off a tokenizer's post-processor and written back as one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from pretextlm.data.offset_mapping import JoinedExamples, TokenizedTexts, framed
from pretextlm.data.text_template import FIRST, SECOND, TextTemplate, post_processor, template_of
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.objectives.registry import build
from pretextlm.tasks.base import longest_first, up_to_last_token

A, B, CLS, SEP, ODD = range(5)
IDS = {"a": A, "b": B, "[CLS]": CLS, "[SEP]": SEP, "<odd: one>": ODD}
BERT = TextTemplate.of_tokens([CLS], [SEP], [SEP])


def tokenizer(processor=None) -> Tokenizer:
    found = Tokenizer(models.WordLevel({**IDS, "[UNK]": 5}, unk_token="[UNK]"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.add_special_tokens(["[CLS]", "[SEP]", "<odd: one>"])
    found.post_processor = processor
    return found


def template(single, pair, *special):
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=[(s, IDS[s]) for s in special])


CASES = {
    "nothing": (None, TextTemplate.of_tokens([], [], [])),
    "bytes": (processors.ByteLevel(), TextTemplate.of_tokens([], [], [])),
    "bert": (processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS)), BERT),
    "roberta": (
        processors.RobertaProcessing(("[SEP]", SEP), ("[CLS]", CLS)),
        TextTemplate.of_tokens([CLS], [SEP, SEP], [SEP], second=0),
    ),
    "begin only": (
        processors.Sequence([processors.ByteLevel(), template("[CLS] $A", "[CLS] $A [CLS] $B:1", "[CLS]")]),
        TextTemplate(single=((CLS, 0), (FIRST, 0)), pair=((CLS, 0), (FIRST, 0), (CLS, 0), (SECOND, 1))),
    ),
    "the other way round": (
        template("$A:1 [SEP]:1", "$B [SEP]:1 $A", "[SEP]"),
        TextTemplate(single=((FIRST, 1), (SEP, 1)), pair=((SECOND, 0), (SEP, 1), (FIRST, 0))),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_template_is_read_off_the_post_processor(case):
    processor, expected = CASES[case]
    assert template_of(tokenizer(processor)) == expected


def test_a_template_written_as_a_post_processor_is_the_same(tmp_path):
    """Also one with a token whose name the library's own notation cannot hold."""
    odd = TextTemplate(
        single=((ODD, 0), (FIRST, 1), (SEP, 0)), pair=((ODD, 0), (SECOND, 1), (SEP, 0), (SEP, 1), (FIRST, 0))
    )
    for one in (odd, *(expected for _, expected in CASES.values())):
        written = tokenizer()
        written.post_processor = post_processor(written, one)
        written.save(str(tmp_path / "tokenizer.json"))
        assert template_of(Tokenizer.from_file(str(tmp_path / "tokenizer.json"))) == one


def test_texts_are_joined_with_the_tokens_and_types_of_their_template():
    """An empty text without special tokens has one token: a model cannot read none."""
    texts = TokenizedTexts(np.array([7, 8, 9], np.int32), np.array([0, 2, 2, 3]), np.zeros((3, 2), np.int32))
    span = (texts, texts.offsets[:-1], texts.lengths)
    joined, types = framed(BERT.pair, [span, span], lead=50)
    assert np.split(joined.tokens, joined.offsets[1:-1])[0].tolist() == [CLS, 7, 8, SEP, 7, 8, SEP]
    assert np.split(joined.tokens, joined.offsets[1:-1])[1].tolist() == [CLS, SEP, SEP]
    assert types[:7].tolist() == [0, 0, 0, 0, 1, 1, 1]
    bare, _ = framed(TextTemplate.of_tokens([], [], []).single, [span], lead=50)
    assert [part.tolist() for part in np.split(bare.tokens, bare.offsets[1:-1])] == [[7, 8], [50], [9]]


def test_a_template_without_its_text_is_refused():
    with pytest.raises(UserError, match="each text"):
        TextTemplate(single=((CLS, 0),), pair=BERT.pair)


def test_the_tokens_around_one_text():
    assert (BERT.before, BERT.after, BERT.specials(2)) == ((CLS,), (SEP,), 3)
    assert BERT.around([A, B]) == [CLS, A, B, SEP]


def test_a_decoders_text_ends_with_its_last_token_that_is_not_padding():
    tokens, offsets = np.array([7, SEP, SEP, SEP, SEP, 8, SEP, 9], np.int32), np.array([0, 3, 5, 8])
    joined = JoinedExamples(tokens, np.zeros((8, 2), np.int32), offsets, np.arange(8, dtype=np.int32))
    found, types = up_to_last_token(joined, np.arange(8, dtype=np.int32), SEP)
    assert [part.tolist() for part in np.split(found.tokens, found.offsets[1:-1])] == [[7], [SEP], [8, SEP, 9]]
    assert types.tolist() == [0, 3, 5, 6, 7]


def test_pairs_lose_tokens_as_in_the_tokenizers_library():
    found = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    for room in range(2, 9):
        found.enable_truncation(room)
        for a in range(1, 9):
            for b in range(1, 9):
                kept = found.encode("a " * a, "b " * b).sequence_ids
                expected = (kept.count(0), kept.count(1))
                assert tuple(int(n) for n in longest_first(np.int64(a), np.int64(b), room)) == expected, (room, a, b)


def test_documents_of_continued_training_have_the_tokens_of_the_published_tokenizer():
    own = Vocabulary(60, 0, 1, 2, 3, 4, 5, 6, (), frozenset(range(7)))
    bare = replace(own, template=TextTemplate.of_tokens([], [], []))
    begun = replace(own, template=TextTemplate.of_tokens([9], [], []))
    frames = [build("causal").frame(one) for one in (own, bare, begun)]
    assert [(frame.begin, frame.end) for frame in frames] == [(5, 6), (None, 6), (9, 6)]
    other = replace(own, template=TextTemplate.of_tokens([9], [8, 8], [8]))
    frames = [build("masked").frame(one) for one in (own, bare, other)]
    assert [(frame.lead, frame.end) for frame in frames] == [(2, 3), (None, None), (9, 8)]
    assert build("causal").decoder_prompt(bare, "decoder", []).context == [5]
