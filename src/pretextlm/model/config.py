"""The shape of the one trunk and of its parts, in Hugging Face's names where it has one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pretextlm.config import Config
from pretextlm.errors import UserError

if TYPE_CHECKING:
    from pretextlm.data.vocabulary import Vocabulary

Activation = Literal["relu2", "relu", "gelu", "gelu_tanh", "silu"]


class NormConfig(Config):
    """Normalisation of every sub-layer.

    Attributes:
        kind: "rms" (RMSNorm) or "layer" (LayerNorm).
        eps: added to the mean square, or the variance.
        weight, bias: whether it scales and shifts what it has normalised.
        around_one: the weight is kept as its difference from 1 (Gemma).
        place: "before" a sub-layer (pre-norm), "after" the sum of its output and the residual stream (post-norm), or
            "both" before it and on its output, before the sum (Gemma 2).
        first: the first block normalises what its attention reads; else it takes the embedding as it is (ModernBERT).
    """

    kind: Literal["rms", "layer"] = "rms"
    eps: float = Field(1e-6, gt=0)
    weight: bool = False
    bias: bool = False
    around_one: bool = False
    place: Literal["before", "after", "both"] = "before"
    first: bool = True


class RotaryScaling(Config):
    """Rotary angles stretched, so that a model reads longer texts than it was first trained on.

    Attributes:
        kind: "none"; "linear", all frequencies divided by `factor` (Chen et al. 2023, https://arxiv.org/abs/2306.15595);
            "llama3", only low ones (Dubey et al. 2024, https://arxiv.org/abs/2407.21783); "yarn", low ones too, with
            larger scores (Peng et al. 2023, https://arxiv.org/abs/2309.00071); "longrope", each by a factor of its own
            (Ding et al. 2024, https://arxiv.org/abs/2402.13753); "dynamic", a larger base for a text longer than
            `original_positions`, the larger the longer it is.
        factor: what frequencies are divided by.
        low, high: turns within `original_positions` up to which a frequency is low, and from which it is high and
            left as it is; between the two the division fades.
        original_positions: length of the texts that the model was first trained on.
        attention_factor: of cosines and sines under "yarn" and "longrope"; 0: by their papers' formulas.
        whole_range: under "yarn", the range of fading frequencies is widened to whole numbers of frequencies.
        short_factors, long_factors: under "longrope", what each frequency is divided by in texts up to
            `original_positions`, and in longer ones.
    """

    kind: Literal["none", "linear", "llama3", "yarn", "longrope", "dynamic"] = "none"
    factor: float = Field(1.0, gt=0)
    low: float = Field(1.0, gt=0)
    high: float = Field(4.0, gt=0)
    original_positions: int = Field(8192, ge=1, le=1 << 24)
    attention_factor: float = Field(0.0, ge=0)
    whole_range: bool = True
    short_factors: tuple[Annotated[float, Field(gt=0)], ...] = Field((), max_length=1 << 15)
    long_factors: tuple[Annotated[float, Field(gt=0)], ...] = Field((), max_length=1 << 15)

    @model_validator(mode="after")
    def _low_is_below_high(self) -> RotaryScaling:
        if self.kind in ("llama3", "yarn") and self.low >= self.high:
            raise ValueError("rotary scaling needs low < high")
        if self.kind == "longrope" and self.original_positions < 2:
            raise ValueError("rotary scaling needs original_positions above 1")
        return self


class PositionConfig(Config):
    """How a model knows where a token stands in its document.

    Attributes:
        kind: "rotary" (Su et al. 2021), "learned" or "sinusoidal" (added to the embedding), "relative" (T5's learned
            bias of each distance), "disentangled" (DeBERTa's table of distances), "alibi" (a fixed slope per head,
            Press et al. 2022), or "none".
        theta: base of the rotary angles.
        local_theta: that of layers with a window, whose angles are not scaled; 0: theta, and as the others.
        partial_rotary_factor: share of a head's width that is turned.
        scaling: of the rotary angles.
        max_positions: rows of a learned or sinusoidal table; with other kinds, how long a text the model was made for
            (0: not said), which nothing depends on.
        offset: row of the table that position 0 has (2 in RoBERTa and BART).
        buckets, max_distance: of T5's bias: distances from max_distance on share the last of the buckets; of a
            disentangled table: buckets to each side, and the distance from which they are full.
    """

    kind: Literal["rotary", "learned", "sinusoidal", "relative", "disentangled", "alibi", "none"] = "rotary"
    theta: float = Field(10_000.0, gt=0)
    local_theta: float = Field(0.0, ge=0)
    partial_rotary_factor: float = Field(1.0, gt=0, le=1)
    scaling: RotaryScaling = RotaryScaling()
    max_positions: int = Field(0, ge=0, le=1 << 24)
    offset: int = Field(0, ge=0, le=1024)
    buckets: int = Field(32, ge=2, le=4096)
    max_distance: int = Field(128, ge=2, le=1 << 20)

    @model_validator(mode="after")
    def _table_has_rows(self) -> PositionConfig:
        if self.kind in ("learned", "sinusoidal") and not self.max_positions:
            raise ValueError(f"positions of kind {self.kind!r} need max_positions")
        if self.kind == "rotary" and self.scaling.kind == "yarn" and self.theta <= 1:
            raise ValueError("yarn rotary scaling needs theta above 1")
        return self


class AttentionConfig(Config):
    """What differs between attentions.

    Attributes:
        qk_norm: queries and keys are normalised head by head before they are turned.
        head_norm_weight: that normalisation has a weight.
        bias: of the three input projections; output_bias: of the output's.
        scale: factor of the scores; 0: 1/√head_dim.
        softcap: scores are bounded to ±this by tanh; 0: not bounded (Gemma 2).
        windows: how far a token sees, layer by layer, repeated over the layers; 0: everywhere. A causal model sees so
            many tokens with its own, another half as many to each side of its own.
        global_tokens: tokens at the beginning of each document that see all of it and are seen by all of it, whatever
            the window (Longformer's [CLS], attention sinks).
        global_projections: their queries, and the keys and values that these look at, have projections of their own.
        block_size: tokens of a block of an encoder's block-sparse visibility (BigBird): a token sees its block, those
            beside it and a document's first and last, whose tokens see all of it; 0: not in blocks.
        random_blocks: further blocks that a token sees; a document of at most 5 + 2 · random_blocks is read as a whole.
        draw_blocks: the random blocks are drawn, for each layer; else the first block counts so many times more, as
            in a published BigBird outside of training.
    """

    qk_norm: bool = True
    head_norm_weight: bool = False
    bias: bool = False
    output_bias: bool = False
    scale: float = Field(0.0, ge=0)
    softcap: float = Field(0.0, ge=0)
    windows: tuple[int, ...] = (0,)
    global_tokens: int = Field(0, ge=0, le=1024)
    global_projections: bool = False
    block_size: int = Field(0, ge=0, le=1 << 16)
    random_blocks: int = Field(0, ge=0, le=1024)
    draw_blocks: bool = False


class FeedForwardConfig(Config):
    """Attributes: activation; gated: its output is multiplied by a second projection (GLU); bias: of all."""

    activation: Activation = "relu2"
    gated: bool = False
    bias: bool = False


class EmbeddingConfig(Config):
    """Attributes: norm: the sum of embeddings is normalised; scale: factor of the tokens' embedding before the sum;
    projection_bias: of the projection from embedding_size to hidden_size; apart: the decoder over an encoder has all
    but the tokens' table for itself (BART)."""

    norm: bool = True
    scale: float = Field(1.0, gt=0)
    projection_bias: bool = False
    apart: bool = False


class HeadConfig(Config):
    """The language-model head before its matrix.

    Attributes:
        dense: a square layer, or one from hidden_size to embedding_size (BERT); dense_bias: it has a bias.
        activation: after it; "none" for nothing.
        norm: a normalisation after that.
        bias: one number for each token on top of its score.
        pooler: a square layer that no language model reads; published BigBirds carry one, and it is kept as it is.
        scale: factor of the hidden state before the matrix (T5 with a tied head: 1/√hidden_size).
    """

    dense: bool = False
    dense_bias: bool = True
    activation: Activation | Literal["none"] = "none"
    norm: bool = False
    bias: bool = False
    pooler: bool = False
    scale: float = Field(1.0, gt=0)


class SpecialIds(Config):
    """Ids of special tokens where a model gives a role to another token than the tokenizer's names say (vocabulary.py).

    Attributes:
        pad, bos: None: by name.
        eos: those that end a text, the first of which it is trained with; None: by name.
        decoder_start: what a decoder over an encoder reads first; None: the padding, as in T5. BART has </s>.
    """

    pad: int | None = Field(None, ge=0)
    bos: int | None = Field(None, ge=0)
    eos: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(None, min_length=1, max_length=64)
    decoder_start: int | None = Field(None, ge=0)

    def roles(self, vocabulary: Vocabulary) -> Vocabulary:
        """The vocabulary with these ids in their roles. Raises UserError for one that it does not have."""
        given = {name: index for name, index in self.model_dump(exclude={"eos"}).items() if index is not None}
        ends = self.eos or vocabulary.ends
        wrong = next((index for index in (*given.values(), *ends) if index >= vocabulary.size), None)
        if wrong is not None:
            raise UserError(
                f"model.special_ids names the token {wrong}; the tokenizer has {vocabulary.size:,} tokens.",
                "Give an id that the tokenizer has.",
            )
        return replace(vocabulary, **given, eos=ends[0], also_end=ends[1:]) if given or self.eos else vocabulary


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
        num_decoder_layers: blocks of an encoder-decoder's second stack; 0: as many.
        shared_layers: all blocks of a stack have the same weights (ALBERT).
        num_attention_heads: H.
        num_key_value_heads: heads of keys and values (grouped-query attention); 0: as many as queries.
        head_dim: width of a head; 0: hidden_size / H.
        intermediate_size: width F of the feed-forward layer; 0: four times hidden_size.
        logit_softcap: logits are bounded to ±this by tanh; 0: not bounded.
        tie_word_embeddings: the head's matrix is the embedding.
        type_vocab_size: kinds of token types that are embedded (sentence A, sentence B); 0: none. A recipe takes it
            from the objective.
        final_norm: the output of a stack is normalised.
        norm, positions, attention, feed_forward, embedding, head: the parts; by default those that measurements favour.
        special_ids: roles of tokens, where their names do not tell them.
    """

    section: ClassVar[str] = "model"

    architecture: Literal["encoder", "decoder", "encoder_decoder"] = "decoder"
    vocab_size: int = Field(0, ge=0, le=1 << 24)
    hidden_size: int = Field(256, ge=8, le=1 << 16)
    embedding_size: int = Field(0, ge=0, le=1 << 16)
    num_hidden_layers: int = Field(6, ge=1, le=1024)
    num_decoder_layers: int = Field(0, ge=0, le=1024)
    shared_layers: bool = False
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
    special_ids: SpecialIds = SpecialIds()

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, values: Any) -> Any:
        if isinstance(values, dict):
            values = dict(values)
            width, heads = values.get("hidden_size", 256), values.get("num_attention_heads", 4)
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
        if self.positions.kind == "rotary" and self.positions.scaling.kind in ("longrope", "dynamic"):
            pairs, scaling = int(self.head_dim * self.positions.partial_rotary_factor) // 2, self.positions.scaling
            if scaling.kind == "longrope" and {len(scaling.short_factors), len(scaling.long_factors)} != {pairs}:
                raise ValueError(f"rotary scaling needs {pairs} short_factors and long_factors, half a head's width")
            if scaling.kind == "dynamic" and pairs < 2:
                raise ValueError("dynamic rotary scaling needs heads wider than 2")
        if self.attention.block_size:
            if self.architecture != "encoder":
                raise ValueError(f"attention.block_size is for an encoder; this is {self.architecture!r}")
            if self.positions.kind in ("relative", "alibi", "disentangled") or any(self.attention.windows):
                raise ValueError(
                    "attention.block_size goes with neither windows nor positions that are a bias of scores"
                )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
        return self

    def layers(self, stack: Literal["encoder", "decoder"]) -> int:
        """Blocks of a stack."""
        second = self.architecture == "encoder_decoder" and stack == "decoder"
        return self.num_decoder_layers if second else self.num_hidden_layers
