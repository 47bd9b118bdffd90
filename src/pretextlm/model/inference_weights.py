"""A model's matrices cast once to the type of the activations, for generating many tokens in half precision."""

from __future__ import annotations

import copy

import torch
from torch import nn

from pretextlm.model.layers import Linear
from pretextlm.model.transformer import Transformer


def cast_for_inference(model: Transformer, dtype: torch.dtype) -> Transformer:
    """Cast the matrices of the blocks and of the language-model head to `dtype`.

    Training keeps its weights in fp32 and casts each matrix when it is used. A generated token needs every matrix
    once, so generation would spend most of its time on casting. The results are bit for bit those of casting on use:
    embeddings, biases and norms, which are added up in fp32, stay as they are.

    Args:
        model: A model in eval mode. It is not changed.
        dtype: Type of the activations.

    Returns:
        A model that shares every other parameter with `model`; `model` itself if its matrices have this type already.
    """
    if model.lm_head_weight.dtype == dtype:
        return model
    # deepcopy looks parameters up in the memo before it copies them: those of the memo are shared or replaced.
    memo: dict[int, object] = {id(parameter): parameter for parameter in model.parameters()}
    for module in model.modules():
        if isinstance(module, Linear):
            memo[id(module.weight)] = nn.Parameter(module.weight.detach().to(dtype), requires_grad=False)
    found = copy.deepcopy(model, memo)
    if found.lm_head is None:  # tied to the embedding, which stays in fp32: the head needs a matrix of its own
        rows, width = model.lm_head_weight.shape
        found.lm_head = Linear(width, rows).to_empty(device="meta")
        found.lm_head.weight = nn.Parameter(model.lm_head_weight.detach().to(dtype), requires_grad=False)
    return found
