"""The values of config.json and generation_config.json of an exported run.

A run that was imported and trained on keeps the published values that we do not model (dropout, initializer), unless
they depend on something that is no longer the same: the labels of another head, or lists and sizes of another shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pretextlm.errors import UserError
from pretextlm.hf import int8
from pretextlm.hf.provenance import GENERATION, kept

if TYPE_CHECKING:
    from pretextlm.hf.state_dict import Translated
    from pretextlm.training.run_directory import Run

HEAD_KEYS = ("num_labels", "id2label", "label2id", "problem_type", "finetuning_task", "task_specific_params")
"""Values that describe the head of the imported class."""
NAMED = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")


def config_values(run: Run, done: Translated, same: bool, untouched: bool) -> dict[str, Any]:
    """Returns the values of config.json.

    Args:
        run: the exported run.
        done: its model under the family's names.
        same: the family is the one it was imported as, so that values of the import are kept.
        untouched: it was not trained since the import.
    """
    before = kept(run.directory, "config.json") if same else {}
    before.pop(int8.KEY, None)
    if untouched and same:
        return {**before, **done.values}
    known = run.vocabulary
    eos = known.eos if len(known.ends) == 1 else list(known.ends)
    ids = {"pad_token_id": known.pad, "bos_token_id": known.bos, "eos_token_id": eos}
    if run.recipe.model.architecture == "encoder_decoder":
        ids |= {"decoder_start_token_id": known.start}
    if run.recipe.model.architecture == "encoder":  # ModernBERT's configuration has defaults of its own vocabulary
        ids |= {"cls_token_id": known.cls, "sep_token_id": known.sep}
    still = {name: value for name, value in before.items() if value is not None or name not in ids}
    return {**ids, **_independent(still, done), **done.values}


def generation_values(run: Run, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of generation_config.json: those of the import, completed by the ids of config.json."""
    own = {name: values[name] for name in NAMED if values.get(name) is not None}
    return own | {name: value for name, value in kept(run.directory, GENERATION).items() if value is not None}


def _independent(before: Mapping[str, Any], done: Translated) -> dict[str, Any]:
    """Returns the published values that do not depend on the head or the shape of the imported model.

    If the shape is another than that of the import, no size and no list is kept: layer_types lists one kind for each
    layer, max_window_layers counts them, and only the family knows which of them it writes.
    """
    found = {name: value for name, value in before.items() if name not in HEAD_KEYS}
    if _shape_of(before, done) == _shape_of(done.values, done):
        return found
    sizes = (int, list, dict)
    return {n: v for n, v in found.items() if n in NAMED or isinstance(v, bool) or not isinstance(v, sizes)}


def _shape_of(values: Mapping[str, Any], done: Translated) -> Any:
    """Returns the shape that the family reads, without the vocabulary, which grows by special tokens alone."""
    try:
        shape = done.family.config_from_hf(values)
    except (UserError, KeyError):
        return None
    return shape.model_dump(exclude={"vocab_size", "head", "special_token_ids"})
