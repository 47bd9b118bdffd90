"""Models that leave with their code: one file beside config.json, which transformers runs with trust_remote_code.

    config.json   auto_map: {"AutoModelForMaskedLM": "modeling_pretextlm.PretextForMaskedLM", …}
    modeling_pretextlm.py

The file is written for readers and imports nothing of ours; `model/families/pretextlm.py` has the names of its tensors.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm.model.families.pretextlm import NAME, PretextLM, unsupported

if TYPE_CHECKING:
    from pretextlm.model.config import ModelConfig
    from pretextlm.objectives.protocol import DecoderAttention, TrainingObjective
    from pretextlm.training.recipe import Recipe

__all__ = ["BARE", "NAME", "auto_class", "copy_to", "main_class", "restores_in_place", "settings", "supports"]

CODE = "modeling_pretextlm.py"
BARE = "PretextModel"
LANGUAGE_MODELS = {kind: name for name, kind in PretextLM.classes.items()}
TASK_CLASSES = [found.theirs for found in PretextLM.task_classes.values()]


def supports(config: ModelConfig, attention: DecoderAttention = "causal") -> str | None:
    """Returns why a model of this shape cannot be written with its code; None where it can.

    Args:
        config: shape of the model.
        attention: how its first stack reads a text.
    """
    if attention == "prefix" and any(config.attention.sliding_windows):
        return "sliding windows over a prefix are not in the code that is written beside it"
    return unsupported(config)


def main_class(recipe: Recipe, generator: bool = False) -> str:
    """Returns the class that does what a model was trained to do, the bare model where there is none.

    Args:
        recipe: that the model was trained by.
        generator: the model is the generator of replaced-token detection.
    """
    from pretextlm.tasks.shared.writing import WritingTask

    objective, kind = recipe.training_objective, recipe.model.architecture
    if recipe.task is not None and recipe.task.head_kind is not None:
        return PretextLM.task_classes[recipe.task.head_kind].theirs
    if recipe.task is not None:
        return LANGUAGE_MODELS[kind] if isinstance(recipe.task, WritingTask) else BARE
    if kind == "decoder":
        return BARE if objective.decoder_attention == "bidirectional" else LANGUAGE_MODELS[kind]
    restores = kind == "encoder_decoder" or generator or restores_in_place(objective)
    return LANGUAGE_MODELS[kind] if restores else BARE


def restores_in_place(objective: TrainingObjective) -> bool:
    """Returns whether an encoder was trained to predict hidden tokens at their own places, as its class does."""
    from pretextlm.data.vocabulary import Vocabulary
    from pretextlm.objectives.base import Objective
    from pretextlm.objectives.masked import MaskedLayout
    from pretextlm.objectives.replaced_token import ReplacedToken

    if not isinstance(objective, Objective) or isinstance(objective, ReplacedToken):
        return False
    some_ids = Vocabulary(
        9, 0, 1, 2, 3, 4, 5, 6, (7, 8), frozenset(range(9))
    )  # the kind of layout does not depend on ids
    layout = objective.blank_layout(some_ids, "encoder")
    return isinstance(layout, MaskedLayout) and not layout.predicts_next


def auto_class(name: str) -> str:
    """Returns transformers' Auto class that finds one of ours: AutoModelForMaskedLM for PretextForMaskedLM."""
    return "AutoModel" if name == BARE else name.replace("Pretext", "AutoModel")


def settings(recipe: Recipe, generator: bool = False) -> dict[str, Any]:
    """Returns what config.json says of the code and its classes; the arguments are those of `main_class`."""
    kind, main = recipe.model.architecture, main_class(recipe, generator)
    classes = dict.fromkeys([BARE, main, *(TASK_CLASSES if kind != "encoder_decoder" else ())])
    named = {"AutoConfig": "PretextConfig"} | {auto_class(name): name for name in classes}
    visibility = {"encoder": "bidirectional", "encoder_decoder": "causal"}
    return {
        "auto_map": {auto: f"{CODE.removesuffix('.py')}.{name}" for auto, name in named.items()},
        "architectures": [main],
        "visibility": visibility.get(kind, recipe.training_objective.decoder_attention),
    }


def copy_to(directory: Path) -> None:
    """Writes the code into a directory."""
    shutil.copyfile(Path(__file__).with_name(CODE), directory / CODE)
