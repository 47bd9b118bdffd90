"""The common protocol of objectives and tasks: the interface of anything that the trainer trains a model on.

A training objective is a frozen configuration with three duties: it says how a split is read (`reader`), turns rows
into a batch (`collate`, `counts`), and turns a model's outputs into loss terms (`step`, `terms`). It is pure: only
(seed, epoch, example id), through the counter-based generator, decide its random choices. It knows neither tokenizer
nor trainer nor device; everything but `heads`, `init_weights`, `step` and `terms` is numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import IGNORE, Batch, Rows, Term
from pretextlm.config import Config
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.row_reader import RowReader
from pretextlm.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pretextlm.model.config import ModelConfig
    from pretextlm.model.transformer import Transformer
    from pretextlm.scoring.blank import DecoderPrompt
    from pretextlm.scoring.scorer import Scorer
    from pretextlm.scoring.token_texts import TokenTexts

Architecture = Literal["encoder", "decoder", "encoder_decoder"]
DecoderAttention = Literal["causal", "prefix", "bidirectional"]


class Outputs(Protocol):
    """The part of a model's output that an objective reads."""

    @property
    def model(self) -> Transformer: ...

    @property
    def hidden_BTD(self) -> Tensor: ...

    def hidden_at(self, places: NDArray[np.integer]) -> Tensor: ...

    def cross_entropy_of(self, hidden_MD: Tensor, labels: NDArray[np.integer]) -> Tensor: ...

    @property
    def hidden_ND(self) -> Tensor: ...

    @property
    def labels_N(self) -> Tensor: ...

    @property
    def logits_NV(self) -> Tensor: ...

    @property
    def heads(self) -> Mapping[str, nn.Module]: ...

    def cross_entropy(self) -> Tensor: ...

    def cross_entropy_at(self, labels: Any) -> Tensor: ...


class Forward(Protocol):
    """Runs one of the models on a batch: the trained one, or one in another role."""

    def __call__(self, batch: Batch, role: str = "model") -> Outputs: ...


class TrainingObjective(Config):
    """What a model is trained on: the common ground of :class:`Objective` (pre-training) and Task (fine-tuning).

    Class attributes:
        name: as registered; the name of its source file.
        title: for people.
        paper: authors, year and address.
        summary: one sentence for readers who have not met it; lists, reports and model cards show it.
        architectures: those it suits with any options, the default first.
        writes_targets: a model so trained does not continue a text but writes the target that belongs to it.
        models_every_token: the loss is that of every token of the text, so that it can be given in bits per byte.
        token_types: number of token types that the model tells apart (0: none).
        dynamic_shapes: batches differ in shape.
        needs_full_batch: the loss compares the rows of a step, which then is one forward pass.
        training_defaults: values of a recipe's table [training] that replace the general ones.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    summary: ClassVar[str]
    architectures: ClassVar[tuple[Architecture, ...]]
    writes_targets: ClassVar[bool] = False
    models_every_token: ClassVar[bool] = False
    token_types: ClassVar[int] = 0
    dynamic_shapes: ClassVar[bool] = False
    needs_full_batch: ClassVar[bool] = False
    training_defaults: ClassVar[Mapping[str, Any]] = {}

    def num_token_types(self) -> int:
        """Returns how many token types a model needs with these options."""
        return self.token_types

    def supported_architectures(self) -> tuple[Architecture, ...]:
        """Returns the architectures that it suits with these options, the default first."""
        return self.architectures

    def scorer(self, model: Transformer, texts: TokenTexts) -> Scorer | None:
        """Returns a model trained with these options as a scorer, which fills blanks; None if it cannot fill any.

        Args:
            model: in eval mode.
            texts: the tokens of its tokenizer.
        """
        return None

    def decoder_prompt(
        self, vocabulary: Vocabulary, architecture: Architecture, tokens: Sequence[int]
    ) -> DecoderPrompt | None:
        """Returns the input of a decoder that continues a text; None if models so trained do not continue texts.

        Args:
            vocabulary: for special tokens.
            architecture: of the model.
            tokens: ids of the text, without special tokens.
        """
        return None

    def answers_prompts(self, vocabulary: Vocabulary, architecture: Architecture) -> bool:
        """Returns whether a model writes an answer to a prompt, its source, rather than what follows it.

        So does a published encoder-decoder, as in transformers, whatever it was trained on.
        """
        return self.writes_targets or (architecture == "encoder_decoder" and vocabulary.template is not None)

    def documents(self, split: Any) -> Any:
        """Returns the documents or examples of a split that it reads.

        Raises:
            UserError: there are none.
        """
        return split

    def reader(self, split: Any, vocabulary: Vocabulary, length: int) -> RowReader:
        """Returns a reader of the split's rows, each of at most `length` input tokens.

        Args:
            split: of the kind of data that it learns from: of a store, or examples.

        Raises:
            UserError: the vocabulary, the length or the split does not suit.
        """
        raise NotImplementedError

    @property
    def noise_period(self) -> int:
        """Epochs after which the random choices repeat (static noise); 0: never."""
        return 0

    @property
    def scheduled_noise(self) -> bool:
        """Whether the noise depends on the progress of training, which then must be known when a row is read."""
        return False

    @property
    def decoder_attention(self) -> DecoderAttention:
        """How a decoder so trained attends: to what came before, to a prefix in both directions too, or to all."""
        return "causal"

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns the batch of these rows: pure, vectorised, without changing `rows`.

        Args:
            rows: as the reader returned them.
            vocabulary: for special tokens.
            rng: one stream of random numbers per row.
        """
        raise NotImplementedError

    def counts(self, batch: Batch) -> dict[str, int]:
        """Returns the number of targets per loss term.

        It depends on the (numpy) batch alone, so that a step's total count is known before any loss is computed.
        """
        return {"lm": int(np.count_nonzero(batch.targets != IGNORE))}

    def heads(self, config: ModelConfig) -> dict[str, nn.Module]:
        """Returns the modules, by name, that are trained and saved with the model beside its language-model head.

        A module with `reset_parameters(generator)` is initialised by it.
        """
        return {}

    def frozen_models(self) -> dict[str, str]:
        """Returns the run directories, by role, of models that take part without being trained."""
        return {}

    def at_evaluation(self) -> TrainingObjective:
        """Returns the objective that measures a trained model, which needs nothing but that model."""
        return self

    def for_architecture(self, architecture: Architecture) -> Self:
        """Returns the same objective with the options that a model of this architecture needs."""
        return self

    def init_weights(self, models: Mapping[str, Transformer]) -> None:
        """Sets initial weights of a new run in place, where they are not those initialised from its seed.

        Args:
            models: all models by role; the trained one is "model".
        """

    def flops(self, config: ModelConfig, batch: Batch) -> float:
        """Returns the floating-point operations to train a model of this shape on the batch."""
        from pretextlm.model.flops import training_flops

        return training_flops(config, batch, int(np.count_nonzero(batch.targets != IGNORE)))

    def step(self, forward: Forward, batch: Batch) -> dict[str, Term]:
        """Returns the loss terms of one micro-batch. Overridden where more than one forward pass is needed."""
        return self.terms(forward(batch), batch)

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Returns the summed losses: by default the cross-entropy of the labelled positions, in nats."""
        return {"lm": Term(outputs.cross_entropy(), outputs.labels_N.numel())}
