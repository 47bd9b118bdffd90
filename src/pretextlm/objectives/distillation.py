"""Train on the soft predictions of a trained model beside the labels of the text (Sanh et al. 2019).

    input      [CLS] the [MASK] sat [SEP]        the same noise for both
    label        -    -   cat    -    -          the student's own loss
    teacher    cat .6  dog .3  man .1 …          probabilities, softened by a temperature
    states     the angle between student's and teacher's last hidden states is to be 0

The loss is weight_soft · T² KL(teacher || student) + weight_hard · the objective's own + weight_cosine · (1 - cos). A
student with fewer layers is initialised with every other layer of its teacher.

Paper: DistilBERT, a distilled version of BERT, https://arxiv.org/abs/1910.01108; temperature and T²: Hinton et al.
2015, https://arxiv.org/abs/1503.02531. As in DistilBERT's code the predictions are compared at every token that is not
padding, labelled or not.

Requires a run of the same tokenizer trained with the same kind of objective. Suits the architectures of the inner
objective, which must have one loss, at the language-model head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pretextlm.batch import IGNORE, Batch, Term
from pretextlm.errors import UserError
from pretextlm.objectives.base import Objective
from pretextlm.objectives.masked import Masked
from pretextlm.objectives.protocol import Architecture, DecoderAttention, Forward
from pretextlm.objectives.registry import ObjectiveField
from pretextlm.objectives.shared.wrapper import Wrapper

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pretextlm.model.config import ModelConfig
    from pretextlm.model.transformer import Transformer

I64 = NDArray[np.int64]


class Distillation(Wrapper):
    """Distillation of a run into a new model, under any objective with a language-model loss.

    Args:
        teacher: run directory of the trained model.
        inner: the objective whose rows both models read, and whose own loss the student has too.
        temperature: T, by which both models' logits are divided before they are compared.
        weight_soft, weight_hard, weight_cosine: of the three losses; 0 leaves one out.
        positions: compare at "all" tokens that are not padding, or only at the "labelled" ones.
        start: initial weights of the student: "teacher", evenly spaced layers and all other weights, or "random".
    """

    name: ClassVar[str] = "distillation"
    title: ClassVar[str] = "Distillation"
    paper: ClassVar[str] = "Sanh et al. 2019, https://arxiv.org/abs/1910.01108"
    summary: ClassVar[str] = "Learns what a trained model finds likely at every token, beside the text itself."
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder", "decoder", "encoder_decoder")

    teacher: str = Field(default="", description="run directory of the trained model")
    inner: ObjectiveField = Field(default=Masked(), description="the objective whose rows both models read")
    temperature: float = Field(default=2.0, gt=0, description="by which logits are divided before they are compared")
    weight_soft: float = Field(default=5.0, ge=0, description="weight of the divergence from the teacher")
    weight_hard: float = Field(default=2.0, ge=0, description="weight of the objective's own loss")
    weight_cosine: float = Field(default=1.0, ge=0, description="weight of the angle between last hidden states")
    positions: Literal["all", "labelled"] = Field(default="all", description="tokens at which predictions are compared")
    start: Literal["teacher", "random"] = Field(default="teacher", description="initial weights of the student")

    @model_validator(mode="after")
    def _inner_has_one_pass(self) -> Self:
        if type(self.inner).step is not Objective.step or self.inner.frozen_models():
            raise ValueError(f"{self.inner.name!r} takes more than one model and cannot be distilled")
        if not self.weight_soft + self.weight_hard + self.weight_cosine:
            raise ValueError("one of weight_soft, weight_hard, weight_cosine must be above 0")
        return self

    def supported_architectures(self) -> tuple[Architecture, ...]:
        return self.inner.supported_architectures()

    @property
    def decoder_attention(self) -> DecoderAttention:
        return self.inner.decoder_attention

    def heads(self, config: ModelConfig) -> dict[str, nn.Module]:
        return self.inner.heads(config)

    def frozen_models(self) -> dict[str, str]:
        if not self.teacher:
            raise UserError("Distillation needs a teacher.", 'Give its run: objective.teacher="runs/teacher"')
        return {"teacher": self.teacher}

    def at_evaluation(self) -> Objective:
        """Returns the inner objective, since the teacher may no longer exist."""
        return self.inner

    def init_weights(self, models: Mapping[str, Transformer]) -> None:
        """Copies the teacher's embedding, head and evenly spaced layers to the student, with start="teacher".

        Raises:
            UserError: the two models' shapes do not fit.
        """
        student, teacher = models["model"], models["teacher"]
        if self.weight_cosine and student.config.hidden_size != teacher.config.hidden_size:
            raise UserError(
                f"Student and teacher differ in hidden_size ({student.config.hidden_size}, "
                f"{teacher.config.hidden_size}), so that their states have no angle.",
                "Give model.hidden_size as the teacher's, or objective.weight_cosine=0.",
            )
        if self.start == "teacher":
            copy_layers(teacher, student)

    def flops(self, config: ModelConfig, batch: Batch) -> float:
        from pretextlm.model.flops import training_flops

        return training_flops(config, batch, len(self._places(batch)))

    def loss_mask(self, batch: Batch) -> NDArray[np.bool_]:
        found = np.zeros(batch.targets.size, dtype=bool)
        found[self._places(batch)] = True
        return found.reshape(batch.targets.shape)

    def counts(self, batch: Batch) -> dict[str, int]:
        compared = len(self._places(batch))
        counts = {name: count for name, count in self.inner.counts(batch).items() if self.weight_hard}
        if self.weight_soft:
            counts["soft"] = compared
        if self.weight_cosine:
            counts["cosine"] = compared
        return counts

    def step(self, forward: Forward, batch: Batch) -> dict[str, Term]:
        """Returns the student's own terms and those that compare it with the teacher."""
        import torch
        from torch.nn import functional

        from pretextlm.model.loss import linear_divergence

        student = forward(batch)
        with torch.no_grad():
            teacher = forward(batch, "teacher")
        places = self._places(batch)
        own_ND, teacher_NE = student.hidden_at(places), teacher.hidden_at(places)
        terms = {}
        if self.weight_hard:
            for name, term in self.inner.terms(student, batch).items():
                terms[name] = Term(term.total, term.count, self.weight_hard * term.coefficient, term.correct)
        if self.weight_soft:
            own, other = student.model, teacher.model
            if own.config.vocab_size != other.config.vocab_size:
                raise UserError("Teacher and student differ in vocab_size.", "Give both the same tokenizer.")
            total = linear_divergence(
                own.lm_head_input(own_ND),
                own.lm_head_weight,
                other.lm_head_input(teacher_NE),
                other.lm_head_weight,
                self.temperature,
                (own.config.logit_softcap, other.config.logit_softcap),
                own.head_layers.bias,
                other.head_layers.bias,
            )
            terms["soft"] = Term(total, len(places), self.weight_soft)
        if self.weight_cosine:
            alike_N: Tensor = functional.cosine_similarity(own_ND.float(), teacher_NE.float(), dim=1)
            terms["cosine"] = Term((1 - alike_N).sum(), len(places), self.weight_cosine)
        return terms

    def _places(self, batch: Batch) -> I64:
        """Returns the flat positions of the predicted row at which the two models are compared."""
        decodes = batch.decoder_input_ids is not None
        if self.positions == "labelled":
            return np.flatnonzero(batch.targets.reshape(-1) != IGNORE)
        ids: Any = batch.decoder_input_ids if decodes else batch.input_ids
        segments = batch.decoder_segment_ids if decodes else batch.segment_ids
        return np.arange(ids.size) if segments is None else np.flatnonzero(segments.reshape(-1) >= 0)


def copy_layers(teacher: Transformer, student: Transformer) -> None:
    """Copies the teacher's embeddings and layers 0, r, 2r, … to the student, for a teacher with r times as many layers.

    Raises:
        UserError: a weight has another shape.
    """
    import torch

    weights = teacher.state_dict()
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            source = _layer_of_teacher(name, teacher, student)
            if source not in weights or weights[source].shape != parameter.shape:
                raise UserError(
                    f"The student's {name} cannot be taken from the teacher: it has another shape.",
                    'Give the model the teacher\'s sizes but for num_hidden_layers, or objective.start="random".',
                )
            parameter.copy_(weights[source])


def _layer_of_teacher(name: str, teacher: Transformer, student: Transformer) -> str:
    stack, _, rest = name.partition(".")
    if stack not in ("encoder", "decoder"):
        return name
    number, _, rest = rest.partition(".")
    layer = int(number) * teacher.config.num_hidden_layers // student.config.num_hidden_layers
    return f"{stack}.{layer}.{rest}"
