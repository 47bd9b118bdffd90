"""Writing a run's tokenizer in Hugging Face's format, with the special tokens that surround texts.

tokenizer.json   tokenizer_config.json   special_tokens_map.json   chat_template.jinja, where the import had one
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm.data.text_template import FIRST, TextTemplate, post_processor, template_of
from pretextlm.hf.chat_template import chat_template
from pretextlm.hf.provenance import CHAT_TEMPLATE, kept
from pretextlm.hf.task_heads import exported_task
from pretextlm.hf.tokenizer_settings import NAMES, ROLES, SETTINGS
from pretextlm.tasks.base import text_template
from pretextlm.training.run_directory import ORIGIN, Run

if TYPE_CHECKING:
    from pretextlm.data.vocabulary import Vocabulary

REPLACED = (
    "add_bos_token",
    "add_eos_token",
    "added_tokens_decoder",
    "auto_map",
    "chat_template",
    "extra_special_tokens",
    "name_or_path",
)
"""Settings of an imported tokenizer that would contradict the tokenizer.json that is written."""


def write_tokenizer(directory: Path, run: Run, untouched: bool) -> None:
    """Writes the tokenizer's files into an exported directory: those of the import, byte for byte, if untouched."""
    origin = run.directory / ORIGIN
    if untouched and (origin / "tokenizer.json").exists():
        for name in ("tokenizer.json", SETTINGS, NAMES, CHAT_TEMPLATE):
            if (origin / name).exists():
                shutil.copyfile(origin / name, directory / name)
        return
    names = _names(run, run.vocabulary)
    tokenizer, template = run.tokenizer, exported_template(run)
    if tokenizer.post_processor is None or template_of(tokenizer) != template:
        tokenizer.post_processor = post_processor(tokenizer, template)
    serialized = tokenizer.to_str(pretty=True)
    if run.vocabulary.template is None:  # else a published tokenizer, which stays as it is
        serialized = _absorbing_spaces(serialized, [run.vocabulary.mask, *run.vocabulary.sentinels])
    (directory / "tokenizer.json").write_text(serialized, encoding="utf-8")
    limit = run.recipe.model.positions.length or run.recipe.data.length
    typed = any(kind for _, kind in template.pair)
    values = {
        "model_max_length": limit,
        **{name: value for name, value in kept(run.directory, SETTINGS).items() if name not in REPLACED},
        "tokenizer_class": "PreTrainedTokenizerFast",
        **names,
        "model_input_names": ["input_ids", *(["token_type_ids"] if typed else []), "attention_mask"],
    }
    write_json(directory / SETTINGS, values)
    write_json(directory / NAMES, names)
    chat = chat_template(run.directory)
    if chat is not None:
        (directory / CHAT_TEMPLATE).write_text(chat, encoding="utf-8")


def _absorbing_spaces(serialized: str, ids: Collection[int]) -> str:
    """Returns a tokenizer.json in which these tokens take up the space before them, which is part of what they hide.

    Words have their space with them (" the" is one token), so that "on [MASK] mat" is "on", [MASK], " mat".
    """
    values = json.loads(serialized)
    for token in values["added_tokens"]:
        token["lstrip"] = token["lstrip"] or token["id"] in ids
    return json.dumps(values, ensure_ascii=False, indent=2)


def _names(run: Run, vocabulary: Vocabulary) -> dict[str, str]:
    """Returns transformers' names of the seven named tokens, with the tokenizer's name of each."""
    return {f"{role}_token": str(run.tokenizer.id_to_token(getattr(vocabulary, role))) for role in ROLES}


def exported_template(run: Run) -> TextTemplate:
    """Returns the special tokens around texts that the model was trained with."""
    known, model = run.vocabulary, run.recipe.model
    if known.template is not None:
        return known.template
    if exported_task(run.recipe) is not None:
        template = text_template(known, model)
    elif model.architecture == "encoder":
        template = TextTemplate.of_tokens([known.cls], [known.sep], [known.sep])
    elif model.architecture == "decoder":
        template = _decoder_template(run)
    else:  # a denoising model reads <s> text </s>
        begin = [known.bos] if run.recipe.training_objective.name == "denoising" else []
        template = TextTemplate.of_tokens(begin, [known.eos], [known.eos])
    return template if model.type_vocab_size > 1 else template.without_types()


def _decoder_template(run: Run) -> TextTemplate:
    """Returns the special tokens around a text that a decoder is given to read or to continue.

    Those of an objective are read from the prompt that it makes of a text, here of the one piece FIRST:
    bos, FIRST before a continuation; FIRST, eos for a source. Sentinels are the text's own.
    """
    known, recipe = run.vocabulary, run.recipe
    if recipe.task is not None:
        source = recipe.task.decoder_attention == "prefix"
        return (
            TextTemplate.of_tokens([], [known.eos], [known.eos])
            if source
            else TextTemplate.of_tokens([known.bos], [], [])
        )
    prompt = recipe.training_objective.decoder_prompt(known, "decoder", [FIRST])
    if prompt is None:  # it was trained on rows like those of an encoder
        return TextTemplate.of_tokens([known.cls], [known.sep], [known.sep])
    ids = [token for token in prompt.source or prompt.context if token not in known.sentinels]
    place = ids.index(FIRST)
    return TextTemplate.of_tokens(ids[:place], ids[place + 1 :], ids[place + 1 :])


def write_json(path: Path, values: Mapping[str, Any] | list[Any]) -> None:
    """Writes values as JSON, indented and sorted."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
