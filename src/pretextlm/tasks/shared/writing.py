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
from pretextlm.errors import UserError
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
            UserError: a prompt leaves no position for an answer.
        """
        from pretextlm.model.generation import GenerationConfig, generate

        opened = [self.opening(prompt, vocabulary) for prompt in self.prompts(examples)]
        before = np.array([self._begins_at(model, *one) for one in opened])
        room = np.minimum(self.longest_answer, _positions(model.config) - before)
        if room.min(initial=1) < 1:
            raise UserError(
                "A prompt fills the model's table of positions: there is no room for an answer.",
                f"Give data.length={_positions(model.config) // 2} or less.",
            )
        found = np.empty(len(opened), object)
        for most in np.unique(room).tolist():
            chosen = np.flatnonzero(room == most)
            read = [opened[index][0] for index in chosen]
            begun = [begin for index in chosen if (begin := opened[index][1]) is not None]
            settings = GenerationConfig(max_new_tokens=most, temperature=0.0)
            texts = generate(model, vocabulary, read, settings, begun or None, reread=bool(begun) and self.causal)
            for index, text in zip(chosen, texts, strict=True):
                found[index] = text
        return found

    @staticmethod
    def _begins_at(model: Transformer, read: list[int], begun: list[int] | None) -> int:
        """Returns the position of the first generated token."""
        return len(begun) if model.encoder is not None and begun is not None else len(read)

    def answers(
        self, predictions: NDArray[Any], examples: Examples, encoder: OffsetTokenizer, records: Records
    ) -> list[Any]:
        """Returns the generated texts, without spaces around them."""
        return [encoder.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in predictions]

    def references(self, records: Records) -> list[Any]:
        """Returns the records' answers."""
        return list(records.texts("answer"))


def _positions(config: ModelConfig) -> int:
    """Returns the number of positions that a model can represent."""
    places = config.positions
    return places.max_position_embeddings - places.offset if places.kind == "learned" else 1 << 40


def ended(encoder: OffsetTokenizer, texts: list[str]) -> Any:
    """Returns texts followed by the end token each, as runs to be joined."""
    from pretextlm.data.offset_mapping import TokenizedTexts, join

    found = encoder.encode(texts)
    joined = join([(found, found.offsets[:-1], found.lengths), encoder.vocabulary.eos], len(texts))
    return TokenizedTexts(joined.tokens, joined.offsets, joined.places)
