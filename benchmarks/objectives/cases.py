"""Which objectives are measured under which options, what is expected of them, and beside whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.objectives import collators, document_loops, masking_loops, rewriting_loops
from benchmarks.objectives.timing import Peer, Sample

Peers = Callable[[Sample], list[Peer]]


@dataclass(frozen=True)
class Case:
    """An objective with options.

    Attributes:
        target: million tokens a second that are expected; None where nothing is.
        peers: functions that give them.
        all_counts: it is judged by all that is done, reading and what is done once an epoch included, because making
            the rows is a part of the objective.
        spelled: it reads real text with its tokenizer.
        parts: of a document that it reads.
        called: what its options are called; "" to have them written out.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    target: float | None = None
    peers: tuple[Peers, ...] = ()
    all_counts: bool = False
    spelled: bool = False
    parts: int = 1
    called: str = ""

    @property
    def title(self) -> str:
        if self.called:
            return f"{self.name} {self.called}"
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])


MASKED, WORDS, SPANS, PAIRS, BART, FIM = 60.0, 25.0, 40.0, 15.0, 10.0, 5.0
"""Million tokens a second."""

TOKENS = (collators.masked, masking_loops.masked_arrays)
T5 = (rewriting_loops.span_corruption,)
UL2 = (rewriting_loops.denoiser,)
TO_TEXT = (collators.pairs_to_text,)
BERT = (document_loops.sentence_pairs,)

CASES = [
    Case("causal", peers=(collators.causal,)),
    Case("masked", target=MASKED, peers=TOKENS),
    Case("masked", {"count": "bernoulli"}, MASKED, (collators.masked,)),
    Case("masked", {"predict": "next"}, MASKED, (masking_loops.masked_arrays,)),
    Case("masked", {"unit": "word"}, WORDS, (collators.whole_words, masking_loops.words)),
    Case("masked", {"unit": "word", "count": "bernoulli"}, WORDS, (collators.whole_words,)),
    Case("masked", {"unit": "ngram"}, peers=(masking_loops.ngrams,)),
    Case("masked", {"unit": "span"}, peers=(masking_loops.spans,)),
    Case("span_corruption", target=SPANS, peers=T5),
    Case("span_corruption", {"layout": "prefix"}, SPANS, T5),
    Case("span_corruption", {"edges": "free", "final_sentinel": True}, SPANS, T5),
    Case("denoisers", {"table": "ul2"}, SPANS, UL2),
    Case("denoisers", {"table": "ul2", "layout": "prefix"}, SPANS, UL2),
    Case("denoisers", {"table": "teaching"}, SPANS, UL2),
    Case("denoisers", {"table": "teaching", "layout": "prefix"}, SPANS, UL2),
    Case("prefix", peers=(rewriting_loops.prefix,)),
    Case("prefix", {"layout": "encoder_decoder"}, peers=(rewriting_loops.prefix,)),
    Case("next_sentence", {}, PAIRS, BERT, all_counts=True),
    Case("next_sentence", {"classes": 3}, PAIRS, BERT, all_counts=True),
    Case("sentence_order", {}, PAIRS, BERT, all_counts=True),
    Case("word_structure", peers=(masking_loops.trigrams,)),
    Case("span_boundary", peers=(masking_loops.span_boundary,)),
    Case("replaced_token", peers=(collators.masked,)),
    Case("denoising", target=BART, peers=(rewriting_loops.denoising,)),
    Case("denoising", {"unit": "word"}, BART, (rewriting_loops.denoising,)),
    Case("masked_sequence", peers=(rewriting_loops.masked_sequence,)),
    Case("mixed_visibility", peers=(masking_loops.masked_arrays,)),
    Case(
        "mixed_visibility",
        {"predict": "here", "masked": 2.0, "prefix": 2.0, "causal": 1.0, "right_to_left": 1.0},
        peers=(masking_loops.masked_arrays,),
        called="UniLM",
    ),
    Case("permutation", peers=(collators.permutation,)),
    Case("fill_in_middle", target=FIM, peers=(document_loops.fill_in_middle,), spelled=True),
    Case("bimodal_code", peers=(collators.pairs_to_masked,), all_counts=True, parts=2),
    Case("text_to_text", {"unsupervised": 0.0}, None, TO_TEXT, all_counts=True, parts=2),
    Case("text_to_text", {"unsupervised": 0.0, "layout": "prefix"}, None, TO_TEXT, all_counts=True, parts=2),
    Case("distillation", peers=(collators.masked,)),
]
