"""Where a model to import comes from: a directory, a snapshot of the hub's cache, the hub, or a GGUF file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pretextlm.errors import UserError, missing_extra
from pretextlm.hf.gguf import SUFFIX, convert_gguf
from pretextlm.hf.import_tokenizer import COMPANIONS, CONVERTED, VOCABULARY
from pretextlm.hf.provenance import KEPT
from pretextlm.hf.safetensors_files import INDEX
from pretextlm.hf.sentence_transformers_files import FILES
from pretextlm.plain_files import read_text

HUB = "hf:"
HUB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?")
HUB_FILES = ["*.safetensors", INDEX, VOCABULARY, *CONVERTED, *COMPANIONS, *KEPT, *FILES]
CACHED = "models--"
"""Begin of the names of models in the hub's cache."""


@contextmanager
def model_directory(source: str) -> Iterator[Path]:
    """Yields a directory in Hugging Face's format, which is temporary where the model is fetched or converted.

    Args:
        source: a directory, also of the hub's cache; hf:NAME for a model of the hub; or a .gguf file.

    Raises:
        UserError: the model cannot be fetched or converted.
    """
    if source.startswith(HUB):
        with TemporaryDirectory(prefix="pretextlm-") as place:
            _fetch(source.removeprefix(HUB), Path(place))
            yield Path(place)
    elif source.lower().endswith(SUFFIX):
        with TemporaryDirectory(prefix="pretextlm-") as place:
            convert_gguf(Path(source), Path(place))
            yield Path(place)
    else:
        yield _snapshot(Path(source))


def _snapshot(directory: Path) -> Path:
    """Returns the current snapshot of a model's directory in the hub's cache, or another directory unchanged.

    A cache has models--ORGANIZATION--NAME/snapshots/REVISION/, and the revision of each branch in refs/BRANCH.
    """
    head = directory / "refs" / "main"
    if not (directory.name.startswith(CACHED) and head.is_file()):
        return directory
    return directory / "snapshots" / read_text(head, 1 << 10).strip()


def _fetch(name: str, place: Path) -> None:
    if not HUB_NAME.fullmatch(name):
        raise UserError(f"{name!r} is not a name on the hub.", "For example: hf:google-bert/bert-base-uncased")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise missing_extra("huggingface-hub", "hub", "Fetching a model from the hub") from None
    try:
        snapshot_download(repo_id=name, allow_patterns=HUB_FILES, local_dir=place)
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise UserError(
            f"Cannot fetch {name} from the hub: {reason}.", "Check the name and the network, or fetch it yourself."
        ) from None
