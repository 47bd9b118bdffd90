"""Which parameters are matrices of the trunk's blocks: what is pruned and quantised.

They are the projections of attention and feed-forward. Embedding, head, norms, biases and the modules that an objective
adds are none.
"""

from __future__ import annotations

import re

_MATRIX = re.compile(r"(encoder|decoder)\.(\d+|\{i\})\.(self_attn|cross_attn|mlp)\.(of_globals\.)?[a-z]+_proj\.weight")


def is_block_matrix(name: str) -> bool:
    """Whether a parameter of this name, or of this name in each layer `{i}`, is one."""
    return _MATRIX.fullmatch(name) is not None
