"""How a run leaves: as a class of transformers, with its own modelling code, or not at all.

    decoder of the default shape, causal           NanoChatForCausalLM (transformers)
    model.preset = "modernbert-base", masked       ModernBertForMaskedLM (transformers)
    encoder of the default shape                   its own modelling code
    decoder, masked with predict = "next"          its own modelling code: classes of transformers only look back

The recipe decides, before any training: names and shapes of the tensors are enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pretextlm.errors import UserError
from pretextlm.hf import custom_code
from pretextlm.hf.custom_code import NAME as OWN
from pretextlm.hf.custom_code import restores_in_place
from pretextlm.hf.state_dict import DISCRIMINATOR, trained_part, translated
from pretextlm.hf.task_heads import exported_task

if TYPE_CHECKING:
    from pretextlm.objectives.protocol import DecoderAttention
    from pretextlm.training.recipe import Recipe

ONE_DIRECTION = {
    "prefix": (
        "It reads the first part of a text in both directions; decoders of transformers only look back.",
        "Name a family (--family llama, for example) to export it as a model that only looks back.",
    ),
    "bidirectional": (
        "It reads a text in both directions; decoders of transformers only look back.",
        'Train an encoder instead: model.architecture="encoder".',
    ),
}
"""Attention of a decoder → (why no class of transformers reads it, what to do)."""


@dataclass(frozen=True)
class ExportFormat:
    """How a run leaves.

    Attributes:
        family: model_type of config.json; "pretextlm" with its own modelling code, "" where it cannot leave.
        architecture: class that reads it; "" where none does.
        reason: why no class of transformers reads it; "" where one does.
        hint: what to do about that.
    """

    family: str
    architecture: str
    reason: str = ""
    hint: str = ""

    def __str__(self) -> str:
        if not self.family:
            return f"No other program can read this model: {self.reason}"
        if self.family == OWN:
            return f"Exports with its own modelling code ({self.architecture}, trust_remote_code)"
        return f"Exports as {self.architecture} (transformers)"


def export_format(
    recipe: Recipe, pad: int | None = None, *, family: str | None = None, origin: str | None = None
) -> ExportFormat:
    """Decide how a run by a recipe leaves.

    Args:
        recipe: of the run, with the size of its vocabulary.
        pad: the padding id, from which some families count positions; None: not checked.
        family: Hugging Face's model_type that the user wants; None for the first that fits.
        origin: that of the imported model that the run continues.

    Raises:
        UserError: the family that the user wants does not fit.
    """
    from pretextlm.model.transformer import meta_model

    config, attention = recipe.model, attention_of(recipe)
    task = exported_task(recipe)
    if config.architecture == "decoder" and (attention == "bidirectional" or (attention == "prefix" and not family)):
        error = UserError(*ONE_DIRECTION[attention])
    elif family == OWN:
        error = UserError("Its own modelling code was requested.")
    else:
        weights = meta_model(config, recipe.training_objective.heads).state_dict()
        try:
            part = trained_part(recipe, weights, DISCRIMINATOR)
            done = translated(*part, family or origin, pad, task, leaves_bare(recipe))
        except UserError as found:
            error = found
        else:
            return ExportFormat(done.family.name, str(done.values["architectures"][0]))
    if family not in (None, OWN):
        raise error
    reason, hint = error.message.rstrip("."), error.hint
    refused = custom_code.supports(config, attention)
    if refused is None:
        return ExportFormat(OWN, custom_code.auto_class(custom_code.main_class(recipe)), reason, hint)
    return ExportFormat("", "", f"{reason}; {refused}", hint)


def leaves_bare(recipe: Recipe) -> bool:
    """Returns whether an encoder's language-model head does something else than its published class, which restores a
    hidden token at its own place: that of a permutation, or of the next token.
    """
    objective = recipe.objective
    return recipe.model.architecture == "encoder" and objective is not None and not restores_in_place(objective)


def attention_of(recipe: Recipe) -> DecoderAttention:
    """Returns how the first stack of a model attends."""
    decoder = recipe.model.architecture == "decoder"
    return recipe.training_objective.decoder_attention if decoder else "bidirectional"
