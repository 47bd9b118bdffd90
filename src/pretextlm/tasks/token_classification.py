"""A tag for each word or character: named entities, parts of speech (Tjong Kim Sang & De Meulder 2003).

    {"tokens": ["Empire", "State", "Building", "=", "ESB"], "tags": ["B-location", "I-location", "I-location", "O", …]}

    row       [CLS] empire state building = es ##b [SEP]
    label             B      I      I     O B   -

The first token of a word has its tag, the others have none. With units = "characters" the units are characters, spaces
included, as in KLUE: they are joined without spaces, a token has the tag of its first character, and its further
characters continue the entity that the first one began; spaces only do so if the entity continues after them.

Sentences that are too long are cut into windows. A word without a token is outside of every entity.

In prediction, a text may take the place of the list. The model then reads it as it is, as transformers' pipeline does,
and its words are those of tasks/shared/word_splitting.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pretextlm.batch import IGNORE, Batch, Term
from pretextlm.data.examples import Examples
from pretextlm.data.offset_mapping import OffsetTokenizer, TokenizedTexts, framed
from pretextlm.errors import UserError, did_you_mean
from pretextlm.objectives.protocol import Architecture, Outputs
from pretextlm.tasks.base import text_template
from pretextlm.tasks.shared.distilled import DistilledTask
from pretextlm.tasks.shared.labels import label_names, named_labels
from pretextlm.tasks.shared.tagged_units import Units, UnitsOfText
from pretextlm.tasks.shared.windows import windows

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pretextlm.data.records import Records
    from pretextlm.model.config import ModelConfig
    from pretextlm.model.families.shared.task_classes import Kind, TaskClass

OUTSIDE = "O"
I64 = NDArray[np.int64]


class TokenClassification(DistilledTask):
    """Sequence labelling.

    Args:
        tokens, tags: columns of the units and of their tags, lists of one length. A tag is one of the labels, or its
            index in those that the recipe gives.
        units: "words", which are separated by spaces, or "characters", which are not.
        labels: the tags; by default all that occur in the training records.
        teacher, temperature, weight_soft, weight_hard: as for :class:`DistilledTask`.
    """

    name: ClassVar[str] = "token_classification"
    title: ClassVar[str] = "Token classification"
    paper: ClassVar[str] = "Devlin et al. 2019, section 5.3, https://arxiv.org/abs/1810.04805"
    summary: ClassVar[str] = "Gives each word, or each character, a tag."
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder", "decoder")
    default_metrics: ClassVar[tuple[str, ...]] = ("span_f1",)

    label_columns: ClassVar[tuple[str, ...]] = ("tags",)
    head_kind: ClassVar[Kind | None] = "token"

    tokens: str = Field(default="tokens", description="column of the words or characters, a list")
    tags: str = Field(default="tags", description="column of their tags, a list as long")
    units: Literal["words", "characters"] = Field(default="words", description="the tagged units")
    labels: tuple[str, ...] = Field(default=(), description="the tags; by default those that occur")

    def columns(self) -> dict[str, str]:
        """Returns the columns of units and tags."""
        return {"tokens": self.tokens, "tags": self.tags}

    def fit_labels(self, records: Records) -> Self:
        """Returns the task with its tags in order: O first, then by the alphabet.

        Raises:
            UserError: there is only one tag.
        """
        names = self.labels or tuple(sorted(set(chain.from_iterable(self._tags(records))), key=_o_first))
        if len(names) < 2:
            raise UserError(f"All tags of {records.source} are {names[0]!r}.", "Give records of at least two tags.")
        return self.model_copy(update={"labels": names})

    def examples(self, records: Records, encoder: OffsetTokenizer, model: ModelConfig, length: int) -> Examples:
        """Returns one example per window."""
        units = self._units(records)
        encoded = encoder.encode([one.text for one in units.texts])
        template = text_template(encoder.vocabulary, model)
        room = length - template.specials(1)
        if room < 1:
            raise UserError(f"data.length is {length}: there is no room for text.", "Give at least 8, usually 128.")
        cut = windows(encoded.lengths, room, room)
        begin = encoded.offsets[:-1][cut.record] + cut.begin
        # `framed` copies tokens; the same call with labels in place of tokens copies each token's label.
        labels = self._labels(records, units, encoded)
        marked = TokenizedTexts(labels, encoded.offsets, np.zeros((len(labels), 2), np.int32))
        bos = encoder.vocabulary.bos
        joined, types = framed(template.single, [(encoded, begin, cut.length)], bos)
        of_tokens, _ = framed(template.single, [(marked, begin, cut.length)], bos)
        inside = joined.run == len(template.before)
        return Examples(
            tokens=joined.tokens,
            offsets=joined.offsets,
            records=cut.record,
            types=types,
            token_labels=np.where(inside, of_tokens.tokens, IGNORE).astype(np.int32),
        )

    def _labels(self, records: Records, units: Units, encoded: TokenizedTexts) -> NDArray[np.int32]:
        """Returns (N,) the label of each token of the texts, IGNORE for those that do not begin a unit."""
        places = {name: place for place, name in enumerate(self.labels)}
        tags = self._tags(records)
        for index, (text, found) in enumerate(zip(units.texts, tags, strict=True)):
            if len(text.spans) != len(found):
                raise records.fault(
                    index, f"there are {len(text.spans)} tokens and {len(found)} tags.", "Give each token one tag."
                )
        flat = np.fromiter((places.get(tag, -1) for tag in chain.from_iterable(tags)), np.int32, units.count)
        if (flat < 0).any():
            place = int(np.argmax(flat < 0))
            index = int(np.searchsorted(units.first, place, side="right")) - 1
            tag = tags[index][place - int(units.first[index])]
            raise records.fault(
                index, f"the tag {tag!r} is none of {', '.join(self.labels)}.", did_you_mean(tag, places)
            )
        of = np.append(flat, IGNORE)[units.of(encoded)]  # the last is of unit -1, before the first of all
        return np.where(units.begun(encoded), of, IGNORE).astype(np.int32)

    def heads(self, config: ModelConfig) -> dict[str, nn.Module]:
        """Returns a head with a score for each tag."""
        from pretextlm.tasks.shared.heads import TokenHead

        return {"task": TokenHead(config, len(self.labels))}

    def own_counts(self, batch: Batch) -> dict[str, int]:
        """Returns the number of labelled tokens, one per unit."""
        return {"tag": int(np.count_nonzero(batch.labels != IGNORE))}

    def class_scores(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Returns (N, C) the scores of the labelled tokens."""
        scores_NC: Tensor = outputs.heads["task"](outputs.hidden_ND)
        return scores_NC

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Returns the cross-entropy of the units' tags, in nats."""
        from torch.nn import functional

        logits_NC = self.class_scores(outputs, batch)
        total = functional.cross_entropy(logits_NC, outputs.labels_N, reduction="sum")
        correct = (logits_NC.argmax(1) == outputs.labels_N).sum()
        return {"tag": Term(total, outputs.labels_N.numel(), correct=correct)}

    def published_values(self) -> dict[str, Any]:
        return named_labels(self.labels)

    @classmethod
    def from_published(cls, head: TaskClass, values: Mapping[str, Any], outputs: int) -> Self | None:
        return cls(labels=label_names(values, outputs))

    def predict(self, outputs: Outputs, batch: Batch) -> NDArray[Any]:
        """Returns (N, C) the probabilities of the tags of each labelled token."""
        found: NDArray[Any] = self.class_scores(outputs, batch).softmax(1).cpu().numpy()
        return found

    def answers(
        self, predictions: NDArray[Any], examples: Examples, encoder: OffsetTokenizer, records: Records
    ) -> list[Any]:
        """Returns the tags of each record's units."""
        return [one["answer"] for one in self.explain(predictions, examples, encoder, records)]

    def dummy_labels(self, records: Records) -> dict[str, list[Any]]:
        """Returns the first tag for each unit."""
        return {"tags": [[self.labels[0]] * len(one.spans) for one in self._units(records).texts]}

    def explain(
        self, predictions: NDArray[Any], examples: Examples, encoder: OffsetTokenizer, records: Records
    ) -> list[dict[str, Any]]:
        """Returns each record's tags with the text, the units, their characters and the probabilities of the tags.

        A unit with which no token begins has the probability None.
        """
        units = self._units(records)
        encoded = encoder.encode([one.text for one in units.texts])
        begun = units.of(encoded)[units.begun(encoded)]
        found, chances = np.full(units.count, -1), np.full(units.count, np.nan)
        found[begun], chances[begun] = predictions.argmax(1), predictions.max(1)
        tags = [self.labels[place] if place >= 0 else None for place in found.tolist()]
        scores = [None if np.isnan(chance) else chance for chance in chances.tolist()]
        return [
            {
                "answer": _filled(tags[a:b], one.units, self.units == "characters"),
                "text": one.text,
                "tokens": one.units,
                "offsets": [list(span) for span in one.spans],
                "scores": scores[a:b],
            }
            for one, (a, b) in zip(units.texts, pairwise(units.first.tolist()), strict=True)
        ]

    def _units(self, records: Records) -> Units:
        """Returns the units of each record: the words or characters of its list, or of its text.

        Raises:
            UserError: a value is neither; names its row.
        """
        values = records.columns["tokens"]
        if any(isinstance(value, str) for value in values):
            split = UnitsOfText.of_words if self.units == "words" else UnitsOfText.of_characters
            return Units([split(text) for text in records.texts("tokens", empty=True)])
        between = " " if self.units == "words" else ""
        return Units([UnitsOfText.joined(words, between) for words in records.words("tokens")])

    def references(self, records: Records) -> list[Any]:
        """Returns the records' tags."""
        return self._tags(records)

    def _tags(self, records: Records) -> list[list[str]]:
        """Returns the names of the records' tags."""
        return records.words("tags", self.labels)


def _filled(tags: list[str | None], units: list[str], characters: bool) -> list[str]:
    """Returns the tags of all units, also of those with which no token begins.

    Words are then outside of every entity. Characters continue the entity before them, spaces only if it continues
    after them.
    """
    if not characters:
        return [OUTSIDE if tag is None else tag for tag in tags]
    found: list[str] = []
    for place, (tag, unit) in enumerate(zip(tags, units, strict=True)):
        if tag is None:
            inside = found and found[-1] != OUTSIDE
            goes_on = not unit.isspace() or next(filter(None, tags[place + 1 :]), OUTSIDE).startswith("I-")
            tag = "I-" + found[-1][2:] if inside and goes_on else OUTSIDE
        found.append(tag)
    return found


def _o_first(tag: str) -> tuple[bool, str]:
    return tag != OUTSIDE, tag
