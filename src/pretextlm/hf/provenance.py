"""Provenance of an imported run, kept so that an export can write back what we do not model.

    RUN/origin/          the files of the imported directory except weights, byte for byte
    RUN/run.json    provenance.imported: the fields of `Origin`

A run that was started from an imported one inherits both.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pretextlm.plain_files import read_json
from pretextlm.training.run_directory import ORIGIN
from pretextlm.training.run_manifest import provenance_of

GENERATION = "generation_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
KEPT = ("config.json", GENERATION, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", CHAT_TEMPLATE)
"""Files of an imported directory that are kept."""


@dataclass(frozen=True)
class Origin:
    """Origin of imported weights.

    Attributes:
        source: as the user gave it.
        family: Hugging Face's model_type.
        architectures: its model classes.
        sha256: of each file that was read.
        dtype: of its weights: "fp32", "fp16" or "bf16".
        vocab_size: its own, before any row was added.
        bare: its tensors' names lacked the family's prefix.
        added_tokens: special tokens that its tokenizer lacked, in the order of their ids.
        drawn: our parameters that it lacked and that were newly initialized.
        not_carried: its tensors that were not imported.
    """

    source: str
    family: str
    architectures: tuple[str, ...]
    sha256: dict[str, str]
    dtype: str
    vocab_size: int
    bare: bool
    added_tokens: tuple[str, ...]
    drawn: tuple[str, ...]
    not_carried: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """Returns plain values for the run's manifest."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


def origin_of(run: Path) -> Origin | None:
    """Returns the origin of a run; None if it was not imported.

    Raises:
        UserError: the run's manifest is damaged.
    """
    values = provenance_of(run).get("imported")
    if not isinstance(values, dict) or set(values) != {field.name for field in fields(Origin)}:
        return None
    fitted: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return Origin(**fitted)


def kept(run: Path, name: str) -> dict[str, Any]:
    """Returns one of the kept JSON files; empty if it does not exist."""
    try:
        values = read_json(run / ORIGIN / name)
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
