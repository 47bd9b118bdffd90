"""Rows of the report's tables: conditions, setting, cost, and how to reproduce the study."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretextlm.config import write_toml
from pretextlm.metric import amount_read
from pretextlm.report import format as form
from pretextlm.report import glossary
from pretextlm.report.finding import budget
from pretextlm.report.read import Condition, Run, Study, number, table

_SHAPE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
MAX_SOURCES = 12
TEACHER = "teacher"
"""Option of a distilled task: the run that teaches."""


@dataclass(frozen=True)
class Contender:
    """Description of one condition."""

    index: int
    label: str
    about: glossary.Objective
    details: list[tuple[str, str]]


@dataclass(frozen=True)
class Cost:
    """Mean cost per run of one condition over its seeds; a dash if a run does not record it."""

    index: int
    label: str
    cells: list[str]


COST_COLUMNS = ("Parameters", "Tokens read", "Training time", "FLOPs", "Tokens / s", "Energy")


def contenders(study: Study) -> list[Contender]:
    """Returns every condition with its objective, options, shape and exact parameter count."""
    return [
        Contender(i, condition.label, glossary.objective(condition.objective), _details(condition))
        for i, condition in enumerate(study.conditions)
    ]


def _details(condition: Condition) -> list[tuple[str, str]]:
    run = condition.example
    model, options = table(run.config, "model"), run.options
    parameters = number(run.cost.get("parameters"))
    rows = [
        ("Architecture", str(model.get("architecture", "")).replace("_", "-")),
        ("Shape", _shape(model)),
        ("Parameters", "" if parameters is None else f"{parameters:,.0f}"),
        *(_tuned(run) if "task" in run.config else []),
        ("Taught by", _run_name(options.get(TEACHER))),
        ("Options", options_text({name: value for name, value in options.items() if name != TEACHER})),
    ]
    return [(name, text) for name, text in rows if text]


def _tuned(run: Run) -> list[tuple[str, str]]:
    """Returns the starting point of a run of a task and its trained parts."""
    frozen = table(run.config, "tuning").get("freeze")
    rate = number(table(run.config, "training").get("learning_rate"))
    return [
        ("Starts from", _run_name(run.config.get("start")) or "its own first weights"),
        ("Frozen", ", ".join(map(str, frozen)) if isinstance(frozen, list) else ""),
        ("Learning rate", "" if rate is None else f"{rate:g}"),
    ]


def _run_name(directory: object) -> str:
    """Returns the name of a run's directory; within a study, without the seed. Its parent directories are not shown."""
    return re.sub(r"-seed\d+$", "", Path(str(directory)).name) if directory else ""


def _shape(model: Mapping[str, Any]) -> str:
    width, layers, heads = (number(model.get(key)) for key in _SHAPE[:3])
    if width is None or layers is None or heads is None:
        return ""
    each = "2 × " if model.get("architecture") == "encoder_decoder" else ""
    return f"{each}{layers:.0f} layers, width {width:.0f}, {heads:.0f} heads"


def options_text(options: Mapping[str, Any]) -> str:
    """Returns the options that differ from the objective's defaults; the recipe further down has all of them."""
    others = _unusual(options, glossary.defaults(str(options.get("name", ""))))
    return ", ".join(f"{key} = {text}" for key, text in others) or ("as by default" if options else "")


def _unusual(options: Mapping[str, Any], usual: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(k, _value(v, usual.get(k))) for k, v in options.items() if k != "name" and usual.get(k) != v]


def _value(value: Any, usual: Any = None) -> str:
    if isinstance(value, Mapping):  # an objective inside another
        name = str(value.get("name", ""))
        same = isinstance(usual, Mapping) and usual.get("name", "") == name
        inner = ", ".join(f"{k} = {v}" for k, v in _unusual(value, usual if same else glossary.defaults(name)))
        return f"{name} ({inner})" if name and inner else name or f"({inner})"
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return " / ".join(value)
    if isinstance(value, list):
        return f"a table of {form.count(len(value), 'row')}"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def setting(study: Study) -> list[tuple[str, str]]:
    """Returns the setting shared by all runs: corpus, budget, seeds, machine."""
    finished = sum(run.state == "finished" for run in study.runs)
    seeds = sorted({run.seed for run in study.runs if run.seed is not None})
    rows = [
        ("Corpus", _corpus(study)),
        *_files(study),
        ("Sources", "" if len(_sources(study)) > 1 else form.listing(_sources(study))),
        ("Weights", "; ".join(_older_weights(study))),
        ("Held-out text read", _distinct(amount_read(run.settings) for run in study.runs)),
        ("Tokenizer", _tokenizer(study)),
        ("Budget of each run", budget(study)),
        ("Runs", f"{finished} of {len(study.runs)} finished; {_seeds(seeds)}"),
        ("Machine", machine(study)),
    ]
    return [(name, text) for name, text in rows if text]


def _older_weights(study: Study) -> Iterator[str]:
    """Yields the runs whose results are of an older checkpoint, because newer ones are broken."""
    for run in study.runs:
        broken = run.settings.get("broken_checkpoints")
        if isinstance(broken, list):
            yield f"{run.path.name}: of step {run.settings.get('step')} ({'; '.join(map(str, broken))})"


def _seeds(seeds: list[int]) -> str:
    return f"seed{'' if len(seeds) == 1 else 's'} {form.listing([str(seed) for seed in seeds])}" if seeds else ""


def _corpus(study: Study) -> str:
    corpus = study.corpus
    if "of" in corpus:
        used, every = _by_split(corpus, "records"), _by_split(corpus, "of")
        held = f"{used.get('validation', 0):,.0f} of {every.get('validation', 0):,.0f} to be judged by"
        return f"{used.get('train', 0):,.0f} of {every.get('train', 0):,.0f} records to learn from, {held}"
    tokens, documents = _by_split(corpus, "tokens"), _by_split(corpus, "documents")
    if "train" not in tokens:
        return _distinct(table(run.config, "data").get("store") for run in study.runs)
    text = f"{tokens['train']:,.0f} tokens to train on"
    text += f" ({documents['train']:,.0f} documents)" if "train" in documents else ""
    held = f", {tokens['validation']:,.0f} held out" if "validation" in tokens else ""
    return text + held


def _files(study: Study) -> list[tuple[str, str]]:
    """Returns the files of records of runs of a task, if no study says how many records were used."""
    if not study.of_a_task or study.corpus:
        return []
    learnt = _distinct(table(run.config, "data").get("train") for run in study.runs)
    return [("Trained on", learnt), ("Scored on", _distinct(run.settings.get("data") for run in study.runs))]


def _by_split(corpus: Mapping[str, Any], key: str) -> dict[str, float]:
    values = {split: number(value) for split, value in table(corpus, key).items()}
    return {split: value for split, value in values.items() if value is not None}


def _sources(study: Study) -> list[str]:
    sources = study.corpus.get("sources")
    rows = [s for s in sources if isinstance(s, Mapping)] if isinstance(sources, list) else []
    return [f"{s.get('name', '?')} ({s.get('licence') or 'licence not stated'})" for s in rows]


def sources(study: Study) -> tuple[list[str], int]:
    """Returns (sources with their licences, if there are several; the number of sources not listed)."""
    every = _sources(study)
    return ([], 0) if len(every) < 2 else (every[:MAX_SOURCES], max(0, len(every) - MAX_SOURCES))


def _tokenizer(study: Study) -> str:
    size, kind = number(study.corpus.get("vocabulary_size")), study.corpus.get("tokenizer")
    return "" if size is None else f"{kind or 'tokenizer'}, {size:,.0f} entries"


def machine(study: Study) -> str:
    """Returns the machine recorded by the study, with the devices recorded by its runs."""
    noted = table(study.command, "machine")
    cpus = number(noted.get("cpus"))
    devices = _distinct(run.environment.get("device") or run.cost.get("device") for run in study.runs)
    processor = str(noted.get("processor") or noted.get("system") or "")
    if devices and processor in devices:
        return devices
    parts = [processor, form.count(int(cpus), "core") if cpus else "", f"on {devices}" if devices else ""]
    return ", ".join(part for part in parts if part)


def environment(study: Study) -> list[tuple[str, str]]:
    """Returns versions and settings of all runs; every value if they differ."""
    keys = dict.fromkeys(
        key for run in study.runs for key in run.environment if key not in ("command", "started", "peak")
    )
    rows = [(key, _distinct(run.environment.get(key) for run in study.runs)) for key in keys]
    noted = [(key, str(value)) for key, value in table(study.command, "machine").items() if key not in keys]
    times = [(key, str(study.command[key])) for key in ("started", "finished") if study.command.get(key)]
    corpus = [("corpus hash", str(study.corpus["hash"]))] if study.corpus.get("hash") else []
    return [(key.replace("_", " "), text) for key, text in [*rows, *noted, *times, *corpus] if text]


def _distinct(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value not in (None, "")))


def costs(study: Study) -> list[Cost]:
    """Returns one row per condition, over the runs that have been trained."""
    rows = [(i, condition, [run for run in condition.runs if run.cost]) for i, condition in enumerate(study.conditions)]
    return [Cost(i, condition.label, cost_cells(runs)) for i, condition, runs in rows if runs]


def cost_cells(runs: list[Run]) -> list[str]:
    parameters, tokens, seconds = (_mean(runs, key) for key in ("parameters", "tokens", "seconds"))
    flops, energy = _mean(runs, "flops"), _mean(runs, "energy_joules")
    speed = tokens / seconds if tokens is not None and seconds else None
    return [
        "–" if parameters is None else f"{parameters:,.0f}",
        "–" if tokens is None else form.si(tokens),
        "–" if seconds is None else form.duration(seconds),
        "–" if flops is None else form.si(flops),
        "–" if speed is None else form.si(speed),
        "not measured" if energy is None else form.si(energy, "J") + _carbon(runs),
    ]


def _carbon(runs: list[Run]) -> str:
    grams = _mean(runs, "co2_grams")
    return "" if grams is None else f", {form.plain(grams)}{form.THIN}g CO₂"


def _mean(runs: list[Run], key: str) -> float | None:
    values = [value for run in runs if (value := number(run.cost.get(key))) is not None]
    return sum(values) / len(values) if values else None


def commands(study: Study) -> list[str]:
    """Returns the commands to reproduce this: the study's own, else each run's."""
    argvs = [study.command.get("command")] if study.command else [r.environment.get("command") for r in study.runs]
    return list(dict.fromkeys(shlex.join(map(str, argv)) for argv in argvs if isinstance(argv, list) and argv))


def recipes(study: Study) -> list[tuple[str, str]]:
    """Returns (title, TOML) of the plan and of one run of each condition."""
    plan = [("The plan: study.toml", write_toml(study.plan))] if study.plan else []
    shown = [condition.example for condition in study.conditions]
    return plan + [(f"The recipe of {run.path.name}", write_toml(run.config)) for run in shown if run.config]
