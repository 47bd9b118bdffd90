"""The number of parameters of a model, by component."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from torch import nn

from pretextlm.model.transformer import Transformer

BLOCK = re.compile(r"^(encoder|decoder)\.(\d+)\.(.+)$")

OUTSIDE = (
    (r"^embed_tokens\.weight$", "embeddings", "tokens"),
    (r"^(decoder_)?embedding\.positions\.", "embeddings", "positions"),
    (r"^(decoder_)?embedding\.types\.", "embeddings", "token types"),
    (r"^(decoder_)?embedding\.norm\.", "embeddings", "norm"),
    (r"^(decoder_)?embedding\.projection\.", "embeddings", "projection to hidden_size"),
    (r"^encoder_bias\.", "encoder", "distances"),
    (r"^decoder_bias\.", "decoder", "distances"),
    (r"^encoder_norm\.", "encoder", "final norm"),
    (r"^decoder_norm\.", "decoder", "final norm"),
    (r"^head_layers\.dense\.", "head", "dense layer"),
    (r"^head_layers\.norm\.", "head", "norm"),
    (r"^head_layers\.bias$", "head", "bias of each token"),
    (r"^head_layers\.pooler\.", "head", "pooler, not read here"),
    (r"^lm_head\.", "head", "matrix"),
)
"""Parameters outside of the blocks: pattern, group, name of the component."""

INSIDE = (
    (r"norm.*\.(weight|bias)$", "norms"),
    (r"\.bias$", "biases"),
    (r"^self_attn\.q_proj\.", "attention: queries"),
    (r"^self_attn\.k_proj\.", "attention: keys"),
    (r"^self_attn\.v_proj\.", "attention: values"),
    (r"^self_attn\.o_proj\.", "attention: output"),
    (r"^cross_attn\.q_proj\.", "cross-attention: queries"),
    (r"^cross_attn\.k_proj\.", "cross-attention: keys"),
    (r"^cross_attn\.v_proj\.", "cross-attention: values"),
    (r"^cross_attn\.o_proj\.", "cross-attention: output"),
    (r"^self_attn\.of_globals\.", "attention: of global tokens"),
    (r"^mlp\.", "feed-forward"),
)
"""Parameters of a block: pattern, name of the component. The first match counts."""

ORDER = ("embeddings", "encoder", "decoder", "head")
LAST = ("norms", "biases", "distances", "final norm")


@dataclass
class Component:
    """The parameters of one component.

    Attributes:
        group: Embeddings, encoder, decoder, head, or a head of the objective.
        name: Name of the component.
        layers: Number of blocks that have it; 0 outside of the blocks.
        parameters: Number of parameters, over all blocks.
        shapes: Sizes of its tensors in one block → number of tensors of that size.
        note: Reason why it has no parameters, or fewer than expected.
        even: Whether every block has the same.
    """

    group: str
    name: str
    layers: int = 0
    parameters: int = 0
    shapes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    note: str = ""

    even: bool = True

    @property
    def each(self) -> int | None:
        """Number of parameters of one block; None outside of the blocks, and where blocks differ."""
        return self.parameters // self.layers if self.layers and self.even else None

    @property
    def formula(self) -> str:
        """Product of the sizes, such as "2 × 768 × 3072"."""
        parts = []
        for shape, times in self.shapes.items():
            parts.append(" × ".join(map(str, ((times,) if times > 1 else ()) + shape)))
        return " + ".join(parts)


def components(model: Transformer) -> list[Component]:
    """Counts the parameters of a model.

    Returns:
        Components, of which every parameter is in exactly one; tied parameters count once.
    """
    found: dict[tuple[str, str], Component] = {}
    blocks: dict[tuple[str, str], set[int]] = {}
    for name, parameter in model.named_parameters():
        group, component, block = _place(name)
        one = found.setdefault((group, component), Component(group, component))
        one.parameters += parameter.numel()
        if block is not None:
            blocks.setdefault((group, component), set()).add(block)
        one.shapes[tuple(parameter.shape)] += 1
    for key, numbers in blocks.items():
        one = found[key]
        one.layers = len(numbers)
        one.even = all(times % len(numbers) == 0 for times in one.shapes.values())
        one.shapes = Counter({shape: n // len(numbers) if one.even else n for shape, n in one.shapes.items()})
        if model.config.share_layers:
            one.note = f"shared by {model.config.layers('decoder' if one.group == 'decoder' else 'encoder')} layers"
    if model.lm_head is None:
        found["head", "matrix"] = Component("head", "matrix", note="tied to the tokens")
    assert sum(one.parameters for one in found.values()) == total(model), "every parameter is in one component"
    return sorted(found.values(), key=_order)


def total(model: nn.Module) -> int:
    """Returns the number of all parameters; tied ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def group_totals(parts: Iterable[Component]) -> dict[str, int]:
    """Returns the number of parameters of each group."""
    sums: Counter[str] = Counter()
    for part in parts:
        sums[part.group] += part.parameters
    return dict(sums)


def _place(name: str) -> tuple[str, str, int | None]:
    """Returns (group, component, number of the block or None) of a parameter; an unknown one has its own name."""
    inside = BLOCK.match(name)
    if inside:
        stack, number, rest = inside.groups()
        return stack, next(_fitting(INSIDE, rest), rest), int(number)
    if name.startswith("heads."):
        head = name.split(".")[1]
        return f"objective: {head}", "all", None
    for pattern, group, component in OUTSIDE:
        if re.search(pattern, name):
            return group, component, None
    return "other", name.removesuffix(".weight"), None


def _fitting(table: Iterable[tuple[str, str]], name: str) -> Iterator[str]:
    return (component for pattern, component in table if re.search(pattern, name))


def _order(part: Component) -> tuple[int, int]:
    """Sort key: groups in the order of the forward pass; in each, small components last."""
    group = ORDER.index(part.group) if part.group in ORDER else len(ORDER)
    return group, LAST.index(part.name) + 1 if part.name in LAST else 0
