"""The study directory: its owner, and its record of command, machine and corpus. Layout: docs/architecture.md."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretextlm.config import read_toml, write_toml
from pretextlm.data.manifest import Manifest, read_manifest
from pretextlm.errors import UserError
from pretextlm.files import write_json, write_text
from pretextlm.plain_files import read_json
from pretextlm.study.extension import held_plan, joined
from pretextlm.study.plan import RUNS
from pretextlm.study.task_plan import AnyPlan, TaskStudy

PLAN, COMMAND, CORPUS = "study.toml", "command.json", "corpus.json"
LOCK = "run.lock"


def with_earlier_runs(directory: Path, plan: AnyPlan) -> AnyPlan:
    """Returns the plan joined with the one that the directory holds, if it holds one.

    Raises:
        UserError: the two contradict each other.
    """
    file = directory / PLAN
    return joined(held_plan(file, plan), plan, file) if file.exists() else plan


def claim(directory: Path, plan: AnyPlan) -> None:
    """Create the directory for this plan, or note in one that it has grown to this plan.

    Raises:
        UserError: it holds another corpus or other files.
    """
    values = plan.plain()
    corpus = plan.corpus() if isinstance(plan, TaskStudy) else describe_corpus(Path(plan.store))
    if (directory / PLAN).exists():
        _same_corpus(directory, corpus)
        if read_toml(directory / PLAN) != values:
            write_text(directory / PLAN, write_toml(values))
        return
    if directory.is_dir() and any(path.name != LOCK for path in directory.iterdir()):
        raise UserError(f"{directory} is not empty and holds no study.", "Give a new directory with --out DIR.")
    (directory / RUNS).mkdir(parents=True, exist_ok=True)
    write_json(directory / CORPUS, corpus)
    write_text(directory / PLAN, write_toml(values))


def _same_corpus(directory: Path, corpus: Mapping[str, Any]) -> None:
    path = directory / CORPUS
    try:
        old = read_json(path)
    except (OSError, ValueError):
        write_json(path, corpus)
        return
    if old.get("hash") != corpus["hash"]:
        changed = f"The store {corpus['store']} was prepared" if "store" in corpus else "The records were written"
        raise UserError(
            f"{changed} again since {directory} was started.",
            "Its other runs would read other text: give another directory with --out DIR.",
        )


def describe_corpus(store: Path) -> dict[str, Any]:
    """Returns a summary of the store's manifest; `hash` is of the complete manifest, which has the hash of every
    file.
    """
    manifest = read_manifest(store)
    splits = manifest.splits.items()
    return {
        "store": str(store),
        "hash": _hash(manifest),
        "tokens": {name: split.tokens for name, split in splits},
        "documents": {name: split.documents for name, split in splits},
        "text_bytes": {name: split.text_bytes for name, split in splits},
        "vocabulary_size": manifest.tokenizer.vocab_size,
        "tokenizer": manifest.tokenizer.kind,
        "sources": [
            {"name": s.name, "licence": s.licence, "documents": s.documents, "bytes": s.bytes} for s in manifest.sources
        ],
    }


def _hash(manifest: Manifest) -> str:
    return "sha256:" + hashlib.sha256(manifest.to_json().encode()).hexdigest()


def machine() -> dict[str, Any]:
    """Returns a description of the computer without host or user names."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
