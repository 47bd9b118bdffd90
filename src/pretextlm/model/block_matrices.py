"""Which parameters are matrices of the blocks, the ones that are pruned and quantized.

They are the projections of attention and feed-forward layers, not embeddings, head, norms, biases or the modules that
an objective adds.
"""

from __future__ import annotations

import re

_MATRIX = re.compile(r"(encoder|decoder)\.(\d+|\{i\})\.(self_attn|cross_attn|mlp)\.(of_globals\.)?[a-z]+_proj\.weight")


def is_block_matrix(name: str) -> bool:
    """Returns whether a parameter of this name is one; `{i}` may stand for the number of a layer."""
    return _MATRIX.fullmatch(name) is not None
