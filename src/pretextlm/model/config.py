"""The shape of a model and of its parts, in Hugging Face's names where it has one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pretextlm.config import Config
from pretextlm.data.text_template import TextTemplate
from pretextlm.errors import UserError

if TYPE_CHECKING:
    from pretextlm.data.vocabulary import Vocabulary

Activation = Literal["relu2", "relu", "gelu", "gelu_tanh", "silu"]


class NormConfig(Config):
    """Normalization of every sub-layer.

    Attributes:
        kind: "rms" (RMSNorm) or "layer" (LayerNorm).
        eps: Added to the mean square, or the variance.
        weight: Whether the normalized values are scaled.
        bias: Whether they are shifted.
        unit_offset: The weight is stored as its difference from 1 (Gemma).
        placement: "pre", before a sub-layer (pre-norm); "post", after the sum of its output and the residual stream
            (post-norm); "both", before it and on its output, before the sum (Gemma 2).
        first_layer: The first block normalizes the input of its attention; else it takes the embedding as it is
            (ModernBERT).
    """

    kind: Literal["rms", "layer"] = "rms"
    eps: float = Field(1e-6, gt=0)
    weight: bool = False
    bias: bool = False
    unit_offset: bool = False
    placement: Literal["pre", "post", "both"] = "pre"
    first_layer: bool = True


class RopeScaling(Config):
    """Rotary angles scaled so that a model reads longer texts than it was first trained on.

    Attributes:
        rope_type: "default", no scaling; "linear", all frequencies divided by `factor` (Chen et al. 2023,
            https://arxiv.org/abs/2306.15595); "llama3", only low ones (Dubey et al. 2024,
            https://arxiv.org/abs/2407.21783); "yarn", low ones too, with larger scores (Peng et al. 2023,
            https://arxiv.org/abs/2309.00071); "longrope", each by a factor of its own (Ding et al. 2024,
            https://arxiv.org/abs/2402.13753); "dynamic", a larger base for a text longer than
            `original_max_position_embeddings`, the larger the longer it is.
        factor: Divisor of frequencies.
        low_freq_factor: Turns within the original positions up to which a frequency is low (YaRN's beta_slow).
        high_freq_factor: Turns from which it is high and left as it is (YaRN's beta_fast); between the two the division
            fades.
        original_max_position_embeddings: Length of the texts that the model was first trained on.
        attention_factor: Factor of cosines and sines under "yarn" and "longrope"; 0 for their papers' formulas.
        truncate: Under "yarn", the range of fading frequencies is widened to integers.
        short_factor: Under "longrope", the divisor of each frequency in texts up to the original positions.
        long_factor: The divisors in longer texts.
    """

    rope_type: Literal["default", "linear", "llama3", "yarn", "longrope", "dynamic"] = "default"
    factor: float = Field(1.0, gt=0)
    low_freq_factor: float = Field(1.0, gt=0)
    high_freq_factor: float = Field(4.0, gt=0)
    original_max_position_embeddings: int = Field(8192, ge=1, le=1 << 24)
    attention_factor: float = Field(0.0, ge=0)
    truncate: bool = True
    short_factor: tuple[Annotated[float, Field(gt=0)], ...] = Field((), max_length=1 << 15)
    long_factor: tuple[Annotated[float, Field(gt=0)], ...] = Field((), max_length=1 << 15)

    @model_validator(mode="after")
    def _low_is_below_high(self) -> RopeScaling:
        if self.rope_type in ("llama3", "yarn") and self.low_freq_factor >= self.high_freq_factor:
            raise ValueError("rotary scaling needs low_freq_factor < high_freq_factor")
        if self.rope_type == "longrope" and self.original_max_position_embeddings < 2:
            raise ValueError("rotary scaling needs original_max_position_embeddings above 1")
        return self


class PositionConfig(Config):
    """How a model represents the position of a token in its document.

    Attributes:
        kind: "rotary" (Su et al. 2021), "learned" or "sinusoidal" (added to the embedding), "relative" (T5's learned
            bias of each distance), "disentangled" (DeBERTa's embedding of distances), "alibi" (a fixed slope per head,
            Press et al. 2022), or "none".
        rope_theta: Base of the rotary angles.
        local_rope_theta: That of layers with a sliding window, whose angles are not scaled; 0 for the same as the
            others.
        partial_rotary_factor: Share of a head's columns that are rotated.
        rope_scaling: Scaling of the rotary angles.
        max_position_embeddings: Rows of a learned or sinusoidal table; with other kinds, the length that the model was
            trained for (0 if unknown), which nothing depends on.
        offset: Row of the table for position 0 (2 in RoBERTa and BART).
        num_buckets: Of T5's bias; of a disentangled embedding, buckets to each side.
        max_distance: Distance from which on distances share the last bucket.
    """

    kind: Literal["rotary", "learned", "sinusoidal", "relative", "disentangled", "alibi", "none"] = "rotary"
    rope_theta: float = Field(10_000.0, gt=0)
    local_rope_theta: float = Field(0.0, ge=0)
    partial_rotary_factor: float = Field(1.0, gt=0, le=1)
    rope_scaling: RopeScaling = RopeScaling()
    max_position_embeddings: int = Field(0, ge=0, le=1 << 24)
    offset: int = Field(0, ge=0, le=1024)
    num_buckets: int = Field(32, ge=2, le=4096)
    max_distance: int = Field(128, ge=2, le=1 << 20)

    @model_validator(mode="after")
    def _table_has_rows(self) -> PositionConfig:
        if self.kind in ("learned", "sinusoidal") and not self.max_position_embeddings:
            raise ValueError(f"positions of kind {self.kind!r} need max_position_embeddings")
        if self.kind == "rotary" and self.rope_scaling.rope_type == "yarn" and self.rope_theta <= 1:
            raise ValueError("yarn rotary scaling needs rope_theta above 1")
        return self

    @property
    def length(self) -> int | None:
        """Tokens of the longest text that the model was made for; None if that is unknown."""
        return self.max_position_embeddings - self.offset if self.max_position_embeddings else None

    @property
    def limit(self) -> int | None:
        """Tokens of the longest text that the model can read: those of a learned table; None for any number."""
        return self.length if self.kind == "learned" else None


class AttentionConfig(Config):
    """Options of attention.

    Attributes:
        qk_norm: Queries and keys are normalized head by head before they are rotated.
        qk_norm_weight: That normalization has a weight.
        bias: The projections of queries, keys and values have a bias.
        output_bias: The output projection has a bias.
        scale: Factor of the scores; 0 for 1/√head_dim.
        softcap: Scores are bounded to ±this by tanh; 0 for no bound (Gemma 2).
        sliding_windows: Width of the window of each layer, repeated over the layers; 0 for full attention. In a causal
            model a token attends to so many tokens with itself, in another to half as many on each side.
        global_tokens: Tokens at the beginning of each document that attend to all of it and that all of it attends to,
            whatever the window (Longformer's [CLS], attention sinks).
        global_projections: Their queries, and the keys and values that these attend to, have their own projections.
        block_size: Tokens of a block of an encoder's block-sparse attention (BigBird): a token attends to its block,
            those beside it and a document's first and last, whose tokens attend to all of it; 0 for none.
        num_random_blocks: Further blocks that a token attends to; a document of at most 5 + 2 · num_random_blocks has
            full attention.
        sample_random_blocks: The random blocks are sampled, for each layer; else the first block counts so many times
            more, as in a published BigBird in eval mode.
    """

    qk_norm: bool = True
    qk_norm_weight: bool = False
    bias: bool = False
    output_bias: bool = False
    scale: float = Field(0.0, ge=0)
    softcap: float = Field(0.0, ge=0)
    sliding_windows: tuple[int, ...] = (0,)
    global_tokens: int = Field(0, ge=0, le=1024)
    global_projections: bool = False
    block_size: int = Field(0, ge=0, le=1 << 16)
    num_random_blocks: int = Field(0, ge=0, le=1024)
    sample_random_blocks: bool = False


class FeedForwardConfig(Config):
    """The feed-forward layer.

    Attributes:
        activation: Activation function.
        gated: Its output is multiplied by a second projection (GLU).
        bias: All projections have a bias.
    """

    activation: Activation = "relu2"
    gated: bool = False
    bias: bool = False


class EmbeddingConfig(Config):
    """The embedding layer.

    Attributes:
        norm: The sum of embeddings is normalized.
        scale: Factor of the tokens' embedding before the sum.
        projection_bias: The projection from embedding_size to hidden_size has a bias.
        separate_decoder: The decoder over an encoder has its own embedding layer, except for the tokens' table (BART).
    """

    norm: bool = True
    scale: float = Field(1.0, gt=0)
    projection_bias: bool = False
    separate_decoder: bool = False


class HeadConfig(Config):
    """The language-model head before its matrix.

    Attributes:
        dense: A square layer, or one from hidden_size to embedding_size (BERT).
        dense_bias: That layer has a bias.
        activation: Activation after it; "none" for nothing.
        norm: A normalization after that.
        bias: A bias of each token's logit.
        pooler: A square layer that no language model reads; published BigBirds carry one, and it is kept for export.
        scale: Factor of the hidden state before the matrix (T5 with a tied head: 1/√hidden_size).
    """

    dense: bool = False
    dense_bias: bool = True
    activation: Activation | Literal["none"] = "none"
    norm: bool = False
    bias: bool = False
    pooler: bool = False
    scale: float = Field(1.0, gt=0)


class SpecialTokenIds(Config):
    """Ids of special tokens where a model gives a role to another token than the tokenizer's names say (vocabulary.py).

    Attributes:
        pad: Padding; None for the token of that name.
        unk, cls, sep, mask: The other roles; None for the token of that name.
        bos: Begin of a text; None for the token of that name.
        eos: End of a text; the model is trained with the first of them. None for the tokens of that name.
        decoder_start: First token that a decoder over an encoder reads; None for the padding, as in T5. BART has </s>.
        forced_bos: Token that such a decoder always writes first, as <s> in some BARTs; None for none.
        template: Special tokens around one text and around two, of a published model; None for those of the objective
            or the task.
    """

    pad: int | None = Field(None, ge=0)
    unk: int | None = Field(None, ge=0)
    cls: int | None = Field(None, ge=0)
    sep: int | None = Field(None, ge=0)
    mask: int | None = Field(None, ge=0)
    bos: int | None = Field(None, ge=0)
    eos: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(None, min_length=1, max_length=64)
    decoder_start: int | None = Field(None, ge=0)
    forced_bos: int | None = Field(None, ge=0)
    template: TextTemplate | None = None

    def apply(self, vocabulary: Vocabulary) -> Vocabulary:
        """Assign these ids to their roles.

        Returns:
            The vocabulary with the roles changed.

        Raises:
            UserError: An id that the vocabulary does not have.
        """
        roles = self.model_dump(exclude={"eos", "forced_bos", "template"})
        given = {name: index for name, index in roles.items() if index is not None}
        ends = self.eos or vocabulary.ends
        around = [] if self.template is None else [i for i, _ in (*self.template.single, *self.template.pair)]
        forced = () if self.forced_bos is None else (self.forced_bos,)
        wrong = next((index for index in (*given.values(), *ends, *forced, *around) if index >= vocabulary.size), None)
        if wrong is not None:
            raise UserError(
                f"model.special_token_ids names the token {wrong}; the tokenizer has {vocabulary.size:,} tokens.",
                "Give an id that the tokenizer has.",
            )
        if self == SpecialTokenIds():
            return vocabulary
        special = vocabulary.special.union(given[name] for name in ("cls", "sep", "mask") if name in given)
        return replace(
            vocabulary, **given, eos=ends[0], also_end=ends[1:], special=special, forced=forced, template=self.template
        )


class ModelConfig(Config):
    """Shape of a model.

    Which tokens attend to which is decided by the batch, not by the model: an encoder and a decoder are the same
    blocks, and a prefix LM is a decoder whose batch has a bidirectional prefix.

    Attributes:
        architecture: "encoder", "decoder" or "encoder_decoder".
        vocab_size: Rows of the embedding; a multiple of 64 runs fastest. 0 in a recipe, which takes it from the store.
        hidden_size: Width D of the residual stream.
        embedding_size: Width of the embedding table, projected to D and back before the head; 0 for D, no projection
            (Lan et al. 2020, https://arxiv.org/abs/1909.11942).
        num_hidden_layers: Blocks; of each of the two stacks in an encoder-decoder.
        num_decoder_layers: Blocks of an encoder-decoder's second stack; 0 for as many.
        share_layers: All blocks of a stack have the same weights (ALBERT).
        num_attention_heads: H.
        num_key_value_heads: Heads of keys and values (grouped-query attention); 0 for as many as queries.
        head_dim: Width of a head; 0 for hidden_size / H.
        intermediate_size: Width F of the feed-forward layer; 0 for four times hidden_size.
        logit_softcap: Logits are bounded to ±this by tanh; 0 for no bound.
        tie_word_embeddings: The head's matrix is the embedding.
        type_vocab_size: Number of token types that are embedded (sentence A, sentence B); 0 for none. A recipe takes it
            from the objective.
        final_norm: The output of a stack is normalized.
        norm: Normalization.
        positions: Positions.
        attention: Attention.
        feed_forward: Feed-forward layers.
        embedding: Embedding layer.
        head: Language-model head.
        special_token_ids: Roles of tokens, where their names do not say them.
        sentinel_states: The encoder's state at a sentinel is added to the decoder's input at the same sentinel
            (sentinel_states.py). A recipe sets it for the default encoder-decoder, if its objective has sentinels.
        sentinel_ids: Lowest and highest id of a sentinel. A recipe takes them from the store.
    """

    section: ClassVar[str] = "model"

    architecture: Literal["encoder", "decoder", "encoder_decoder"] = "decoder"
    vocab_size: int = Field(0, ge=0, le=1 << 24)
    hidden_size: int = Field(256, ge=8, le=1 << 16)
    embedding_size: int = Field(0, ge=0, le=1 << 16)
    num_hidden_layers: int = Field(6, ge=1, le=1024)
    num_decoder_layers: int = Field(0, ge=0, le=1024)
    share_layers: bool = False
    num_attention_heads: int = Field(4, ge=1, le=1024)
    num_key_value_heads: int = Field(0, ge=0, le=1024)
    head_dim: int = Field(0, ge=0, le=1 << 16)
    intermediate_size: int = Field(0, ge=0, le=1 << 18)
    logit_softcap: float = Field(0.0, ge=0)
    tie_word_embeddings: bool = True
    type_vocab_size: int = Field(0, ge=0, le=256)
    final_norm: bool = True
    norm: NormConfig = NormConfig()
    positions: PositionConfig = PositionConfig()
    attention: AttentionConfig = AttentionConfig()
    feed_forward: FeedForwardConfig = FeedForwardConfig()
    embedding: EmbeddingConfig = EmbeddingConfig()
    head: HeadConfig = HeadConfig()
    special_token_ids: SpecialTokenIds = SpecialTokenIds()
    sentinel_states: bool = False
    sentinel_ids: tuple[int, int] = (0, 0)

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, values: Any) -> Any:
        if isinstance(values, dict):
            values = dict(values)
            width, heads = values.get("hidden_size", 256), values.get("num_attention_heads", 4)
            if not (isinstance(width, int) and isinstance(heads, int)):
                return values  # nothing follows from a wrong value, which its field refuses
            derived = {
                "num_key_value_heads": heads,
                "intermediate_size": 4 * width,
                "embedding_size": width,
                "num_decoder_layers": values.get("num_hidden_layers", 6),
            }
            values |= {name: value for name, value in derived.items() if not values.get(name)}
            if not values.get("head_dim"):
                if heads and width % heads:
                    raise ValueError(f"hidden_size {width} does not divide into {heads} heads")
                values["head_dim"] = width // heads if heads else 0
        return values

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if self.positions.kind == "rotary" and int(self.head_dim * self.positions.partial_rotary_factor) % 2:
            raise ValueError("rotary positions need an even head width (hidden_size / num_attention_heads)")
        if self.positions.kind == "rotary" and self.positions.rope_scaling.rope_type in ("longrope", "dynamic"):
            scaling, pairs = self.positions.rope_scaling, int(self.head_dim * self.positions.partial_rotary_factor) // 2
            if scaling.rope_type == "longrope" and {len(scaling.short_factor), len(scaling.long_factor)} != {pairs}:
                raise ValueError(f"rotary scaling needs {pairs} numbers in short_factor and in long_factor")
            if scaling.rope_type == "dynamic" and pairs < 2:
                raise ValueError("dynamic rotary scaling needs heads wider than 2")
        if self.attention.block_size:
            if self.architecture != "encoder":
                raise ValueError(f"attention.block_size is for an encoder; this is {self.architecture!r}")
            if self.positions.kind in ("relative", "alibi", "disentangled") or any(self.attention.sliding_windows):
                raise ValueError(
                    "attention.block_size goes with neither sliding_windows nor positions that are a bias of scores"
                )
        if self.sentinel_states and self.architecture != "encoder_decoder":
            raise ValueError(f"sentinel_states are of an encoder-decoder; this is {self.architecture!r}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
        return self

    def layers(self, stack: Literal["encoder", "decoder"]) -> int:
        """Returns the number of blocks of a stack."""
        second = self.architecture == "encoder_decoder" and stack == "decoder"
        return self.num_decoder_layers if second else self.num_hidden_layers
