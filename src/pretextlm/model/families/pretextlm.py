"""Our own Transformer in an exported directory, with its code beside it (hf/custom_code/modeling_pretextlm.py).

config.json has the values and tables of `ModelConfig` under the same names. Parameters have our names, put under the
modules that Hugging Face's classes have:

    embed_tokens.weight                  model.encoder.embed_tokens.weight (model.decoder. in a decoder)
    embedding.norm.weight                model.encoder.embedding.norm.weight
    decoder.0.self_attn.q_proj.weight    model.decoder.layers.0.self_attn.q_proj.weight
    decoder_norm.weight                  model.decoder.norm.weight
    head_layers.dense.weight             head_layers.dense.weight
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal, cast

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import Family
from pretextlm.model.families.shared.task_classes import HEAD_FORM, Form, Kind, TaskClass
from pretextlm.model.families.shared.tensor_maps import TensorMap, same
from pretextlm.model.rotary import LENGTH_DEPENDENT, UNSCALED, attention_factor, fixed_frequencies

NAME = "pretextlm"
SHAPE = (
    "architecture",
    "vocab_size",
    "hidden_size",
    "embedding_size",
    "num_hidden_layers",
    "share_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "logit_softcap",
    "tie_word_embeddings",
    "type_vocab_size",
    "final_norm",
    "sentinel_states",
    "sentinel_ids",
)
TABLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "norm": ("kind", "eps", "weight", "bias", "unit_offset", "placement", "first_layer"),
        "positions": (
            "kind",
            "rope_theta",
            "local_rope_theta",
            "partial_rotary_factor",
            "rope_scaling",
            "max_position_embeddings",
            "offset",
            "num_buckets",
            "max_distance",
        ),
        "attention": ("qk_norm", "qk_norm_weight", "bias", "output_bias", "scale", "softcap", "sliding_windows"),
        "feed_forward": ("activation", "gated", "bias"),
        "embedding": ("norm", "scale", "projection_bias", "separate_decoder"),
        "head": ("dense", "dense_bias", "activation", "norm", "bias", "scale"),
    }
)
"""Values of a table that the code beside a model has."""


def unsupported(config: ModelConfig) -> str | None:
    """Returns why a model of this shape cannot be written with its code; None where it can."""
    positions, attention = config.positions, config.attention
    if positions.kind == "disentangled":
        return "disentangled positions (DeBERTa) are not in the code that is written beside it"
    if positions.kind == "rotary" and positions.rope_scaling.rope_type in LENGTH_DEPENDENT:
        return f"rotary scaling {positions.rope_scaling.rope_type!r} is not in the code that is written beside it"
    if attention.block_size or attention.global_tokens:
        return "block-sparse attention and global tokens are not in the code that is written beside it"
    if config.head.pooler:
        return "a pooler that no language model reads is not in the code that is written beside it"
    return None


class PretextLM(Family):
    """Models of the default trunk, and others that no published family has a place for."""

    name: ClassVar[str] = NAME
    prefix: ClassVar[str] = "model."
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "PretextForMaskedLM": "encoder",
        "PretextForCausalLM": "decoder",
        "PretextForSeq2SeqLM": "encoder_decoder",
    }
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = {
        "sequence": TaskClass("PretextForSequenceClassification", "classifier", "pooler", "tanh"),
        "choice": TaskClass("PretextForMultipleChoice", "classifier", "pooler", "tanh"),
        "token": TaskClass("PretextForTokenClassification", "classifier"),
        "span": TaskClass("PretextForQuestionAnswering", "classifier"),
    }

    def config_from_hf(self, values: Mapping[str, Any]) -> ModelConfig:
        """Convert a config.json, whose names and values are ours."""
        found: dict[str, Any] = {name: values[name] for name in SHAPE if name in values}
        for table, names in TABLES.items():
            found[table] = {name: values[table][name] for name in names if name in values.get(table, {})}
        if "decoder_layers" in values:
            found["num_decoder_layers"] = values["decoder_layers"]
        return ModelConfig.parse(found, "config.json")

    def config_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        """Convert a shape to the values of a config.json.

        Raises:
            UserError: A part that the code beside the model does not have.
        """
        reason = unsupported(config)
        if reason is not None:
            raise UserError(f"This model cannot leave as {NAME!r}: {reason}.", "Export it as another family.")
        plain = config.model_dump(mode="json")
        values = {name: plain[name] for name in SHAPE}
        values |= {table: {name: plain[table][name] for name in names} for table, names in TABLES.items()}
        del values["positions"]["rope_scaling"]
        if config.positions.kind == "rotary" and config.positions.rope_scaling != UNSCALED:
            values["positions"] |= _scaled(config)
        if config.architecture == "encoder_decoder":
            values["decoder_layers"] = config.num_decoder_layers
        main = next(name for name, kind in self.classes.items() if kind == config.architecture)
        is_pair = config.architecture == "encoder_decoder"
        return {**values, "model_type": NAME, "architectures": [main], "is_encoder_decoder": is_pair}

    def task_class(self, kind: Kind, form: str) -> TaskClass | None:
        """Returns the class with a head of this form, which config.json tells its code."""
        found = self.task_classes.get(kind)
        if found is None or not found.dense:
            return found
        settings = {HEAD_FORM: form or "tanh"}
        if form == "plain":
            return replace(found, dense="", form="plain", bias=False, settings=settings)
        return replace(found, form=cast(Form, form or "tanh"), settings=settings)

    def maps(self, config: ModelConfig) -> list[TensorMap]:
        """Returns the map of every tensor of a model of this shape: its own names, each under a module."""
        from pretextlm.model.transformer import meta_model

        return [same(name, _published_name(config, name)) for name in meta_model(config).state_dict()]


def _scaled(config: ModelConfig) -> dict[str, Any]:
    """Returns the scaling of rotary angles, and the frequencies that it gives, which the code reads."""
    positions, scaling = config.positions, config.positions.rope_scaling
    width = int(config.head_dim * positions.partial_rotary_factor)
    frequencies = fixed_frequencies(width, positions.rope_theta, scaling).tolist()
    return {
        "rope_scaling": scaling.model_dump(mode="json"),
        "rope_frequencies": frequencies,
        "rope_attention_factor": attention_factor(scaling),
    }


def _published_name(config: ModelConfig, name: str) -> str:
    if name.startswith(("head_layers.", "lm_head.")):
        return name
    first = "decoder" if config.architecture == "decoder" else "encoder"
    name = re.sub(r"^(embed_tokens|embedding)\.", rf"{first}.\1.", name)
    name = re.sub(r"^(encoder|decoder)\.(\d+)\.", r"\1.layers.\2.", name)
    name = re.sub(r"^(encoder|decoder)_norm\.", r"\1.norm.", name)
    name = re.sub(r"^(encoder|decoder)_bias\.", r"\1.position_bias.", name)
    return f"model.{re.sub(r'^decoder_embedding.', 'decoder.embedding.', name)}"
