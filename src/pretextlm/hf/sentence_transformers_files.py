"""A sentence-embedding model as a directory of the library sentence-transformers, in both directions.

    modules.json                         [Transformer, Pooling, Normalize]
    1_Pooling/config.json                how the last hidden states become one vector
    sentence_bert_config.json            the longest text, in tokens
    config_sentence_transformers.json    the measure of similarity

The Transformer is the bare model of the directory itself. Names of modules and options are those that the library has
written since its first versions and still reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretextlm.errors import UserError
from pretextlm.hf.export_tokenizer import write_json
from pretextlm.hf.tokenizer_settings import SETTINGS
from pretextlm.hf.untrusted_files import MAX_CONFIG_BYTES, parse_object, read_object, read_plain
from pretextlm.tasks.sentence_embedding import Pooling, SentenceEmbedding

MODULES, LENGTH, SIMILARITY = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"
POOLING = "1_Pooling/config.json"
FILES = (MODULES, LENGTH, SIMILARITY, POOLING)
TYPES = "sentence_transformers.models."
MODES: Mapping[Pooling, str] = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "last": "pooling_mode_lasttoken",
}
"""Our names of poolings and the library's options."""
SHORT = {"mean": "mean", "cls": "cls", "max": "max", "lasttoken": "last"}
"""Names of `pooling_mode`, which newer versions write instead, and ours."""


def write_embedding_files(directory: Path, task: SentenceEmbedding, width: int, length: int) -> None:
    """Writes the files that make an exported bare model a sentence-transformers model.

    Args:
        directory: of the exported model.
        task: that it was trained on.
        width: of its hidden states.
        length: most tokens of a text; longer ones are truncated, as in training.
    """
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"{TYPES}{name}"}
        for number, (path, name) in enumerate(parts)
    ]
    for path, _ in parts[1:]:
        (directory / path).mkdir()
    write_json(directory / MODULES, modules)
    modes = {option: ours == task.pooling for ours, option in MODES.items()}
    write_json(directory / POOLING, {"word_embedding_dimension": width, **modes})
    write_json(directory / LENGTH, {"max_seq_length": length, "do_lower_case": False})
    write_json(directory / SIMILARITY, {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"})


def embedding_task(directory: Path) -> SentenceEmbedding | None:
    """Returns the task of a sentence-transformers directory; None for any other directory.

    Raises:
        UserError: its modules compute something else than a pooling of the last hidden states.
    """
    if not (directory / MODULES).exists():
        return None
    listed = b'{"modules": %s}' % read_plain(directory / MODULES, MAX_CONFIG_BYTES)
    found = parse_object(listed, str(directory / MODULES))["modules"]
    modules = found if isinstance(found, list) and all(isinstance(one, dict) for one in found) else []
    kinds = [str(one.get("type", "")).rpartition(".")[2] for one in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]) or modules[0].get("path"):
        raise UserError(
            f"{directory / MODULES} lists the modules {', '.join(kinds)[:200]}.",
            "Read are a Transformer in the directory itself, a Pooling and a Normalize. With --objective masked (or "
            "causal), the Transformer alone is imported.",
        )
    path = str(modules[1].get("path", ""))
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise UserError(f"{directory / MODULES} names the place {path[:80]!r}.", "Fetch the model again.")
    return SentenceEmbedding(pooling=_pooling(directory / path / "config.json"))


def embedding_length(directory: Path) -> int | None:
    """Returns the most tokens of a text by a sentence-transformers directory; None where it does not say.

    Since version 6, the tokenizer's settings alone say so.
    """
    if not (directory / MODULES).exists():
        return None
    for name, key in ((LENGTH, "max_seq_length"), (SETTINGS, "model_max_length")):
        found = read_object(directory / name).get(key) if (directory / name).exists() else None
        if isinstance(found, int) and found > 0:
            return found
    return None


def _pooling(path: Path) -> Pooling:
    """Returns the pooling of a module's config.json.

    Raises:
        UserError: it is none of ours, or several at once.
    """
    values = read_object(path)
    named = values.get("pooling_mode")
    listed = named if isinstance(named, list) else [named] if named else []
    found: list[Any] = [SHORT.get(str(name), name) for name in listed]
    if not found:
        found = [name for name in values if name.startswith("pooling_mode_") and values[name] is True]
        found = [next((ours for ours, option in MODES.items() if option == name), name) for name in found]
    if len(found) != 1 or found[0] not in MODES:
        names = ", ".join(map(str, found))[:200] or "nothing"
        raise UserError(f"{path} pools by {names}.", f"Known: {', '.join(MODES)}, one of them alone.")
    pooling: Pooling = found[0]
    return pooling
