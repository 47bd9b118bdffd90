"""`pretextlm params MODEL`: parameters by component, and the cost of training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretextlm.cli.shared.console import print_json, stdout

if TYPE_CHECKING:
    from rich.console import Console

    from pretextlm.model.config import ModelConfig
    from pretextlm.model.presets.preset import Preset
    from pretextlm.model.transformer import Heads


def params(
    model: Annotated[
        str | None,
        typer.Argument(help="A preset (bert-base-uncased, gpt2-xl, t5-11b, …), a run, or a Hugging Face directory."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to its shape: hidden_size=512 num_attention_heads=8")
    ] = None,
    every: Annotated[bool, typer.Option("--list", help="List the presets with figures and classes.")] = False,
    length: Annotated[int, typer.Option(min=0, help="Tokens of a row; 0: 512, or as many as it has positions.")] = 0,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a batch on one device.")] = 8,
    optimizer: Annotated[str, typer.Option(help="adamw or muon.")] = "adamw",
    dtype: Annotated[str, typer.Option(help="Of the activations: bf16 or fp32.")] = "bf16",
    as_json: Annotated[bool, typer.Option("--json", help="Print all numbers as JSON.")] = False,
) -> None:
    """Count a model's parameters by component, with memory and FLOPs of its training.

    The count is exact, tied weights once, and allocates no weights. For presets, the published figure is shown with the
    reason for any difference.
    """

    from pretextlm.errors import UserError, did_you_mean

    if every:
        _list(as_json)
        return
    if model is None:
        raise UserError("Which model?", "For example: pretextlm params bert-base-uncased. All: pretextlm params --list")
    for value, known in ((optimizer, ("adamw", "muon")), (dtype, ("bf16", "fp32"))):
        if value not in known:
            raise UserError(f"There is no {value!r} here.", did_you_mean(value, known))
    config, heads, preset = _shape(model, overrides or [])

    from pretextlm.training.model_cost import model_cost

    result = model_cost(
        config,
        heads=heads,
        rows=rows,
        length=length,
        optimizer="muon" if optimizer == "muon" else "adamw",
        dtype="fp32" if dtype == "fp32" else "bf16",
        preset=preset,
    )
    name = " ".join([model, *(overrides or [])])
    if as_json:
        print_json({"model": name, **result, "config": config.model_dump(mode="json")})
    else:
        _show(stdout(), name, config, result)


def _shape(model: str, overrides: list[str]) -> tuple[ModelConfig, Heads | None, Preset | None]:
    """Returns (configuration, heads of the objective, the preset if it is unchanged)."""
    from pretextlm.config import apply_overrides
    from pretextlm.model.presets.preset import changed, find

    place = Path(model)
    preset: Preset | None = None
    heads: Heads | None = None
    changes = apply_overrides({}, overrides)
    if place.is_dir():
        config, objective = _from_directory(place)
        config = changed(config, changes, f"the shape of {model}") if changes else config
        if objective is not None:
            heads = objective.heads
    else:
        preset = find(model)
        config = preset.config()
        if changes:
            preset, config = None, changed(config, changes, f"the shape of {model}")
    return config, heads, preset


def _from_directory(place: Path) -> tuple[ModelConfig, Any]:
    """Returns (configuration, objective or None) of a run or a Hugging Face directory."""
    from pretextlm.errors import UserError
    from pretextlm.hf.hf_config import CONFIG_FILE, read_config
    from pretextlm.training.run_directory import CONFIG, Run

    if (place / CONFIG).is_file():
        recipe = Run.open(place).recipe
        return recipe.model, recipe.training_objective
    if not (place / CONFIG_FILE).is_file():
        raise UserError(
            f"{place} is neither a run nor a Hugging Face model: it has no {CONFIG} and no {CONFIG_FILE}.",
            f"Give a run directory, a directory with {CONFIG_FILE}, or a name of pretextlm params --list.",
        )
    return read_config(place)[2], None


def _list(as_json: bool) -> None:
    from rich.table import Table

    from pretextlm.model.families.registry import FAMILIES
    from pretextlm.model.presets.preset import presets

    found = {
        name: {
            "published": preset.published,
            "exported_as": next(iter(FAMILIES[preset.family].classes)),
            "paper": preset.paper,
        }
        for name, preset in presets().items()
    }
    if as_json:
        print_json({"presets": found})
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("preset")
    table.add_column("published", justify="right")
    table.add_column("exported as")
    table.add_column("paper")
    for name, about in found.items():
        table.add_row(name, *about.values())
    stdout().print(table)


def _show(console: Console, name: str, config: ModelConfig, result: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    total = result["total"]
    kind = config.architecture.replace("_", "-")
    console.print(Text.assemble((name, "bold"), f": {total:,} parameters ({kind})"), soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("component", no_wrap=True)
    table.add_column("tensors", overflow="fold")
    for title in ("a layer", "layers", "parameters", "share"):
        table.add_column(title, justify="right", no_wrap=True)
    for group, size in result["groups"].items():
        table.add_row(Text(group, style="bold"), "", "", "", Text(f"{size:,}", style="bold"), f"{size / total:.1%}")
        for part in (part for part in result["components"] if part["group"] == group):
            shapes = ", ".join(text for text in (part["shapes"], part["note"]) if text)
            each = "" if part["each"] is None else f"{part['each']:,}"
            layers = str(part["layers"] or "")
            table.add_row(f"  {part['name']}", shapes, each, layers, f"{part['parameters']:,}", "")
    console.print(table)
    if result["published"]:
        console.print()
        _show_published(console, result["published"])
    console.print()
    _show_cost(console, result)


def _show_published(console: Console, published: dict[str, Any]) -> None:
    from rich.text import Text

    terms = [f" − {size:,} ({what})" for what, size in published["leaves_out"].items()]
    terms += [f" + {size:,} ({what})" for what, size in published["adds"].items()]
    console.print(
        Text.assemble(
            ("published ", "bold"),
            f"{published['figure']}, {published['paper']}",
            f"; counted as there: this{''.join(terms)} = {published['as_published']:,}" if terms else "",
        )
    )
    if published["note"]:
        console.print(Text(published["note"]))


def _show_cost(console: Console, result: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    memory, flops = result["memory"], result["flops_per_token"]
    setting = memory["settings"]
    second = f" (and {setting['target_length']} in the decoder)" if setting["target_length"] else ""
    console.print(
        Text.assemble(
            ("training ", "bold"),
            f"with {setting['optimizer']}, activations in {setting['dtype']}, {setting['rows']} rows of "
            f"{setting['length']} tokens{second}, {flops['labels']} labels in a row:",
        )
    )
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column()
    kinds = ("weights", "gradients", "optimizer", "activations")
    rest = ", ".join(f"{kind} {'about ' * (kind == 'activations')}{_bytes(memory[kind])}" for kind in kinds)
    table.add_row("  memory", _bytes(memory["total"]), rest)
    rest = ", ".join(f"{kind} {_si(flops[kind])}" for kind in ("matrices", "attention", "head"))
    table.add_row("  operations a token", f"{_si(flops['total'])}FLOPs", rest)
    console.print(table)
    console.print(Text(f"Activations are an estimate: {memory['activations_estimated_as']}.", style="dim"))


def _si(value: float) -> str:
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:,.0f} "


def _bytes(value: int) -> str:
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:,} bytes"
