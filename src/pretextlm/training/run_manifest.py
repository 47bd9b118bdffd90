"""run.json, the manifest of a run: hashes of all that decides its results, so that nothing changes without a word.

    files        SHA-256 of config.toml, tokenizer.json and the files of origin/; two for one that is being replaced
    data         SHA-256 of what the run learns from: its store, or its labelled files; the tokenizer; teachers
    provenance   of an imported or pruned model: what its export depends on
    id           of the run; its checkpoints have it, too

environment.json describes the machine for people; a run does without it. Runs of earlier versions have no manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pretextlm.data.store import sha256_of
from pretextlm.errors import UserError
from pretextlm.files import write_text
from pretextlm.plain_files import read_json

MANIFEST: Final = "run.json"
FORMAT: Final = "pretextlm run"
MAX_BYTES = 16 << 20
HASH = "sha256"
"""Key of the manifest's own hash, over its other values."""
RESTORE = "Restore the file from a copy. `pretextlm verify` says what else is broken."


@dataclass(frozen=True)
class RunManifest:
    """Content of run.json.

    Attributes:
        files: accepted SHA-256 of each file, by its path in the run.
        data: SHA-256 of what the run learns from, by a name for people.
        provenance: values of an import or of pruning, by name.
        id: of the run.
    """

    files: dict[str, list[str]]
    data: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    id: str = ""

    @classmethod
    def of(cls, files: Mapping[str, str], data: Mapping[str, str], provenance: Mapping[str, Any]) -> RunManifest:
        """Returns the manifest of a new run, whose id follows from its content."""
        made = cls({name: [digest] for name, digest in files.items()}, dict(data), dict(provenance))
        return replace(made, id=_digest(asdict(made))[:32])

    @classmethod
    def read(cls, run: Path) -> RunManifest | None:
        """Returns the manifest of a run; None if it has none, as runs of earlier versions.

        Raises:
            UserError: it is damaged.
        """
        path = run / MANIFEST
        try:
            values = read_json(path, MAX_BYTES)
            found, digest = values.pop("manifest"), values.pop(HASH)
            if digest != _digest({"manifest": found, **values}) or values != {"format": FORMAT, "version": 1}:
                raise ValueError
            return cls(**found)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"Cannot read {path}: {error.strerror}.", RESTORE) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path} is damaged: it is not what was written.", RESTORE) from None

    def write(self, run: Path) -> None:
        """Writes the file atomically.

        Raises:
            UserError: it cannot be written.
        """
        values = {"format": FORMAT, "version": 1, "manifest": asdict(self)}
        text = json.dumps({**values, HASH: _digest(values)}, indent=1, ensure_ascii=False, sort_keys=True)
        write_text(run / MANIFEST, text + "\n")

    def accepting(self, name: str, digest: str) -> RunManifest:
        """Returns a manifest that accepts one more content of a file: the one that is about to be written."""
        return replace(self, files={**self.files, name: [*self.files.get(name, []), digest]})

    def with_file(self, name: str, digest: str) -> RunManifest:
        """Returns a manifest that accepts this content of a file only."""
        return replace(self, files={**self.files, name: [digest]})

    def faults(self, run: Path) -> Iterator[tuple[str, str]]:
        """Yields (name, what is wrong; "" if nothing) of each file of a run, apart from its checkpoints."""
        for name, digests in self.files.items():
            if not (run / name).is_file():
                yield name, "is missing"
            else:
                yield name, "" if sha256_of(run / name) in digests else "is not what was written"

    def check(self, run: Path) -> None:
        """Checks the files of a run, apart from its checkpoints.

        Raises:
            UserError: one was changed or is missing.
        """
        for name, fault in self.faults(run):
            if fault:
                hint = " Settings are changed on the command line instead." if name == "config.toml" else ""
                raise UserError(f"{run / name} {fault}: the run's results would be others.", RESTORE + hint)

    def check_data(self, run: Path, data: Mapping[str, str]) -> None:
        """Checks that a run which is resumed learns from the same data.

        Raises:
            UserError: some is other than when it was started; all that differs is named.
        """
        differs = [name for name in {**self.data, **data} if self.data.get(name) != data.get(name)]
        if self.data and differs:
            raise UserError(
                f"{run} was started on other data: {', '.join(differs)} differ{'s' * (len(differs) == 1)}.",
                "Restore that data; or train on the new data in another directory, with start=RUN for its weights.",
            )


def check_held_out(run: Path, data: Mapping[str, str]) -> None:
    """Checks that held-out data which a run names is what it was when the run was started.

    Args:
        run: its directory.
        data: SHA-256 by name, as in the manifest. Names that the manifest lacks are not compared.

    Raises:
        UserError: some is other; all that differs is named.
    """
    manifest = RunManifest.read(run)
    known = {} if manifest is None else manifest.data
    differs = [name for name, digest in data.items() if known.get(name, digest) != digest]
    if differs:
        raise UserError(
            f"The held-out data of {run} was replaced since it was started: {', '.join(differs)}. Results could not be "
            "compared with those of before.",
            "Restore that data; or say that this one is meant: --store PLACE",
        )


def provenance_of(run: Path) -> dict[str, Any]:
    """Returns the values of an import and of pruning; of earlier versions, those of environment.json.

    Raises:
        UserError: the manifest is damaged.
    """
    manifest = RunManifest.read(run)
    if manifest is not None:
        return manifest.provenance
    try:
        values = read_json(run / "environment.json")
    except (OSError, ValueError):
        return {}
    names = ("imported", "pruned")
    return {name: values[name] for name in names if name in values} if isinstance(values, dict) else {}


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
