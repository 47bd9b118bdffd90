"""lm-eval (the extra `harness`) over one of our runs, by its documented interface.

Its task definitions, prompts and metrics are used as they are; only the model is ours, and where local copies of the
data are given, the place the rows come from.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError, did_you_mean, missing_extra
from pretextlm.evaluation.benchmarks.definition import Benchmark, find, names
from pretextlm.evaluation.benchmarks.request_scorer import Ids, Request
from pretextlm.evaluation.benchmarks.request_scorers import FRAME_TOKENS, AutoregressiveRequests
from pretextlm.evaluation.benchmarks.rows import HUB, Rows, read_rows, read_shots
from pretextlm.evaluation.benchmarks.run import BATCH_SIZE, Opened, Progress, add_results
from pretextlm.evaluation.benchmarks.wording import Values, Wording
from pretextlm.evaluation.prompts import continue_prompts
from pretextlm.metric import Metric
from pretextlm.model.generation import GenerationConfig

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
try:
    from lm_eval.api.model import LM
except ImportError:
    raise missing_extra("lm-eval", "harness", "Measuring by lm-eval") from None

if TYPE_CHECKING:
    import torch

RESAMPLES = 1000
"""Bootstrap samples for standard errors that have no formula."""

NEW_TOKENS = 256
"""Tokens that are written where a task does not say how many."""


class HarnessModel(LM):  # type: ignore[misc,unused-ignore]
    """A run as one of lm-eval's models.

    Args:
        opened: the run.
        method, batch_size: as in `evaluate_benchmarks`.
        progress: told how many requests are done.
    """

    def __init__(
        self, opened: Opened, method: str = "auto", batch_size: int = BATCH_SIZE, progress: Progress | None = None
    ) -> None:
        super().__init__()
        self.opened, self.batch_size, self._progress = opened, batch_size, progress
        self.scorer = opened.scorer(method, batch_size)

    @property
    def tokenizer_name(self) -> str:
        return str(self.opened.run.directory)

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether the model would have written it."""
        scores = self.scorer.score(
            [Request(*request.args) for request in requests], self._counter("log-likelihoods", len(requests))
        )
        answers = [(score.log_likelihood, score.is_greedy) for score in scores]
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, answer)
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Log-likelihood of each whole text; one that is too long is read in pieces.

        Each piece follows as much of the text as there is room for, one token at least.
        """
        pairs: list[tuple[Ids, Ids]] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            pieces = self._pieces(tuple(self.opened.texts.encode(request.args[0])))
            pairs += pieces
            owners += [number] * len(pieces)
        counted = [range(len(ids)) for _, ids in pairs]
        scores = self.scorer.score_ids(pairs, counted, self._counter("texts", len(pairs)))
        totals = [0.0] * len(requests)
        for owner, score in zip(owners, scores, strict=True):
            totals[owner] += score.log_likelihood
        return totals

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """What the model writes after each context, up to one of the strings that end it."""
        if not isinstance(self.scorer, AutoregressiveRequests):
            raise UserError(
                f"A model trained by {self.opened.objective.name} with these options does not go on from a text.",
                "Ask it tasks that choose instead of write.",
            )
        model, texts = self.opened.model, self.opened.texts
        by_settings: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            by_settings.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(number)
        written: dict[int, str] = {}
        count = self._counter("texts", len(requests))
        for key, numbers in by_settings.items():
            asked = json.loads(key)
            settings, ends = _settings(asked, texts.vocabulary)
            for start in range(0, len(numbers), self.batch_size):
                part = numbers[start : start + self.batch_size]
                prompts = [texts.encode(requests[number].args[0]) for number in part]
                found = [self.scorer.prompt(tuple(ids)) for ids in prompts]
                decoder_prompts = [prompt for prompt in found if prompt is not None]
                answers = continue_prompts(model, texts, decoder_prompts, settings)
                for number, prompt, answer in zip(part, prompts, answers, strict=True):
                    text = texts.decode([*prompt, *answer])[len(texts.decode(prompt)) :]
                    for end in ends:
                        text = text.split(end)[0]
                    written[number] = text
                count(len(part))
        return [written[number] for number in range(len(requests))]

    def _pieces(self, ids: Ids) -> list[tuple[Ids, Ids]]:
        longest = self.scorer.max_length or len(ids)
        if not isinstance(self.scorer, AutoregressiveRequests):
            longest -= FRAME_TOKENS
        longest = max(1, longest)
        starts = range(0, len(ids), longest)
        ends = [min(start + longest, len(ids)) for start in starts]
        return [
            (ids[max(0, end - longest - 1) : start], ids[start:end]) for start, end in zip(starts, ends, strict=True)
        ]

    def _counter(self, kind: str, total: int) -> Callable[[int], None]:
        """Returns a function that reports progress when called with the number of requests just done."""
        done = 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            if self._progress is not None:
                self._progress(kind, done, total)

        return count


def _settings(asked: Mapping[str, Any], vocabulary: Vocabulary) -> tuple[GenerationConfig, tuple[str, ...]]:
    """lm-eval's generation arguments as ours, and the strings that end a text."""
    until = asked.get("until") or []
    ends = tuple(end for end in ([until] if isinstance(until, str) else until) if end)
    temperature = float(asked.get("temperature") or 0.0) if asked.get("do_sample") else 0.0
    tokens = int(asked.get("max_gen_toks") or asked.get("max_new_tokens") or NEW_TOKENS)
    found: dict[str, Any] = {"max_new_tokens": tokens, "temperature": temperature, "stop_strings": ends}
    if temperature and asked.get("top_p"):
        found["top_p"] = float(asked["top_p"])
    return GenerationConfig(**found), ends


def evaluate_harness(
    directory: Path,
    tasks: str,
    *,
    data: str = HUB,
    split: str | None = None,
    shots: int | None = None,
    limit: int | None = None,
    batch_size: int = BATCH_SIZE,
    method: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """Measure a run's newest model by lm-eval; returns the new scores, and adds them to benchmarks.json.

    Args:
        tasks: lm-eval's names, with commas between them. With local copies, "blimp" stands for the paradigms there.
        data: a directory of local copies, for those of our benchmarks that lm-eval has; "hf:" for lm-eval's own places.
        split: part of the local copies that is asked; by default the benchmark's own.
        shots, limit: as lm-eval's num_fewshot and limit.

    Raises:
        UserError: there is no such task, or its data cannot be had.
    """
    opened = Opened(directory, device)
    model = HarnessModel(opened, method, batch_size, progress)
    results, hashes = run_tasks(model, tasks, data, shots, limit, batch_size, seed, split)
    scores = {}
    for task, values in results["results"].items():
        metrics = _metrics(results, task, values)
        if metrics:
            scores[task] = {
                "metrics": {name: metric.plain() for name, metric in metrics.items()},
                "settings": {
                    "lm_eval": importlib.metadata.version("lm_eval"),
                    "version": results["versions"].get(task),
                    "shots": results.get("n-shot", {}).get(task),
                    "limit": limit,
                    "seed": seed,
                    "scoring": model.scorer.method,
                    "batch_size": batch_size,
                    "data_sha256": hashes.get(task, {}),
                    **opened.settings,
                },
                "model": opened.about,
            }
    add_results(directory, "harness", scores)
    return scores


def run_tasks(
    model: Any,
    tasks: str,
    data: str,
    shots: int | None,
    limit: int | None,
    batch_size: int,
    seed: int,
    split: str | None = None,
) -> tuple[dict[str, Any], dict[str, Mapping[str, str]]]:
    """lm-eval's own results for any of its models, and the hashes of the local copies by task.

    Raises:
        UserError: there is no such task, or its data cannot be had.
    """
    from lm_eval.evaluator import simple_evaluate

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = _manager()
    with tempfile.TemporaryDirectory(prefix="pretextlm-harness-") as place, redirect_stdout(sys.stderr):
        copies = {} if data == HUB else _local_copies(_listed(tasks), data, split, Path(place), bool(shots))
        wanted: list[str] = []
        for name in _listed(tasks):
            ours = {task: copy for task, copy in copies.items() if task == name or _own(task) == name}
            found = [copy.write(Path(manager.task_index[task].yaml_path)) for task, copy in ours.items()]
            if not found and name not in manager.all_tasks:
                raise UserError(f"lm-eval has no task named {name!r}.", did_you_mean(name, manager.all_tasks)[:200])
            wanted += found or [name]
        try:
            results = simple_evaluate(
                model=model,
                tasks=wanted,
                num_fewshot=shots,
                limit=limit,
                batch_size=batch_size,
                bootstrap_iters=RESAMPLES,
                log_samples=False,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
                task_manager=manager,
            )
        except UserError:
            raise
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(
                f"lm-eval cannot do {tasks}: {reason}.",
                "Check the network, or give local copies of the data: --data DIR.",
            ) from None
    return dict(results), {task: copy.hashes for task, copy in copies.items()}


@cache
def _manager() -> Any:
    """lm-eval's list of tasks, which takes seconds to read."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


class _Copy:
    """A task of lm-eval that reads files of ours, as a file of lm-eval's own kind.

    Args:
        task: its name; asked, shown: names of the parts that are asked, and that examples are shown from.
        place: where `files`, by part, are and the task's file goes.
    """

    def __init__(
        self, task: str, files: Mapping[str, Path], asked: str, place: Path, hashes: Mapping[str, str]
    ) -> None:
        self.hashes, self._path = hashes, place / f"{task}.yaml"
        shown = next((split for split in files if split != asked), None)
        self._changes: dict[str, Any] = {
            "task": task,
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {
                "data_files": {split: str(path) for split, path in files.items()},
                "cache_dir": str(place / "cache"),
            },
            "test_split": asked,
            "validation_split": None,
            "training_split": shown,
            "fewshot_split": shown or asked,
        }

    def write(self, original: Path) -> str:
        """Write the task's file, which takes all but its data from lm-eval's; returns its place."""
        changes = json.dumps({"include": str(original), **self._changes})  # JSON is YAML
        self._path.write_text(changes, encoding="utf-8")
        return str(self._path)


def _local_copies(asked: Sequence[str], data: str, split: str | None, place: Path, shots: bool) -> dict[str, _Copy]:
    """For each task that one of our benchmarks is, files as lm-eval reads them."""
    found: dict[str, _Copy] = {}
    for benchmark in map(find, names()):
        harness = benchmark.harness
        if harness is None:
            continue
        pattern = re.compile(re.escape(harness.task).replace(r"\{group\}", "(.+)"))
        if not any(pattern.fullmatch(name) or name == benchmark.name for name in asked):
            continue
        wording, rows = Wording(benchmark), read_rows(benchmark, data, split)
        parts = {harness.split: _grouped(benchmark, wording, rows)}
        shown = read_shots(benchmark, data) if shots else None
        if shown is not None:
            parts[harness.shots] = _grouped(benchmark, wording, shown)
        for group in parts[harness.split]:
            task = harness.task.replace("{group}", group)
            if task not in asked and benchmark.name not in asked:
                continue
            files = {}
            for part, groups in parts.items():
                files[part] = place / f"{task}-{part}.jsonl"
                _write(files[part], [wording.harness_row(values) for values in groups.get(group, [])])
            hashes = _hashes(rows, group) | (dict(shown.hashes) if shown else {})
            found[task] = _Copy(task, files, harness.split, place, hashes)
    return found


def _hashes(rows: Rows, group: str) -> dict[str, str]:
    """Of a benchmark with a file for each group, that file's."""
    own = {name: digest for name, digest in rows.hashes.items() if group and name.split(".")[0] == group}
    return own or dict(rows.hashes)


def _grouped(benchmark: Benchmark, wording: Wording, rows: Rows) -> dict[str, list[Values]]:
    """Rows by what stands for {group} in the task's name; all of them together where nothing does."""
    several = benchmark.harness is not None and "{group}" in benchmark.harness.task
    groups: dict[str, list[Values]] = {}
    for values in wording.values(rows.records):
        groups.setdefault(str(values["group"]) if several else "", []).append(values)
    return groups


def _own(task: str) -> str:
    """Our name of a benchmark of which this is a task."""
    for benchmark in map(find, names()):
        if benchmark.harness and re.fullmatch(re.escape(benchmark.harness.task).replace(r"\{group\}", "(.+)"), task):
            return benchmark.name
    return ""


def _listed(tasks: str) -> list[str]:
    found = [name.strip() for name in tasks.split(",") if name.strip()]
    if not found:
        raise UserError("No task of lm-eval is named.", "For example: --harness lambada_openai,arc_easy")
    return found


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _metrics(results: Mapping[str, Any], task: str, values: Mapping[str, Any]) -> dict[str, Metric]:
    """lm-eval's values, whose names are METRIC,FILTER."""
    found = {}
    count = results.get("n-samples", {}).get(task, {}).get("effective", 0)
    for key, value in values.items():
        name, _, filtered = key.partition(",")
        if not filtered or name.endswith("_stderr") or not isinstance(value, int | float):
            continue
        stderr = values.get(f"{name}_stderr,{filtered}")
        higher = results.get("higher_is_better", {}).get(task, {}).get(name, True)
        label = name if filtered == "none" else key
        error = float(stderr) if isinstance(stderr, int | float) else None
        found[label] = Metric(float(value), count, error, "", "higher" if higher else "lower")
    return found
