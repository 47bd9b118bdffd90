"""The run directory: written by the trainer, read by everything after it (docs/architecture.md lists its files)."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm.config import read_toml, write_toml
from pretextlm.data.store import sha256_of
from pretextlm.errors import UserError
from pretextlm.files import AnyPath, CannotWrite, write_json, write_text
from pretextlm.model.config import ModelConfig
from pretextlm.plain_files import read_json, read_text
from pretextlm.training.recipe import Recipe
from pretextlm.training.recipe_paths import absolute, all_exist, moved
from pretextlm.training.run_manifest import MANIFEST, RunManifest, provenance_of
from pretextlm.training.trainable_parameters import adapted, merged
from pretextlm.training.watchdog import STACKS

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from pretextlm.data.vocabulary import Vocabulary
    from pretextlm.model.transformer import Transformer
    from pretextlm.training.checkpoint import Checkpoint

CONFIG, ENVIRONMENT, TOKENIZER = "config.toml", "environment.json", "tokenizer.json"
METRICS, COST, LOCK, FORGETTING = "metrics.jsonl", "cost.json", "run.lock", "forgetting.json"
MAX_METRICS_BYTES = 4 << 30
DIRECTORY = "directory"
"""Key of environment.json: where the run was last trained, to find its data if both were moved."""
CHECKPOINTS = "checkpoints"
ORIGIN = "origin"
"""Directory of an imported run that holds the foreign files that are kept."""


def first_directory(directory: Path) -> str:
    """Returns the directory in which a run was last trained, or the given one if the run does not say."""
    recorded = read_environment(directory).get(DIRECTORY)
    return recorded if isinstance(recorded, str) else os.path.abspath(directory)


def read_environment(directory: Path) -> dict[str, Any]:
    """Returns the content of environment.json; nothing if it cannot be read."""
    try:
        values = read_json(directory / ENVIRONMENT)
    except (OSError, ValueError):
        values = None
    return values if isinstance(values, dict) else {}


@dataclass(frozen=True)
class Run:
    """A run directory that exists.

    Attributes:
        directory: where it is.
        recipe: as resolved when it started.
    """

    directory: Path
    recipe: Recipe

    @classmethod
    def open(cls, directory: AnyPath) -> Run:
        """Opens an existing run.

        Args:
            directory: its directory, or a run that is read again.

        Raises:
            UserError: the directory is not one of a run, or a file that decides its results was changed.
        """
        directory = Path(directory)
        config = directory / CONFIG
        if not config.is_file():
            raise UserError(
                f"{directory} is not a run directory: it has no {CONFIG}.",
                "Give the directory that `pretextlm pretrain` or `pretextlm compare` wrote.",
            )
        manifest = RunManifest.read(directory)
        if manifest is not None:
            manifest.check(directory)
        values = read_toml(config)
        if not all_exist(values):
            values = moved(values, first_directory(directory), directory)
        return cls(directory, Recipe.load(_with_absent_defaults(values), where=str(config)))

    @classmethod
    def create(
        cls,
        directory: Path,
        recipe: Recipe,
        environment: Mapping[str, Any],
        tokenizer: Path,
        data: Mapping[str, str] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Run:
        """Creates a run directory.

        Args:
            directory: missing or empty.
            recipe: of the run.
            environment: plain values for environment.json.
            tokenizer: a tokenizer.json, which is copied.
            data: SHA-256 of what it learns from, by name.
            provenance: values of an import or of pruning.

        Raises:
            UserError: the directory already holds a run, or anything else, or cannot be written.
        """
        if directory.exists() and (not directory.is_dir() or any(map(_is_of_a_run, directory.iterdir()))):
            raise UserError(
                f"{directory} already exists and is not empty.",
                "Continue it with --resume, or give another directory with --out.",
            )
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if tokenizer != directory / TOKENIZER:
                shutil.copyfile(tokenizer, directory / TOKENIZER)
            run = cls(directory, recipe)
            write_json(directory / ENVIRONMENT, {**environment, DIRECTORY: os.path.abspath(directory)})
            text = run.config_text()
            kept = [TOKENIZER, *sorted(p.relative_to(directory).as_posix() for p in (directory / ORIGIN).glob("*"))]
            files = {CONFIG: digest_of(text), **{name: sha256_of(directory / name) for name in kept}}
            RunManifest.of(files, data or {}, provenance or {}).write(directory)
            write_text(directory / CONFIG, text)  # the last one: it makes the directory a run
        except OSError as error:
            raise CannotWrite(
                directory, error, "Give a directory that you may write to, on a disk with room."
            ) from None
        return run

    def config_text(self) -> str:
        """Returns the text of config.toml: the recipe, its paths made absolute."""
        return write_toml(absolute(self.recipe.dump()))

    def update(self) -> None:
        """Writes the recipe of a run that is resumed with other settings, and where the run is now.

        A process that is killed in between leaves a run: its manifest accepts the old recipe and the new one meanwhile.
        """
        text, manifest = self.config_text(), RunManifest.read(self.directory)
        environment = {**read_environment(self.directory), DIRECTORY: os.path.abspath(self.directory)}
        write_json(self.directory / ENVIRONMENT, environment)
        if manifest is not None:
            manifest.accepting(CONFIG, digest_of(text)).write(self.directory)
        write_text(self.directory / CONFIG, text)
        if manifest is not None:
            manifest.with_file(CONFIG, digest_of(text)).write(self.directory)

    def __fspath__(self) -> str:
        """Return the directory as text, so that a run is accepted where a path is."""
        return str(self.directory)

    @property
    def id(self) -> str:
        """Of its manifest; "" if it has none."""
        manifest = RunManifest.read(self.directory)
        return manifest.id if manifest is not None else ""

    @property
    def checkpoints(self) -> Path:
        return self.directory / CHECKPOINTS

    @cached_property
    def checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint that verifies, as of the first access; a training does not remove it meanwhile.

        Open the run again to see newer ones. None if there is none yet.
        """
        from pretextlm.training.checkpoint import newest

        found = newest(self.checkpoints)
        if found is not None:
            check_run_id(self.directory, found.state)
        return found

    @property
    def fallback(self) -> dict[str, Any]:
        """What results say of the weights if they are not the newest ones: their step, and what is broken."""
        return {} if self.checkpoint is None else self.checkpoint.fallback

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer the run was trained with."""
        from pretextlm.data.tokenizer import load_tokenizer

        return load_tokenizer(self.directory / TOKENIZER)

    @cached_property
    def parsing_tokenizer(self) -> Tokenizer:
        """The tokenizer that reads the name of a special token in a text as that token; of an import, its own tokens.

        `tokenizer` reads it as text.
        """
        from pretextlm.data.tokenizer import from_json

        added = (provenance_of(self.directory).get("imported") or {}).get("added_tokens", ())
        values = read_json(self.directory / TOKENIZER)
        values["added_tokens"] = [one for one in values["added_tokens"] if one["content"] not in added]
        found = from_json(json.dumps(values), str(self.directory / TOKENIZER))
        found.encode_special_tokens = False
        return found

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Special ids of the tokenizer, in the roles that the model gives them."""
        from pretextlm.data.tokenizer import vocabulary_of

        return self.recipe.model.special_token_ids.apply(vocabulary_of(self.tokenizer))

    def load_model(self, device: torch.device | None = None, allow_non_finite: bool = False) -> Transformer:
        """Loads the model with the weights of the newest checkpoint that verifies, in evaluation mode.

        Args:
            device: of the model; None: the CPU.
            allow_non_finite: load weights that are NaN or infinite, too.

        Raises:
            UserError: the run has no checkpoint yet, or one of another model, or weights that are not finite.
        """
        import torch

        from pretextlm.model.finite import check_finite
        from pretextlm.model.transformer import meta_model
        from pretextlm.training.checkpoint import content_errors

        checkpoint = self.checkpoint
        if checkpoint is None:
            raise UserError(f"{self.directory} has no checkpoint yet.", "Train it: pretextlm pretrain … --resume")
        model, weights = meta_model(self.recipe.model, self.recipe.training_objective.heads), checkpoint.model()
        if not allow_non_finite:
            check_finite(weights, str(checkpoint.directory))
        with content_errors(checkpoint.directory):
            adapted(model, self.recipe.tuning).load_state_dict(weights, assign=True)
        if self.recipe.tuning.lora:
            merged(model)
        return model.to(device or torch.device("cpu")).eval()

    def cost(self) -> dict[str, Any] | None:
        """Returns the values of cost.json; None until the run is complete.

        Raises:
            UserError: it cannot be read.
        """
        path = self.directory / COST
        try:
            return read_json(path) if path.exists() else None
        except (OSError, ValueError) as error:
            raise UserError(f"Cannot read {path}: {error}.", "Bring back a copy, or take it away.") from None

    def metrics(self) -> list[dict[str, Any]]:
        """Returns the lines of metrics.jsonl. A last line that was cut off when the process was killed is left out.

        Raises:
            UserError: a line is damaged.
        """
        path = self.directory / METRICS
        if not path.exists():
            return []
        try:
            lines = read_text(path, MAX_METRICS_BYTES, errors="replace").splitlines(keepends=True)
        except OSError as error:
            raise UserError(f"Cannot read {path}: {error.strerror}.", "Bring back a copy of this file.") from None
        return [_parsed(path, number, line) for number, line in enumerate(lines, 1) if line.endswith("\n")]

    def missing_metrics(self, until: int | None = None) -> list[int]:
        """Returns the steps whose lines metrics.jsonl lacks, up to a step; by default up to its last line.

        Raises:
            UserError: a line is damaged.
        """
        every = self.recipe.training.log_every
        logged = {line["step"] for line in self.metrics() if line["kind"] == "train"}
        last = max(logged, default=0) if until is None else until
        return [step for step in range(every, last + 1, every) if step not in logged]

    def sweep(self) -> None:
        """Removes temporary files of killed processes; only for the process that holds the lock."""
        for name in (CONFIG, ENVIRONMENT, MANIFEST, METRICS, COST, FORGETTING):
            for litter in self.directory.glob(f".{name}*.partial"):
                litter.unlink(missing_ok=True)

    def rewind_metrics(self, step: int, validated: bool = True) -> None:
        """Removes the lines logged after `step`, so that a resumed run has neither gaps nor repetitions.

        Args:
            step: of the checkpoint that training resumes from.
            validated: whether the validation at that step was complete; otherwise its lines are removed, too.
        """
        kept = [m for m in self.metrics() if m["step"] < step or (m["step"] == step and _stays(m, validated))]
        write_text(self.directory / METRICS, "".join(json.dumps(m) + "\n" for m in kept))


def digest_of(text: str) -> str:
    """Returns the SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def check_run_id(run: Path, state: Mapping[str, Any]) -> None:
    """Checks that a checkpoint is of the run that it lies in.

    Raises:
        UserError: it is of another one, or the run has lost its manifest.
    """
    given, manifest = state.get("run_id"), RunManifest.read(run)
    if not given or (manifest is not None and manifest.id == given):
        return
    missing = f"{run / MANIFEST} is missing" if manifest is None else f"The checkpoint in {run} is of another run"
    raise UserError(f"{missing}: its results would be others.", "Restore the files of this run from a copy.")


def _parsed(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
        if isinstance(values, dict) and {"kind", "step"} <= values.keys():
            return values
    except ValueError:
        pass
    raise UserError(f"{path}, line {number}, is damaged.", "Remove that line, or restore a copy of the file.")


def _stays(line: Mapping[str, Any], validated: bool) -> bool:
    return validated or line["kind"] not in ("validation", "forgetting")


def _is_of_a_run(path: Path) -> bool:
    """Returns whether a file shows that a run was started.

    config.toml is written last, so the files written before it do not show it.
    """
    of_a_start = path.name in (LOCK, TOKENIZER, ENVIRONMENT, MANIFEST, ORIGIN) or path.name.startswith(STACKS)
    return not of_a_start and not path.name.endswith(".partial")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the run's lock. The lock of a process that died is released by the operating system.

    Raises:
        UserError: another process holds the lock, or the directory cannot be created or written to.
    """
    path = directory / LOCK
    with ExitStack() as held:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            held.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        except BlockingIOError:
            raise UserError(
                f"{directory} is in use by {_holder(handle)}.", "Wait for it, or give another directory with --out."
            ) from None
        except OSError as error:
            raise UserError(
                f"Cannot write {path}: {error.strerror}.", "Give a directory on a disk with room that you may write to."
            ) from None
        yield


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _holder(handle: int) -> str:
    """Returns who holds a lock.

    The holder writes its name after it got the lock, so for a moment the file may still name an earlier process.
    """
    for _ in range(20):
        text = os.pread(handle, 200, 0).decode(errors="replace").strip()
        match = re.fullmatch(r"process (\d+) on (.*)", text)
        if match and (match[2] != socket.gethostname() or _lives(int(match[1]))):
            return text
        time.sleep(0.02)
    return text or "another process"


def _with_absent_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a run's tables with the defaults of model options that did not exist when it was written.

    A recipe's rules may choose another value for a new model; this one was trained without the option.
    """
    model = values.get("model")
    if not isinstance(model, dict) or "architecture" not in model:
        return values  # not as a run is written
    absent = {name: field.default for name, field in ModelConfig.model_fields.items() if name not in model}
    return {**values, "model": {**absent, **model}}
