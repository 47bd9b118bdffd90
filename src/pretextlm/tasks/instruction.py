"""Answer an instruction in words: a causal model that is trained on the answers alone (Wei et al. 2022).

    {"instruction": "Add up.", "input": "2 and 2", "output": "4 ."}

    prompt    "{instruction}\\n\\n{input}\\n\\n"

    row       <s> Add up . ⏎⏎ 2 and 2 ⏎⏎ 4 .
    labels     -   -  -  -  -  - -  - 4  . </s>        labels[t] is the row's token t + 1

The prompt is a template with columns in braces; {{ and }} are braces. A paragraph of it whose columns are all empty is
left out, so that one template serves records with and without an input. Spaces at its end go to the answer, as
tokenizers count a space with the word behind it.

What is too long loses tokens: a prompt at its beginning, an answer at its end, the longer of the two first. An answer
that is cut has no end token, so that no model learns to stop there.

Paper: Finetuned language models are zero-shot learners, https://arxiv.org/abs/2109.01652
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field, field_validator

from pretextlm.batch import IGNORE
from pretextlm.data.aligned import AlignedEncoder, Run, join
from pretextlm.data.examples import Examples
from pretextlm.data.pair_index import truncated
from pretextlm.errors import UserError
from pretextlm.objectives.base import Architecture
from pretextlm.tasks.writing import WritingTask, ended

if TYPE_CHECKING:
    from pretextlm.data.records import Records
    from pretextlm.data.vocabulary import Vocabulary
    from pretextlm.model.config import ModelConfig

PARAGRAPH = "\n\n"
Piece = tuple[str, str]
"""A literal text, and the column that follows it, if any."""


class Instruction(WritingTask):
    """Args:
    prompt: template with the names of columns in braces; A.B is the field B of the column A.
    answer: column of the answer.
    """

    name: ClassVar[str] = "instruction"
    title: ClassVar[str] = "Instructions"
    paper: ClassVar[str] = "Wei et al. 2022, https://arxiv.org/abs/2109.01652"
    learns: ClassVar[str] = "to answer an instruction in words."
    architectures: ClassVar[tuple[Architecture, ...]] = ("decoder",)
    suited: ClassVar[tuple[str, ...]] = ("exact_match",)

    prompt: str = Field(default="{instruction}\n\n{input}\n\n", description="template with columns in braces")
    answer: str = Field(default="output", description="column of the answer")

    @field_validator("prompt")
    @classmethod
    def _names_columns(cls, prompt: str) -> str:
        if not any(column for pieces in _paragraphs(prompt) for _, column in pieces):
            raise ValueError("the prompt names no column: write the name of one in braces")
        return prompt

    def columns(self) -> dict[str, str]:
        """Those of the prompt, by number, and the answer."""
        return {**{f"prompt{n}": name for n, name in enumerate(self._named())}, "answer": self.answer}

    def _named(self) -> list[str]:
        return list(dict.fromkeys(name for pieces in _paragraphs(self.prompt) for _, name in pieces if name))

    def texts(self, records: Records) -> list[str]:
        """The prompt of each record. Raises UserError by row for one without a word."""
        values = {name: records.texts(f"prompt{n}", empty=True) for n, name in enumerate(self._named())}
        paragraphs = list(_paragraphs(self.prompt))
        found = []
        for index in range(len(records)):
            if not any(values[name][index].strip() for name in values):
                raise records.fault(index, "every column of the prompt is empty.", "Leave such rows out.")
            kept = [
                "".join(text + (values[name][index] if name else "") for text, name in pieces)
                for pieces in paragraphs
                if not any(name for _, name in pieces) or any(values[n][index].strip() for _, n in pieces if n)
            ]
            text = PARAGRAPH.join(kept)
            found.append(text.rstrip(" ") if self._space else text)
        return found

    @property
    def _space(self) -> str:
        """Spaces at the end of the template, which belong to the answer."""
        return self.prompt[len(self.prompt.rstrip(" ")) :]

    def examples(self, records: Records, encoder: AlignedEncoder, model: ModelConfig, length: int) -> Examples:
        """One a record; the end token is a label and never read."""
        if length < 4:
            raise UserError(f"data.length is {length}: there is no room for text.", "Give at least 8, usually 256.")
        prompts = encoder.encode(self.texts(records))
        answers = ended(encoder, [self._space + text for text in records.texts("answer")])
        own, theirs = truncated(prompts.lengths, answers.lengths, length)
        runs: list[Run] = [
            encoder.vocabulary.bos,
            (prompts, prompts.offsets[1:] - own, own),
            (answers, answers.offsets[:-1], theirs),
        ]
        joined = join(runs, len(records))
        following = np.append(joined.tokens[1:], 0)
        labels = np.where(np.append(joined.run[1:], 0) == 2, following, IGNORE).astype(np.int32)
        read = np.ones(len(labels), bool)
        read[joined.offsets[1:] - 1] = False
        return Examples(
            tokens=joined.tokens[read],
            offsets=joined.offsets - np.arange(len(records) + 1),
            records=np.arange(len(records)),
            token_labels=labels[read],
        )

    def prompts(self, examples: Examples) -> list[list[int]]:
        """Up to the token that the answer's first one is predicted from."""
        assert examples.token_labels is not None, "an instruction has an answer"
        first = np.flatnonzero(examples.token_labels != IGNORE)
        ends = first[np.searchsorted(first, examples.offsets[:-1])] + 1
        return [examples.tokens[a:b].tolist() for a, b in zip(examples.offsets[:-1], ends, strict=True)]

    def opening(self, prompt: list[int], vocabulary: Vocabulary) -> tuple[list[int], None]:
        """The prompt, read from left to right."""
        return prompt, None


def _paragraphs(prompt: str) -> Iterator[list[Piece]]:
    """The pieces of each paragraph of a template. Raises ValueError where it is none."""
    for paragraph in prompt.split(PARAGRAPH):
        pieces: list[Piece] = []
        for text, name, form, turned in string.Formatter().parse(paragraph):
            if name is not None and (not name.strip() or form or turned):
                raise ValueError("a brace of the prompt holds the name of a column and nothing else; {{ is a brace")
            pieces.append((text, name or ""))
        yield pieces
