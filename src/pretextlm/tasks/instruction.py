"""Answers to instructions: a causal model trained on the tokens of the answers alone (Wei et al. 2022).

    {"instruction": "Add up.", "input": "2 and 2", "output": "4 ."}

    prompt    "{instruction}\\n\\n{input}\\n\\n"

    row       <s> Add up . ⏎⏎ 2 and 2 ⏎⏎ 4 .
    labels     -   -  -  -  -  - -  - 4  . </s>        labels[t] is the row's token t + 1

The prompt is a template with columns in braces; {{ and }} are braces. A paragraph of it whose columns are all empty is
left out, so that one template serves records with and without an input. Spaces at its end belong to the answer, since
tokenizers join a space with the word after it.

Examples that are too long lose tokens: a prompt at its beginning, an answer at its end, the longer of the two first. An
answer that is cut has no end token, so that no model is trained to stop there.

Paper: Finetuned language models are zero-shot learners, https://arxiv.org/abs/2109.01652
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field, field_validator

from pretextlm.batch import IGNORE
from pretextlm.data.examples import Examples
from pretextlm.data.offset_mapping import OffsetTokenizer, Part, join, where
from pretextlm.data.sentence_pair_index import truncated
from pretextlm.errors import UserError
from pretextlm.objectives.protocol import Architecture
from pretextlm.tasks.base import text_template
from pretextlm.tasks.shared.template import Template, columns_read, values_read
from pretextlm.tasks.shared.writing import WritingTask, ended

if TYPE_CHECKING:
    from pretextlm.data.records import Records
    from pretextlm.data.vocabulary import Vocabulary
    from pretextlm.model.config import ModelConfig

PARAGRAPH = "\n\n"


class Instruction(WritingTask):
    """Answers to instructions.

    Args:
        prompt: template with the names of columns in braces; A.B is the field B of the column A.
        answer: column of the answer.
        longest_answer: as for :class:`WritingTask`.
    """

    name: ClassVar[str] = "instruction"
    title: ClassVar[str] = "Instructions"
    paper: ClassVar[str] = "Wei et al. 2022, https://arxiv.org/abs/2109.01652"
    summary: ClassVar[str] = "Answers an instruction in words."
    architectures: ClassVar[tuple[Architecture, ...]] = ("decoder",)
    default_metrics: ClassVar[tuple[str, ...]] = ("exact_match",)

    prompt: str = Field(default="{instruction}\n\n{input}\n\n", description="template with columns in braces")
    answer: str = Field(default="output", description="column of the answer")

    @field_validator("prompt")
    @classmethod
    def _names_columns(cls, prompt: str) -> str:
        if not any(Template.parse(paragraph).columns for paragraph in prompt.split(PARAGRAPH)):
            raise ValueError("the prompt names no column: write the name of one in braces")
        return prompt

    def columns(self) -> dict[str, str]:
        """Returns the columns of the prompt and the answer."""
        return {**columns_read("prompt", Template.parse(self.prompt)), "answer": self.answer}

    def texts(self, records: Records) -> list[str]:
        """Returns the prompt of each record.

        Raises:
            UserError: a prompt is empty; names its row.
        """
        paragraphs = [Template.parse(paragraph) for paragraph in self.prompt.split(PARAGRAPH)]
        found = []
        for index, values in enumerate(values_read(records, "prompt", Template.parse(self.prompt), {})):
            if not any(value.strip() for value in values.values()):
                raise records.fault(index, "every column of the prompt is empty.", "Leave such rows out.")
            kept = [one for one in paragraphs if not one.columns or any(values[n].strip() for n in one.columns)]
            text = PARAGRAPH.join(one.filled(values) for one in kept)
            found.append(text.rstrip(" ") if self._space else text)
        return found

    @property
    def _space(self) -> str:
        """Spaces at the end of the template, which belong to the answer."""
        return self.prompt[len(self.prompt.rstrip(" ")) :]

    def examples(self, records: Records, encoder: OffsetTokenizer, model: ModelConfig, length: int) -> Examples:
        """Returns one example per record; the end token is a label and never an input."""
        if length < 4:
            raise UserError(f"data.length is {length}: there is no room for text.", "Give at least 8, usually 256.")
        prompts = encoder.encode(self.texts(records))
        answers = ended(encoder, [self._space + text for text in records.texts("answer")])
        before = text_template(encoder.vocabulary, model).before
        own, theirs = truncated(prompts.lengths, answers.lengths, length + 1 - max(1, len(before)))
        lead: list[Part] = [*before] or [where(own == 0, encoder.vocabulary.bos)]  # the answer follows some token
        runs: list[Part] = [*lead, (prompts, prompts.offsets[1:] - own, own), (answers, answers.offsets[:-1], theirs)]
        joined = join(runs, len(records))
        # The last run is the answer with </s>, in <s> prompt answer: a position is labelled if the next token is of it.
        # The last token of an example is then removed, since nothing follows it.
        following = np.append(joined.tokens[1:], 0)
        answered = np.append(joined.run[1:], 0) == len(runs) - 1
        labels = np.where(answered, following, IGNORE).astype(np.int32)
        read = np.ones(len(labels), bool)
        read[joined.offsets[1:] - 1] = False
        return Examples(
            tokens=joined.tokens[read],
            offsets=joined.offsets - np.arange(len(records) + 1),
            records=np.arange(len(records)),
            token_labels=labels[read],
        )

    def prompts(self, examples: Examples) -> list[list[int]]:
        """Returns each example up to the token from which the answer's first one is predicted."""
        assert examples.token_labels is not None, "an instruction has an answer"
        first = np.flatnonzero(examples.token_labels != IGNORE)
        ends = first[np.searchsorted(first, examples.offsets[:-1])] + 1
        return [examples.tokens[a:b].tolist() for a, b in zip(examples.offsets[:-1], ends, strict=True)]

    def opening(self, prompt: list[int], vocabulary: Vocabulary) -> tuple[list[int], None]:
        """Returns the prompt; a decoder reads it from left to right."""
        return prompt, None
