"""Tasks whose answer is a generated text: trained on the answer's tokens, evaluated by greedy generation.

Axis letters: E examples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pretextlm.batch import IGNORE, Batch
from pretextlm.data.examples import Examples
from pretextlm.data.offset_mapping import OffsetTokenizer
from pretextlm.objectives.protocol import Outputs
from pretextlm.tasks.base import Task

if TYPE_CHECKING:
    from pretextlm.data.records import Records
    from pretextlm.data.vocabulary import Vocabulary
    from pretextlm.model.config import ModelConfig
    from pretextlm.model.transformer import Transformer

I64 = NDArray[np.int64]


class WritingTask(Task):
    """Base of the tasks with generated answers.

    Args:
        longest_answer: most tokens of a generated answer.
    """

    label_columns: ClassVar[tuple[str, ...]] = ("answer",)

    longest_answer: int = Field(default=128, ge=1, description="most tokens of an answer that is written")

    def opening(self, prompt: list[int], vocabulary: Vocabulary) -> tuple[list[int], list[int] | None]:
        """Returns the model's input before it generates: (tokens it reads, first tokens of its decoder or None).

        Args:
            prompt: of an example, as `prompts` returns it.
            vocabulary: for special tokens.
        """
        raise NotImplementedError

    def prompts(self, examples: Examples) -> list[list[int]]:
        """Returns the tokens of each example without those of the answer."""
        raise NotImplementedError

    def dummy_labels(self, records: Records) -> dict[str, list[Any]]:
        """Returns a full stop for each record."""
        return {"answer": ["."] * len(records)}

    def flops(self, config: ModelConfig, batch: Batch) -> float:
        """Returns the operations of the model with the language-model head at every token of an answer."""
        from pretextlm.model.flops import training_flops

        return training_flops(config, batch, int(np.count_nonzero(batch.targets != IGNORE)))

    def predict(self, outputs: Outputs, batch: Batch) -> NDArray[Any]:
        """Not available: one forward pass generates no text; see `write`.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"{self.name} answers by writing")

    def write(self, model: Transformer, examples: Examples, vocabulary: Vocabulary) -> NDArray[Any]:
        """Generates an answer for each example, greedily, up to the end token.

        Each answer depends on its own prompt alone. It ends at the latest where the model's position table does.

        Args:
            model: to generate with.
            examples: with the prompts.
            vocabulary: for special tokens.

        Returns:
            (E,) lists of generated tokens.

        Raises:
            UserError: a prompt is longer than the model reads.
        """
        from pretextlm.model.generation import GenerationConfig, generate

        opened = [self.opening(prompt, vocabulary) for prompt in self.prompts(examples)]
        begun = [begin for _, begin in opened if begin is not None]
        settings = GenerationConfig(max_new_tokens=self.longest_answer, temperature=0.0)
        read = [prompt for prompt, _ in opened]
        texts = generate(model, vocabulary, read, settings, begun or None, reread=bool(begun) and self.causal)
        found = np.empty(len(opened), object)
        for index, text in enumerate(texts):
            found[index] = text
        return found

    def answers(
        self, predictions: NDArray[Any], examples: Examples, encoder: OffsetTokenizer, records: Records
    ) -> list[Any]:
        """Returns the generated texts, without spaces around them."""
        return [encoder.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in predictions]

    def references(self, records: Records) -> list[Any]:
        """Returns the records' answers."""
        return list(records.texts("answer"))


def ended(encoder: OffsetTokenizer, texts: list[str]) -> Any:
    """Returns texts followed by the end token each, as runs to be joined."""
    from pretextlm.data.offset_mapping import TokenizedTexts, join

    found = encoder.encode(texts)
    joined = join([(found, found.offsets[:-1], found.lengths), encoder.vocabulary.eos], len(texts))
    return TokenizedTexts(joined.tokens, joined.offsets, joined.places)
