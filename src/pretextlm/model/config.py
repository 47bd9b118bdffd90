"""The shape of the one trunk, in Hugging Face's names."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from pretextlm.config import Config


class ModelConfig(Config):
    """Shape of a model. Which tokens see which is the batch's affair, not the model's: an encoder and a decoder
    are the same blocks, and a prefix LM is a decoder whose batch has a bidirectional prefix.

    Attributes:
        architecture: "encoder", "decoder" or "encoder_decoder".
        vocab_size: rows of the embedding; a multiple of 64 runs fastest. 0 in a recipe: taken from the store.
        hidden_size: width D of the residual stream.
        embedding_size: width of the embedding table, projected to D and back before the head; 0: D, no projection
            (Lan et al. 2020, https://arxiv.org/abs/1909.11942).
        num_hidden_layers: blocks; of each of the two stacks in an encoder-decoder.
        num_attention_heads: H; hidden_size / H is the head's width.
        num_key_value_heads: heads of keys and values (grouped-query attention); 0: as many as queries.
        intermediate_size: width F of the feed-forward layer; 0: four times hidden_size.
        rope_theta: base of the rotary angles.
        norm_eps: added to the mean square in RMSNorm.
        logit_softcap: logits are bounded to ±this by tanh; 0: not bounded.
        tie_word_embeddings: the head's matrix is the embedding.
        type_vocab_size: kinds of token types that are embedded (sentence A, sentence B); 0: none. A recipe takes it
            from the objective.
    """

    architecture: Literal["encoder", "decoder", "encoder_decoder"] = "decoder"
    vocab_size: int = Field(0, ge=0, le=1 << 24)
    hidden_size: int = Field(256, ge=8, le=1 << 16)
    embedding_size: int = Field(0, ge=0, le=1 << 16)
    num_hidden_layers: int = Field(6, ge=1, le=1024)
    num_attention_heads: int = Field(4, ge=1, le=1024)
    num_key_value_heads: int = Field(0, ge=0, le=1024)
    intermediate_size: int = Field(0, ge=0, le=1 << 18)
    rope_theta: float = Field(10_000.0, gt=0)
    norm_eps: float = Field(1e-6, gt=0)
    logit_softcap: float = Field(0.0, ge=0)
    tie_word_embeddings: bool = True
    type_vocab_size: int = Field(0, ge=0, le=256)

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, values: Any) -> Any:
        if isinstance(values, dict):
            values = dict(values)
            if not values.get("num_key_value_heads"):
                values["num_key_value_heads"] = values.get("num_attention_heads", 4)
            if not values.get("intermediate_size"):
                values["intermediate_size"] = 4 * values.get("hidden_size", 256)
            if not values.get("embedding_size"):
                values["embedding_size"] = values.get("hidden_size", 256)
        return values

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} does not divide into {self.num_attention_heads} heads")
        if (self.hidden_size // self.num_attention_heads) % 2:
            raise ValueError("rotary positions need an even head width (hidden_size / num_attention_heads)")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
        return self

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads
