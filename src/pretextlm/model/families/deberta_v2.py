"""DeBERTa-v2 and v3 (He et al. 2021, https://arxiv.org/abs/2006.03654, https://arxiv.org/abs/2111.09543).

Disentangled attention with shared projections, no positions in the embedding, otherwise as BERT. The enhanced mask
decoder is not part of the published checkpoints' masked head as transformers reads it, and so not of this map; neither
is the convolution of the largest v2 models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import Family
from pretextlm.model.families.bert import SAME, activation_from_hf, activation_to_hf
from pretextlm.model.families.shared.task_classes import Kind, TaskClass, encoder_classes
from pretextlm.model.families.shared.tensor_maps import TensorMap, layer, same

SCORE_TERMS = 3
"""Terms of a score: content to content, content to position, position to content."""

NEEDED = {
    "relative_attention": True,
    "share_att_key": True,
    "position_biased_input": False,
    "norm_rel_ebd": "layer_norm",
    "conv_kernel_size": 0,
}
"""Options of v3 and the smaller v2 models, which our transformer has."""


class DebertaV2(Family):
    """deberta-v2: encoder with disentangled attention."""

    name: ClassVar[str] = "deberta-v2"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "DebertaV2ForMaskedLM": "encoder",
        "DebertaV2Model": "encoder",
    }
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = encoder_classes(
        "DebertaV2", "pooler.dense", "classifier", "gelu"
    )
    prefix: ClassVar[str] = "deberta."
    copies: ClassVar[Mapping[str, str]] = {
        "cls.predictions.decoder.weight": "embed_tokens.weight",
        "cls.predictions.decoder.bias": "head_layers.bias",
    }
    ignored: ClassVar[tuple[str, ...]] = (r"position_ids$",)

    def config_from_hf(self, values: Mapping[str, Any]) -> ModelConfig:
        have = {key: values.get(key, 0 if key == "conv_kernel_size" else None) for key in NEEDED}
        wrong = [key for key, needed in NEEDED.items() if have[key] != needed]
        kinds = values.get("pos_att_type") or []
        kinds = kinds.split("|") if isinstance(kinds, str) else kinds
        if wrong or sorted(kinds) != ["c2p", "p2c"] or values.get("position_buckets", -1) < 1:
            raise UserError(
                f"A DeBERTa with {wrong[0] if wrong else 'such positions'} as in this config.json is not known.",
                "Known: DeBERTa-v3 and the v2 models without a convolution.",
            )
        width, heads = values["hidden_size"], values["num_attention_heads"]
        if values.get("embedding_size", width) != width:
            raise UserError("A DeBERTa with an embedding_size of its own is not known.", "Known: DeBERTa-v3.")
        farthest = values.get("max_relative_positions", -1)
        act = activation_from_hf(values["hidden_act"])
        return ModelConfig.parse(
            {
                "architecture": "encoder",
                **{key: values[key] for key in SAME},
                "final_norm": False,
                "norm": {
                    "kind": "layer",
                    "eps": values["layer_norm_eps"],
                    "weight": True,
                    "bias": True,
                    "placement": "post",
                },
                "positions": {
                    "kind": "disentangled",
                    "num_buckets": values["position_buckets"],
                    "max_distance": farthest if farthest > 0 else values["max_position_embeddings"],
                    "max_position_embeddings": values["max_position_embeddings"],
                },
                "attention": {
                    "qk_norm": False,
                    "bias": True,
                    "output_bias": True,
                    "scale": 1 / math.sqrt(SCORE_TERMS * (width // heads)),
                },
                "feed_forward": {"activation": act, "bias": True},
                "head": {"dense": True, "activation": act, "norm": True, "bias": True},
            }
        )

    def config_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        if config.positions.kind != "disentangled":
            raise UserError("A DeBERTa has disentangled positions.", "Export it as another family.")
        farthest = config.positions.max_distance
        return {
            "model_type": self.name,
            "architectures": [next(iter(self.classes))],
            **{key: getattr(config, key) for key in SAME},
            "hidden_act": activation_to_hf(config.feed_forward.activation),
            "layer_norm_eps": config.norm.eps,
            "max_position_embeddings": config.positions.max_position_embeddings or config.positions.max_distance,
            "max_relative_positions": -1 if farthest == config.positions.max_position_embeddings else farthest,
            "position_buckets": config.positions.num_buckets,
            "pos_att_type": ["p2c", "c2p"],
            "tie_word_embeddings": config.tie_word_embeddings,
            **{key: value for key, value in NEEDED.items() if value},
            "position_biased_input": False,
        }

    def maps(self, config: ModelConfig) -> list[TensorMap]:
        block, theirs = "encoder.{i}", "deberta.encoder.layer.{i}"
        modules = {
            "embedding.norm": "deberta.embeddings.LayerNorm",
            "encoder_bias.norm": "deberta.encoder.LayerNorm",
            f"{block}.self_attn.q_proj": f"{theirs}.attention.self.query_proj",
            f"{block}.self_attn.k_proj": f"{theirs}.attention.self.key_proj",
            f"{block}.self_attn.v_proj": f"{theirs}.attention.self.value_proj",
            f"{block}.self_attn.o_proj": f"{theirs}.attention.output.dense",
            f"{block}.self_attn_norm.last": f"{theirs}.attention.output.LayerNorm",
            f"{block}.mlp.up_proj": f"{theirs}.intermediate.dense",
            f"{block}.mlp.down_proj": f"{theirs}.output.dense",
            f"{block}.mlp_norm.last": f"{theirs}.output.LayerNorm",
            "head_layers.dense": "cls.predictions.transform.dense",
            "head_layers.norm": "cls.predictions.transform.LayerNorm",
        }
        return [
            same("embed_tokens.weight", "deberta.embeddings.word_embeddings.weight"),
            same("embedding.types.weight", "deberta.embeddings.token_type_embeddings.weight"),
            same("encoder_bias.weight", "deberta.encoder.rel_embeddings.weight"),
            *(one for ours, name in modules.items() for one in layer(ours, name, bias=True)),
            same("head_layers.bias", "cls.predictions.bias"),
        ]
