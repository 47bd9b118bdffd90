"""The chat template of an imported model: how a conversation is written as the text that the model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pretextlm.data.tokenizer import MAX_TOKENIZER_BYTES
from pretextlm.errors import UserError, missing_extra
from pretextlm.hf.provenance import CHAT_TEMPLATE, kept
from pretextlm.hf.untrusted_files import open_plain
from pretextlm.plain_files import read_text
from pretextlm.training.run_directory import ORIGIN, Run

Message = Mapping[str, str]
"""One message: "role" ("system", "user" or "assistant") and "content"."""


def chat_template(run: Path) -> str | None:
    """Returns the template that a run was imported with; None if there was none.

    It is a file of its own, or in older directories a value of tokenizer_config.json: a text, or one for each purpose.
    """
    file = run / ORIGIN / CHAT_TEMPLATE
    if file.is_file():
        return read_text(file)
    value = kept(run, "tokenizer_config.json").get("chat_template")
    if isinstance(value, list):
        value = {one.get("name"): one.get("template") for one in value if isinstance(one, dict)}.get("default")
    return value if isinstance(value, str) else None


def chat_tokens(run: Run, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
    """Returns the ids of each conversation up to where the model's answer begins, as transformers computes them.

    Raises:
        UserError: the run was imported without a chat template, transformers is not installed, or the template does
            not accept the messages.
    """
    if chat_template(run.directory) is None:
        raise UserError(
            f"{run.directory} has no chat template.",
            "Import a model that was trained on conversations; other models continue a plain prompt.",
        )
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise missing_extra("transformers", "hub", "A chat template") from None
    origin = run.directory / ORIGIN
    for file in origin.iterdir():  # which transformers opens, whatever they are
        open_plain(file, MAX_TOKENIZER_BYTES).close()
    tokenizer: Any = AutoTokenizer.from_pretrained(origin)
    try:
        return [
            list(tokenizer.apply_chat_template(list(one), add_generation_prompt=True, return_dict=False))
            for one in conversations
        ]
    except Exception as error:  # jinja's errors, and what a template raises by itself
        raise UserError(f"The chat template does not accept the messages: {str(error)[:300]}.") from None
