"""Eight-bit integer matrices in the formats of the library compressed-tensors.

    weight (O, I)  ≈  scale (O, 1) · q (O, I),   q in -127 … 127,   scale = largest |weight| of the row / 127

One scale per output channel, symmetric, weights only (W8A16). Decoders are written as "pack-quantized", which LLM
servers read: four values share one int32, the first in its lowest byte, each offset by 128, and the last int32 of a row
is padded with zeros. Other models, and NanoChat, are written as "int-quantized", since transformers cannot build every
encoder without the parameter X.weight:

    pack-quantized    X.weight_packed (O, ⌈I/4⌉) int32    X.weight_scale (O, 1)    X.weight_shape (2,) int64: O, I
    int-quantized     X.weight (O, I) int8                X.weight_scale (O, 1)

config.json describes them under "quantization_config". transformers reads both formats if compressed-tensors is
installed; we read and write them without it. Embedding, head, norms and biases keep their dtype, and so does a head
tied to the embedding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pretextlm.errors import UserError
from pretextlm.hf.safetensors_files import FLOATS, TensorInfo

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pretextlm.model.config import ModelConfig
    from pretextlm.model.families.base import Family

METHOD = "compressed-tensors"
PACK, PLAIN = "pack-quantized", "int-quantized"
KEY = "quantization_config"
PACKED, SCALE, SHAPE = "_packed", "_scale", "_shape"
"""Suffixes of the tensors that represent a weight, beside or instead of its own name."""
NEED_WEIGHT = ("nanochat",)
"""Decoders that transformers cannot build without the parameter X.weight either."""
LARGEST = 127
_WEIGHTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}


def quantize(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns (q (O, I) int8, scale (O, 1) of the given dtype). The error of a weight is at most half a step of its
    row.
    """
    import torch

    weight = weight.float()
    scale = weight.abs().amax(dim=1, keepdim=True) / LARGEST
    scale = torch.where(scale > 0, scale, 1.0).clamp(min=torch.finfo(dtype).tiny).to(dtype)
    return (weight / scale.float()).round().clamp(-LARGEST - 1, LARGEST).to(torch.int8), scale


def dequantize(q: Tensor, scale: Tensor) -> Tensor:
    """Returns the matrix that a reader computes with: the product, in the dtype of the scale."""
    return q.to(scale.dtype) * scale


def pack(q: Tensor) -> Tensor:
    """Returns (O, I) int8 packed as (O, ⌈I/4⌉) int32."""
    import numpy as np
    import torch

    rows, columns = q.shape
    bytes_OI = np.zeros((rows, -(-columns // 4) * 4), np.uint8)
    bytes_OI[:, :columns] = (q.numpy().astype(np.int16) + 128).astype(np.uint8)
    return torch.from_numpy(bytes_OI.view("<i4").astype(np.int32))


def unpack(packed: Tensor, columns: int) -> Tensor:
    """Returns (O, ⌈I/4⌉) int32 unpacked as (O, I) int8."""
    import numpy as np
    import torch

    bytes_OI = packed.contiguous().numpy().astype("<i4").view(np.uint8)[:, :columns]
    return torch.from_numpy((bytes_OI.astype(np.int16) - 128).astype(np.int8))


def quantizable(family: Family, config: ModelConfig) -> list[str]:
    """Returns the published names of the matrices of the blocks, with {i} for each layer.

    Raises:
        UserError: the family uses a kind of layer for which the format is not defined.
    """
    from pretextlm.model.block_matrices import is_block_matrix

    found = [one for one in family.maps(config) if is_block_matrix(one.ours[0])]
    if any(one.transposed or one.unsqueezed for one in found):
        raise UserError(
            f"A {family.name} model keeps its matrices transposed (Conv1D), which {METHOD} has no place for.",
            "Export it without --quantize, for example with --dtype bf16.",
        )
    return [one.theirs for one in found]


def format_of(family: Family, config: ModelConfig) -> str:
    """Returns the format for a model of this family and shape."""
    return PACK if config.architecture == "decoder" and family.name not in NEED_WEIGHT else PLAIN


def quantized_weights(
    theirs: Mapping[str, Tensor], patterns: list[str], prefix: str, form: str, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Quantize the tensors that match a pattern.

    Args:
        theirs: all tensors under the published names.
        patterns: names of the matrices, with {i} for each layer.
        prefix: of the family's names, which may be left out.
        form: "pack-quantized" or "int-quantized".
        dtype: of the scales.

    Returns:
        All tensors, with integers and scales in place of the matched ones.
    """
    import torch

    names = "|".join(_escaped(pattern.removeprefix(prefix)) for pattern in patterns)
    matches = re.compile(f"({re.escape(prefix)})?({names})").fullmatch
    found: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        if not matches(name):
            found[name] = tensor
            continue
        q, scale = quantize(tensor, dtype)
        shape = torch.tensor(tensor.shape)
        found |= {name + PACKED: pack(q), name + SHAPE: shape} if form == PACK else {name: q}
        found[name + SCALE] = scale
    return found


def dequantized_weights(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns all tensors, with every quantized weight dequantized."""
    names = _quantised(theirs)
    parts = {name + ending for name in names for ending in ("", PACKED, SCALE, SHAPE)}
    found = {name: tensor for name, tensor in theirs.items() if name not in parts}
    for name in names:
        packed = theirs.get(name + PACKED)
        q = theirs[name] if packed is None else unpack(packed, int(theirs[name + SHAPE][1]))
        found[name] = dequantize(q, theirs[name + SCALE])
    return found


def _quantised(names: Iterable[str]) -> list[str]:
    """Returns the names of the weights that are stored as integers and a scale."""
    return [name.removesuffix(SCALE) for name in names if name.endswith(".weight" + SCALE)]


def settings(patterns: list[str], prefix: str, form: str) -> dict[str, Any]:
    """Returns the value of "quantization_config" in config.json.

    Args:
        patterns: names of the quantized matrices.
        prefix: of the family's names, which a model without a head leaves out.
        form: "pack-quantized" or "int-quantized".
    """
    targets = ["re:.*" + _escaped(pattern.removeprefix(prefix).removesuffix(".weight")) + "$" for pattern in patterns]
    group = {
        "format": form,
        "targets": targets,
        "weights": {**_WEIGHTS, "group_size": None, "dynamic": False, "observer": "minmax"},
        "input_activations": None,
        "output_activations": None,
    }
    return {
        "quant_method": METHOD,
        "format": form,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def is_quantized(values: Mapping[str, Any], where: str) -> bool:
    """Returns whether a config.json describes weights quantized as in this file.

    Raises:
        UserError: they are quantized in another way.
    """
    quantised = values.get(KEY)
    if quantised is None:
        return False
    quantised = quantised if isinstance(quantised, Mapping) else {}
    method = quantised.get("quant_method")
    groups = quantised.get("config_groups")
    schemes = list(groups.values()) if isinstance(groups, Mapping) else []
    known = method == METHOD and quantised.get("format") in (PACK, PLAIN)
    if not known or not schemes or not all(map(_is_ours, schemes)):
        form = str(quantised.get("format"))
        raise UserError(
            f"{where}: the weights are quantised by {str(method)[:40]!r}, format {form[:40]!r}.",
            f"Read are eight-bit weights of {METHOD}, {PACK!r} or {PLAIN!r}, symmetric, with a scale for each output "
            "channel. Load others with the library that wrote them, and save them in bf16.",
        )
    return True


def _is_ours(scheme: Any) -> bool:
    weights = scheme.get("weights") if isinstance(scheme, Mapping) else None
    if not isinstance(weights, Mapping) or any(scheme.get(f"{side}_activations") for side in ("input", "output")):
        return False
    return scheme.get("format") in (None, PACK, PLAIN) and all(
        weights.get(name) == value for name, value in _WEIGHTS.items()
    )


def as_dequantized(stored: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Describe the tensors of the files as if nothing were quantized; only the two numbers of each shape are read.

    Raises:
        UserError: parts of a weight do not match.
    """
    names = _quantised(stored) + [name.removesuffix(PACKED) for name in stored if name.endswith(PACKED)]
    parts = {name + ending for name in names for ending in ("", PACKED, SCALE, SHAPE)}
    found = {name: one for name, one in stored.items() if name not in parts}
    shapes = _shapes({name: stored[name + SHAPE] for name in names if name + SHAPE in stored})
    for name in dict.fromkeys(names):
        scale, shape = stored.get(name + SCALE), _shape(name, stored, shapes)
        if scale is None or shape is None or scale.dtype not in FLOATS or scale.shape != (shape[0], 1):
            raise UserError(f"The parts of the quantised tensor {name} do not fit.", "Fetch the model again.")
        found[name] = replace(scale, shape=shape)
    return found


def _shape(
    name: str, stored: Mapping[str, TensorInfo], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[int, ...] | None:
    """Returns the shape of a weight stored in one of the two ways; None if it is stored in neither."""
    plain, packed, shape = stored.get(name), stored.get(name + PACKED), shapes.get(name)
    if packed is None and plain is not None and name + SHAPE not in stored:
        return plain.shape if plain.dtype == "I8" and len(plain.shape) == 2 else None
    if plain is not None or packed is None or packed.dtype != "I32" or shape is None or shape[1] <= 0:
        return None
    return shape if packed.shape == (shape[0], -(-shape[1] // 4)) else None


def _shapes(stored: Mapping[str, TensorInfo]) -> dict[str, tuple[int, ...]]:
    """Returns the numbers in each valid tensor that stores a shape."""
    from safetensors import safe_open

    found: dict[str, tuple[int, ...]] = {}
    for file in {one.file for one in stored.values()}:
        with safe_open(file, "pt") as opened:
            for name, one in stored.items():
                if one.file == file and one.shape == (2,) and one.dtype in ("I64", "I32"):
                    found[name] = tuple(opened.get_tensor(name + SHAPE).tolist())
    return found


def _escaped(pattern: str) -> str:
    r"""Returns a name with {i} as a regular expression: r"layers\.\d+\.q_proj"."""
    return re.escape(pattern).replace(re.escape("{i}"), r"\d+")
