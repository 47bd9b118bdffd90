"""BigBird (Zaheer et al. 2020, https://arxiv.org/abs/2007.14062): BERT whose long documents are read in blocks.

Logits are transformers' for one document that is not being trained on (`model/block_sparse_attention.py`). Two
things differ:

* Random blocks. In training transformers draws them, and a published BigBird was trained with them; outside of it, it
  takes the first block in the place of each. We do the latter in training too. With
  `attention.sample_random_blocks` they are sampled, in training and in inference; transformers has no such
  model, so it is not exported.
* Rows of several documents. Blocks are counted from each document's beginning, and the last is its own. transformers
  counts them over the padded batch: there a document's logits change with the padding behind it, here they do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import Family
from pretextlm.model.families.bert import (
    DEFAULTS,
    activation_from_hf,
    embeddings,
    layers,
    modules,
    post_norm_from_hf,
    post_norm_to_hf,
    refuse_untied,
)
from pretextlm.model.families.shared.tensor_maps import TensorMap, layer, same
from pretextlm.model.families.shared.values import complete

OWN_DEFAULTS: Mapping[str, Any] = {
    **DEFAULTS,
    "vocab_size": 50358,
    "hidden_act": "gelu_new",
    "max_position_embeddings": 4096,
    "attention_type": "block_sparse",
    "use_bias": True,
    "rescale_embeddings": False,
    "block_size": 64,
    "num_random_blocks": 3,
}
"""Hugging Face's defaults for values that a config.json leaves out."""


class BigBird(Family):
    """big_bird: encoder with blocks. Its pooler, which no language model reads, is imported too."""

    name: ClassVar[str] = "big_bird"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "BigBirdForMaskedLM": "encoder",
        "BigBirdForPreTraining": "encoder",
        "BigBirdModel": "encoder",
    }
    prefix: ClassVar[str] = "bert."
    copies: ClassVar[Mapping[str, str]] = {
        "cls.predictions.decoder.weight": "embed_tokens.weight",
        "cls.predictions.decoder.bias": "head_layers.bias",
    }
    ignored: ClassVar[tuple[str, ...]] = (r"position_ids$",)

    def config_from_hf(self, values: Mapping[str, Any]) -> ModelConfig:
        values = complete(values, (), OWN_DEFAULTS)
        refuse_untied(self, values)
        kind, size, random = values["attention_type"], values["block_size"], values["num_random_blocks"]
        if kind not in ("block_sparse", "original_full"):
            raise UserError(f"attention_type is {kind!r:.80}.", "Known: block_sparse, original_full.")
        if size < 1 or random < 0:
            raise UserError(f"Blocks of {size} tokens with {random} random ones are none.", "Fetch the model again.")
        plain = post_norm_from_hf(self, values, activation_from_hf(values["hidden_act"])).model_dump()
        attention = {"bias": values["use_bias"]}
        if kind == "block_sparse":
            attention |= {"block_size": size, "num_random_blocks": random}
        scale = values["hidden_size"] ** 0.5 if values["rescale_embeddings"] else 1.0
        parts = {"attention": attention, "embedding": {"scale": scale}, "head": {"pooler": True}}
        return ModelConfig.parse({**plain, **{name: {**plain[name], **part} for name, part in parts.items()}})

    def config_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        parts = config.attention
        blocks = {"block_size": parts.block_size, "num_random_blocks": parts.num_random_blocks}
        return post_norm_to_hf(self, config) | {
            "attention_type": "block_sparse" if parts.block_size else "original_full",
            **(blocks if parts.block_size else {}),
            "use_bias": parts.bias,
            "rescale_embeddings": config.embedding.scale != 1,
        }

    def maps(self, config: ModelConfig) -> list[TensorMap]:
        theirs, ours = "bert.encoder.layer.{i}", "encoder.{i}.self_attn"
        of_inputs = {
            f"{theirs}.attention.self.{name}.bias": f"{ours}.{own}.bias"
            for name, own in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"))
        }
        blocks = [one for one in layers(theirs) if config.attention.bias or one.theirs not in of_inputs]
        return [
            *embeddings("bert.embeddings"),
            *blocks,
            *modules({"head_layers.dense": "cls.predictions.transform.dense"}),
            *layer("head_layers.norm", "cls.predictions.transform.LayerNorm", bias=True),
            *layer("head_layers.pooler", "bert.pooler", bias=True),
            same("head_layers.bias", "cls.predictions.bias"),
        ]
