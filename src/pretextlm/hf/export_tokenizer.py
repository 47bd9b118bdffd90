"""Writing a run's tokenizer in Hugging Face's format, with the special tokens that surround texts.

tokenizer.json   tokenizer_config.json   special_tokens_map.json   chat_template.jinja, where the import had one
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm.hf.chat_template import chat_template
from pretextlm.hf.provenance import CHAT_TEMPLATE
from pretextlm.training.run_directory import ORIGIN, Run

if TYPE_CHECKING:
    from pretextlm.data.vocabulary import Vocabulary


def write_tokenizer(directory: Path, run: Run, untouched: bool) -> None:
    """Writes the tokenizer's files into an exported directory: those of the import, byte for byte, if untouched."""
    origin = run.directory / ORIGIN
    if untouched and (origin / "tokenizer.json").exists():
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", CHAT_TEMPLATE):
            if (origin / name).exists():
                shutil.copyfile(origin / name, directory / name)
        return
    names = _names(run, run.vocabulary)
    tokenizer = run.tokenizer
    if has_task_class(run):
        tokenizer.post_processor = _frame_of_task(run, names)
    elif tokenizer.post_processor is None:
        tokenizer.post_processor = _frame(run, names)
    tokenizer.save(str(directory / "tokenizer.json"))
    limit = run.recipe.model.positions.max_position_embeddings or run.recipe.data.length
    inputs = ["input_ids", *(["token_type_ids"] if run.recipe.model.type_vocab_size else []), "attention_mask"]
    write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": limit,
            **names,
            **({"model_input_names": inputs} if has_task_class(run) else {}),
        },
    )
    write_json(directory / "special_tokens_map.json", names)
    template = chat_template(run.directory)
    if template is not None:
        (directory / CHAT_TEMPLATE).write_text(template, encoding="utf-8")


def has_task_class(run: Run) -> bool:
    """Returns whether the run is exported as a task class rather than a language model."""
    return run.recipe.task is not None and run.recipe.task.head_kind is not None


def _names(run: Run, vocabulary: Vocabulary) -> dict[str, str]:
    """Returns transformers' names of the seven named tokens, with the tokenizer's name of each."""
    roles = ("pad", "unk", "cls", "sep", "mask", "bos", "eos")
    return {f"{role}_token": str(run.tokenizer.id_to_token(getattr(vocabulary, role))) for role in roles}


def _frame(run: Run, names: Mapping[str, str]) -> Any:
    """Returns the post-processor that adds the special tokens around a text as in training."""
    from tokenizers.processors import TemplateProcessing

    template = {
        "encoder": (f"{names['cls_token']} $A {names['sep_token']}", ("cls", "sep")),
        "decoder": (f"{names['bos_token']} $A", ("bos",)),
        "encoder_decoder": (f"$A {names['eos_token']}", ("eos",)),
    }
    single, roles = template[run.recipe.model.architecture]
    return TemplateProcessing(
        single=single, special_tokens=[(names[f"{role}_token"], getattr(run.vocabulary, role)) for role in roles]
    )


def _frame_of_task(run: Run, names: Mapping[str, str]) -> Any:
    """Returns the post-processor for one or two texts of a task (tasks/base.py)."""
    from tokenizers.processors import TemplateProcessing

    model = run.recipe.model
    roles = ("bos", "eos") if model.architecture == "decoder" else ("cls", "sep")
    lead, end = (names[f"{role}_token"] for role in roles)
    kind = int(model.type_vocab_size > 1)
    return TemplateProcessing(
        single=f"{lead} $A {end}",
        pair=f"{lead} $A {end} $B:{kind} {end}:{kind}",
        special_tokens=[(names[f"{role}_token"], getattr(run.vocabulary, role)) for role in roles],
    )


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes values as JSON, indented and sorted."""
    path.write_text(json.dumps(dict(values), indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
