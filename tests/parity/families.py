"""What every family's parity test does: theirs and ours side by side on padded, packed and cached rows, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from pretextlm.batch import Batch
from pretextlm.hf.export_model import export_model
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import hf_config_values, weights_from_hf, weights_to_hf
from pretextlm.model.families.registry import FAMILIES
from pretextlm.model.incremental_decoding import IncrementalDecoder
from pretextlm.model.model_inputs import prepare
from pretextlm.model.transformer import Transformer
from pretextlm.training.run_directory import Run

CPU = torch.device("cpu")
Heads = Callable[[ModelConfig], Mapping[str, torch.nn.Module]]


def randomised(model: Any, seed: int = 0) -> Any:
    """Every parameter random and large enough that no part can be left out unseen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.15
            parameter.copy_(1 + noise if "norm" in name.lower() and name.endswith("weight") else noise)
    return model.eval()


def imported(model: Any, directory: Path, heads: Heads | None = None) -> tuple[Transformer, Any]:
    """Saved by transformers, read by our map into a model with such heads: (it, what was missing or left)."""
    model.save_pretrained(directory)
    family = FAMILIES[model.config.model_type]()
    theirs = load_file(directory / "model.safetensors")
    config = family.adjust_config(family.config_from_hf(model.config.to_dict()), theirs)
    ours = Transformer(config, heads(config) if heads else None)
    shapes = {name: parameter.shape for name, parameter in ours.state_dict().items()}
    found = weights_from_hf(family, config, theirs, shapes)
    ours.load_state_dict(found.weights, strict=False)
    return ours.eval(), found


def our_states(ours: Transformer, **arrays: Any) -> torch.Tensor:
    """(B, T, D) of every position of the (decoder's) row."""
    batch = Batch(**{k: v if isinstance(v, str) else np.asarray(v, np.int32) for k, v in arrays.items()})
    with torch.inference_mode():
        return ours(prepare(batch, ours.config, CPU, torch.float32)).hidden_BTD


def our_logits(ours: Transformer, **arrays: Any) -> torch.Tensor:
    """(B, T, V) of every position of the (decoder's) row."""
    with torch.inference_mode():
        return ours.logits(our_states(ours, **arrays))


def their_logits(model: Any, **arrays: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(**{k: torch.as_tensor(np.asarray(v), dtype=torch.long) for k, v in arrays.items()}).logits


def cached_logits(ours: Transformer, ids: list[int], cuts: list[int], source: list[int] | None = None) -> torch.Tensor:
    """(T, V) of a decoder that reads the row piece by piece."""
    reader = IncrementalDecoder(ours, None if source is None else [source])
    with torch.inference_mode():
        pieces = [ids[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(ids)], strict=True)]
        return torch.cat([ours.logits(reader.extend([piece])[0]) for piece in pieces])


def round_trip(ours: Transformer, model: Any, directory: Path) -> Any:
    """Written back by our map and loaded by transformers without a missing or unexpected key; the same bytes."""
    family = FAMILIES[model.config.model_type]()
    written = weights_to_hf(family, ours.config, ours.state_dict())
    original = load_file(directory / "model.safetensors")
    for name, tensor in written.items():
        assert name in original, name
        assert torch.equal(tensor, original[name]), name
    assert set(original) == set(written)
    values = hf_config_values(family, ours.config, ours.state_dict())
    config = type(model.config).from_dict({**model.config.to_dict(), **values})
    assert config.to_dict() == model.config.to_dict()
    back = directory / "back"
    back.mkdir()
    save_file(written, back / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(back)
    again, report = type(model).from_pretrained(back, output_loading_info=True)
    assert not report["missing_keys"], report
    assert not report["unexpected_keys"], report
    return again.eval()


def exported_alike(run: Run, model: Any, theirs: Path, out: Path) -> Any:
    """An imported run exported as the class it came as: the same bytes, and transformers misses nothing of it."""
    done = export_model(run.directory, out)
    expected, found = load_file(theirs / "model.safetensors"), load_file(out / "model.safetensors")
    assert done.architecture == type(model).__name__
    assert done.lost == ()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    again, report = type(model).from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    return again
