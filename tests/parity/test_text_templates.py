"""Text in, answer out: published models with tokenizers of many settings answer as in transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.parity.texts import PLACES, TOKENIZERS, published, texts

from pretextlm.evaluation.predict import predict
from pretextlm.hf.import_model import import_model
from pretextlm.model.families.registry import FAMILIES

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

pytestmark = pytest.mark.slow

CLOSE = {"atol": 1e-4, "rtol": 0}
HEADS = [(family, kind) for family, one in FAMILIES.items() for kind in one.task_classes]
LABELS = {0: "O", 1: "B-X", 2: "I-X"}
UNIGRAM = ("xlm", "begins", "t5", "mbart", "other")


def chosen(family: str, count: int = 200) -> tuple[list[str], list[str]]:
    """Two columns of texts. A Unigram model has pieces for the names of special tokens, which are text to us."""
    pairs = zip(texts(count), texts(count, seed=1), strict=True)
    kept = [pair for pair in pairs if TOKENIZERS[family] not in UNIGRAM or "<" not in "".join(pair)]
    return [a for a, _ in kept], [b for _, b in kept]


class Theirs:
    """A model and its tokenizer as transformers loads them, for texts in which the names of special tokens are text."""

    def __init__(self, model, place):
        self.model, self.tokenizer = model, transformers.AutoTokenizer.from_pretrained(place)

    def __call__(self, first, second=None, **options):
        """(encodings, outputs) of one padded batch."""
        options = {"truncation": True, "max_length": PLACES, "split_special_tokens": True, **options}
        batch = self.tokenizer(first, second, padding=True, padding_side="right", return_tensors="pt", **options)
        if "DistilBert" in type(self.model).__name__:
            batch.pop("token_type_ids", None)
        with torch.inference_mode():
            return batch, self.model(**{name: value.long() for name, value in batch.items()})


def one_class_of_a_text_or_a_pair(theirs, run, family):
    first, second = chosen(family)
    if not theirs.tokenizer.num_special_tokens_to_add():  # transformers fails on a text without tokens
        kept = [n for n, text in enumerate(first) if text]
        first, second = [first[n] for n in kept], [second[n] for n in kept]
    for pairs in (False, True):
        _, found = theirs(first, second if pairs else None)
        rows = [{"text": a} | ({"text_pair": b} if pairs else {}) for a, b in zip(first, second, strict=True)]
        ours = np.array([[*one["probabilities"].values()] for one in predict(run, rows)])
        expected = found.logits.softmax(-1).numpy()
        assert np.ptp(expected, axis=0).max() > 0.05
        np.testing.assert_allclose(ours, expected, **CLOSE)


def a_choice(theirs, run, family):
    """Of short texts: longer choices are refused."""
    short = lambda text: bool(text.strip()) and len(theirs.tokenizer(text).input_ids) < PLACES // 2 - 2  # noqa: E731
    first, second = (list(filter(short, column)) for column in chosen(family))
    count = min(len(first), len(second)) // 2
    questions, choices = first[:count], second[: 2 * count]
    options = {"padding": True, "split_special_tokens": True, "return_tensors": "pt"}
    flat = theirs.tokenizer([text for text in questions for _ in (0, 1)], choices, **options)
    if "DistilBert" in type(theirs.model).__name__:
        flat.pop("token_type_ids", None)
    with torch.inference_mode():
        logits = theirs.model(**{name: value.view(-1, 2, value.size(1)) for name, value in flat.items()}).logits
    text = next(name for role, name in run.recipe.task.input_columns().items() if role.startswith("text"))
    rows = [{text: one, "choices": choices[2 * n : 2 * n + 2]} for n, one in enumerate(questions)]
    ours = np.array([[*one["probabilities"].values()] for one in predict(run, rows)])
    np.testing.assert_allclose(ours, logits.softmax(-1).numpy(), **CLOSE)


CHECKS = {"sequence": one_class_of_a_text_or_a_pair, "choice": a_choice}


@pytest.mark.parametrize(("family", "kind"), [head for head in HEADS if head[1] in CHECKS])
def test_answers_are_those_of_transformers(family, kind, tmp_path):
    named = {"id2label": LABELS, "label2id": {v: k for k, v in LABELS.items()}} if kind in ("sequence", "token") else {}
    model = published(family, FAMILIES[family].task_classes[kind].theirs, tmp_path / "theirs", **named)
    run = import_model(str(tmp_path / "theirs"), tmp_path / "run")
    CHECKS[kind](Theirs(model, tmp_path / "theirs"), run, family)
