"""What the device can do at most: a copy, and one large product."""

from __future__ import annotations

from typing import Any

import torch
from benchmarks.gpu.isolation import item
from benchmarks.gpu.measures.common import seconds

SECTION = "2 ceilings"


@item(SECTION, alone=True)
def copy(device: str) -> str:
    """Bytes read and written."""
    count = (4 << 30) if device == "cuda" else (16 << 20)
    source = torch.empty(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return f"{2 * count / seconds(lambda: target.copy_(source), device) / 1e12:.2f} TB/s"


@item(SECTION, alone=True)
def product(device: str) -> dict[str, Any]:
    """Of two random matrices in bf16."""
    width = 8192 if device == "cuda" else 512
    a, b = (torch.randn(width, width, device=device).bfloat16() for _ in range(2))
    return {"width": width, "TFLOP/s": round(2 * width**3 / seconds(lambda: a @ b, device) / 1e12, 1)}
