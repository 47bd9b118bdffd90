"""Names of the files of an evaluation: the run's own, or others named after the text that was read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pretextlm.plain_files import read_json

EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class ResultFiles:
    """Where an evaluation is written.

    Attributes:
        directory: of the run.
        place: absolute path of what is read, or its name on the hub.
        suffix: "" for the run's own text; else `-NAME`, put before the extension of each file.
    """

    directory: Path
    place: str
    suffix: str = ""

    @property
    def is_own(self) -> bool:
        return not self.suffix

    def path(self, name: str) -> Path:
        """Returns the path of a file, such as evaluation-NAME.json for evaluation.json."""
        whole = Path(name)
        return self.directory / f"{whole.stem}{self.suffix}{whole.suffix}"

    @classmethod
    def of(cls, directory: Path, place: str, own: str) -> ResultFiles:
        """Names the files of an evaluation, so that results on other text never replace those on the run's own.

        Args:
            directory: of the run.
            place: store, file or data set that is read; "" for the run's own.
            own: that of the run; "" if it has none.
        """
        place, own = absolute(place), absolute(own)
        if not place or place == own:
            return cls(directory, own)
        local = not place.startswith("hf:")
        name = re.sub(r"[^\w.-]+", "-", Path(place).name.split(".")[0] if local else place).strip("-.") or "text"
        number = 1
        while True:
            files = cls(directory, place, f"-{name}" if number == 1 else f"-{name}-{number}")
            if _place_of(files.path(EVALUATION)) in (None, place):
                return files
            number += 1


def absolute(place: str) -> str:
    """Returns the absolute path of a file or directory; a name on the hub, or "", as it is."""
    return place if not place or place.startswith("hf:") else str(Path(place).resolve())


def _place_of(path: Path) -> str | None:
    """Returns what an earlier evaluation of this name was measured on; None without one."""
    try:
        found = read_json(path)["settings"]["measured_on"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(found)
