"""Benchmarks of one run: its model scores the continuations, and the metrics go into the run directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm.data.store import sha256_of
from pretextlm.errors import UserError
from pretextlm.evaluation.benchmarks.definition import Benchmark
from pretextlm.evaluation.benchmarks.measure import by_group, measure, outcome, share_of_ties
from pretextlm.evaluation.benchmarks.request_scorer import Request, RequestScorer
from pretextlm.evaluation.benchmarks.request_scorers import request_scorer
from pretextlm.evaluation.benchmarks.rows import HUB, read_rows, read_shots
from pretextlm.evaluation.benchmarks.wording import Question, Values, Wording, shots_of
from pretextlm.evaluation.trained_model import open_trained
from pretextlm.files import write_json
from pretextlm.plain_files import read_json
from pretextlm.training.run_directory import Run

if TYPE_CHECKING:
    import torch

RESULTS = "benchmarks.json"
BATCH_SIZE = 32
Progress = Callable[[str, int, int], None]
"""Called with the name of the stage, how much of it is done, and the total."""


class Opened:
    """A run's newest model, and the settings that are recorded with every score.

    Args:
        directory: the run.
        device: of the model; by default the CPU.
    """

    def __init__(self, directory: Path, device: torch.device | None = None) -> None:
        self.run = Run.open(directory)
        self.model, self.objective, self.texts = open_trained(self.run, device)
        self._checkpoint = self.run.checkpoint

    def scorer(self, method: str, batch_size: int, needs_greedy: bool = False) -> RequestScorer:
        """Returns the model as one that scores continuations.

        A published model is read as published: with the tokens before a text that its tokenizer adds.
        """
        return request_scorer(self.model, self.objective, self.texts, method, batch_size, needs_greedy)

    @property
    def about(self) -> dict[str, Any]:
        """The run, checkpoint and objective of the weights."""
        found = {"run": str(self.run.directory), "objective": self.objective.name}
        if self._checkpoint is None:
            return found
        manifest = sha256_of(self._checkpoint.directory / "manifest.json")
        return found | {**self._checkpoint.used, "manifest_sha256": manifest}

    @property
    def settings(self) -> dict[str, Any]:
        """Number type and device."""
        return {"dtype": "float32", "device": str(self.model.embed_tokens.weight.device)}


def evaluate_benchmarks(
    directory: Path,
    benchmarks: Sequence[Benchmark],
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
    """Scores benchmarks with a run's newest model, and adds the results to the run's benchmarks.json.

    All rows are read and checked before the first is scored.

    Args:
        directory: the run.
        benchmarks: definitions.
        data: a directory of local copies, a file, or "hf:" for each benchmark's place on the hub.
        split: name of the split that is scored; by default the benchmark's own.
        shots: few-shot examples before each question; by default the benchmark's number, mostly none.
        limit: only the first so many questions of each group.
        batch_size: continuations that are read at once, at most; it changes no score.
        method: how continuations are scored (`request_scorers.METHODS`).
        seed: of the choice of examples.
        progress: see Progress.
        device: of the model.

    Returns:
        The new results by benchmark.

    Raises:
        UserError: the run has no checkpoint, the method does not suit the model, or a row is bad.
    """
    prepared = [PreparedBenchmark(benchmark, data, split, shots, limit, seed) for benchmark in benchmarks]
    opened = Opened(directory, device)
    scores = {}
    for one in prepared:
        scorer = opened.scorer(method, batch_size, needs_greedy=one.benchmark.kind == "last_word")
        scores[one.key] = {
            **one.score(scorer, progress),
            "settings": {**one.settings, "scoring": scorer.method, "batch_size": batch_size, **opened.settings},
            "model": opened.about,
        }
        if scorer.num_cropped:
            scores[one.key]["settings"]["cropped"] = scorer.num_cropped
    add_results(directory, "benchmarks", scores)
    return scores


class PreparedBenchmark:
    """A benchmark's questions, read and filled into its templates.

    Raises:
        UserError: a row is bad.
    """

    def __init__(
        self, benchmark: Benchmark, data: str, split: str | None, shots: int | None, limit: int | None, seed: int
    ) -> None:
        self.benchmark = benchmark
        self._rows = read_rows(benchmark, data, split)
        self._wording = Wording(benchmark)
        self._seed, self._limit = seed, limit
        self._values = self._wording.values(self._rows.records)
        self._shots = benchmark.shots if shots is None else shots
        pool_rows = read_shots(benchmark, data) if self._shots else None
        self._same = pool_rows is None or pool_rows.hashes == self._rows.hashes
        self._pool = self._values if self._same or pool_rows is None else self._wording.values(pool_rows.records)
        self._hashes = {**self._rows.hashes, **(pool_rows.hashes if self._shots and pool_rows else {})}
        self.questions = list(self._questions())

    @property
    def key(self) -> str:
        """Its name in the results."""
        return f"{self.benchmark.name}-{self._shots}-shot" if self._shots else self.benchmark.name

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that define the questions."""
        chances = [1 / len(question.continuations) for question in self.questions]
        found: dict[str, Any] = {
            "title": self.benchmark.title,
            "split": self._rows.split,
            "questions": len(self.questions),
            "of": len(self._values),
            "limit": self._limit,
            "shots": self._shots,
            "chance": sum(chances) / len(chances) if self.benchmark.kind == "choice" else None,
            "data_sha256": self._hashes,
        }
        if self._shots and not self.benchmark.first_shots:
            found["seed"] = self._seed
        if self._shots and self._same:
            found["shots_from"] = "the other questions"
        return found

    def score(self, scorer: RequestScorer, progress: Progress | None) -> dict[str, Any]:
        """Returns metrics of all questions and of each group, the share of ties, and each answer in order.

        An answer is right ("1"), wrong ("0"), or "=" where the right choice shares the highest score with others.
        """
        requests = [request for question in self.questions for request in self._requests(question)]
        done = 0

        def tick(more: int) -> None:
            nonlocal done
            done += more
            if progress is not None:
                progress(self.key, done, len(requests))

        tick(0)
        scores = iter(scorer.score(requests, tick))
        outcomes = [
            outcome(self.benchmark, question, [next(scores) for _ in question.contexts]) for question in self.questions
        ]
        groups = by_group(self.benchmark, outcomes)
        return {
            "metrics": {name: metric.plain() for name, metric in measure(self.benchmark, outcomes).items()},
            "groups": {group: {name: m.plain() for name, m in some.items()} for group, some in groups.items()},
            "ties": share_of_ties(outcomes),
            "right": "".join({1.0: "1", 0.0: "0"}.get(one.right, "=") for one in outcomes),
        }

    def _requests(self, question: Question) -> list[Request]:
        pairs = zip(question.contexts, question.continuations, strict=True)
        if self.benchmark.kind != "bias":
            return [Request(context, continuation) for context, continuation in pairs]
        others = reversed(question.continuations)
        return [Request(*pair, contrast=other) for pair, other in zip(pairs, others, strict=True)]

    def _questions(self) -> Iterator[Question]:
        taken: dict[str, int] = {}
        for number, values in enumerate(self._values):
            group = str(values.get("group", ""))
            taken[group] = taken.get(group, 0) + 1
            if self._limit is None or taken[group] <= self._limit:
                yield self._wording.question(values, self._shown(number, values))

    def _shown(self, number: int, values: Values) -> list[Values]:
        return shots_of(self.benchmark, self._pool, number, values, self._shots, self._seed, self._same)


def add_results(directory: Path, kind: str, scores: Mapping[str, Any]) -> None:
    """Adds results to a run's benchmarks.json; those of the same name are replaced.

    Raises:
        UserError: the file is damaged.
    """
    path = directory / RESULTS
    found: dict[str, Any] = {}
    if path.exists():
        try:
            found = read_json(path)
            found[kind] = {**found.get(kind, {})}
        except (OSError, ValueError, AttributeError, TypeError):
            raise UserError(f"{path} is damaged.", "Take it away, or bring back a copy.") from None
    write_json(path, {**found, kind: {**found.get(kind, {}), **scores}})
