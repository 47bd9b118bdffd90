"""The rivals: transformers' own classes and decoders of others, in the number format and compiler that suit them best.

Their loop is as lean as a loop can be: batches are made before the clock starts, AdamW is the fused one, nothing is
logged. transformers' Trainer does more than this and is a rival of its own (hf_trainer.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from benchmarks.training import decoders
from benchmarks.training.scaled_adamw import ScaledAdamW
from benchmarks.training.setting import Setting
from torch import Tensor, nn

from pretextlm.batch import Batch

CLASSES = {"causal": "GPT2LMHeadModel", "masked": "BertForMaskedLM", "span_corruption": "T5ForConditionalGeneration"}
MODERN_BERT = "ModernBertForMaskedLM"
"""The masked objective's other class in transformers: pre-norm, rotary positions, gated layers, local attention."""
NUMBERS = {"fp32": "fp32", "autocast": "autocast", "bf16": "bf16 weights"}


@dataclass(frozen=True)
class Format:
    """How a rival runs.

    Attributes:
        numbers: "fp32"; "autocast" (weights fp32, products bf16); "bf16" (weights, too).
        compiled: torch.compile over the whole model.
        attention: transformers' attn_implementation.
        feed_forward: T5's kind, "relu" or "gated-gelu", with the same number of weights.
        dynamic: torch.compile's argument, for lengths that vary.
        optimizer: "adamw", or "scaled", nanoT5's.
        beta2, weight_decay: of AdamW; decay is of matrices alone.
        model: "transformers" (the class of CLASSES), MODERN_BERT, or one of `decoders`.
    """

    numbers: str = "fp32"
    compiled: bool = False
    attention: str = "sdpa"
    feed_forward: str = "gated-gelu"
    dynamic: bool | None = None
    optimizer: str = "adamw"
    beta2: float = 0.999
    weight_decay: float = 0.0
    model: str = "transformers"

    def name(self, objective: str) -> str:
        """The model's, and the optimizer's where it is not the usual one."""
        model = CLASSES[objective] if self.model == "transformers" else decoders.NAMES.get(self.model, self.model)
        return f"{model}, nanoT5-style" if self.optimizer == "scaled" else model

    def label(self, objective: str) -> str:
        """Name and all that may change its speed."""
        words = [self.name(objective), NUMBERS[self.numbers], "compiled" if self.compiled else "eager"]
        if self.model not in decoders.NAMES:
            words.append("fused attention" if self.attention == "sdpa" else "written-out attention")
        return ", ".join([*words, self.feed_forward] if objective == "span_corruption" else words)


def build(setting: Setting, vocabulary: int, form: Format, seed: int = 0) -> nn.Module:
    """The rival's model with its own initial weights and no dropout, in training mode."""
    transformers.logging.set_verbosity_error()
    torch.manual_seed(seed)
    if form.model in decoders.NAMES:
        model = decoders.build(form.model, setting, vocabulary)
    else:
        name = CLASSES[setting.objective] if form.model == "transformers" else form.model
        config = CONFIGS[name](setting, vocabulary, form)
        config._attn_implementation = form.attention
        model = getattr(transformers, name)(config)
    return model.to(torch.bfloat16 if form.numbers == "bf16" else torch.float32).train()


def loss_of(output: Any) -> Tensor:
    """What a rival's forward pass gives, as a loss."""
    loss: Tensor = output if isinstance(output, Tensor) else output.loss
    return loss


def _gpt2(setting: Setting, vocabulary: int, form: Format) -> Any:
    return transformers.GPT2Config(
        vocab_size=vocabulary,
        n_positions=setting.length,
        n_embd=setting.hidden,
        n_layer=setting.layers,
        n_head=setting.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
    )


def _bert(setting: Setting, vocabulary: int, form: Format) -> Any:
    return transformers.BertConfig(
        vocab_size=vocabulary,
        hidden_size=setting.hidden,
        num_hidden_layers=setting.layers,
        num_attention_heads=setting.heads,
        intermediate_size=4 * setting.hidden,
        max_position_embeddings=setting.length,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def _modern_bert(setting: Setting, vocabulary: int, form: Format) -> Any:
    return transformers.ModernBertConfig(
        vocab_size=vocabulary,
        hidden_size=setting.hidden,
        intermediate_size=_gated_width(setting),
        num_hidden_layers=setting.layers,
        num_attention_heads=setting.heads,
        max_position_embeddings=setting.length,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
    )


def _t5(setting: Setting, vocabulary: int, form: Format) -> Any:
    width = _gated_width(setting) if form.feed_forward.startswith("gated") else 4 * setting.hidden
    return transformers.T5Config(
        vocab_size=vocabulary,
        d_model=setting.hidden,
        d_kv=setting.hidden // setting.heads,
        d_ff=width,
        num_layers=setting.layers // 2,
        num_decoder_layers=setting.layers // 2,
        num_heads=setting.heads,
        dropout_rate=0.0,
        feed_forward_proj=form.feed_forward,
        use_cache=False,
    )


def _gated_width(setting: Setting) -> int:
    """Of three matrices with as many weights as two of four times the model's width."""
    return round(8 * setting.hidden / 3 / 64) * 64


CONFIGS = {
    "GPT2LMHeadModel": _gpt2,
    "BertForMaskedLM": _bert,
    MODERN_BERT: _modern_bert,
    "T5ForConditionalGeneration": _t5,
}
"""By class, what makes its configuration."""


def feed(objective: str, batch: Batch) -> dict[str, Tensor]:
    """Our batch as the rival's keyword arguments: the same tokens, the same targets."""
    if objective == "span_corruption":
        names = {"input_ids": "input_ids", "decoder_input_ids": "decoder_input_ids", "labels": "decoder_labels"}
    else:
        names = {"input_ids": "input_ids", "labels": "labels"}
    fed = {theirs: _long(getattr(batch, ours)) for theirs, ours in names.items()}
    if objective == "causal":
        fed["shift_labels"] = fed["labels"]  # ours are aligned already; without this the class shifts them
    return fed


def _long(array: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))


def optimizer_of(parameters: Sequence[nn.Parameter], form: Format, learning_rate: float) -> torch.optim.Optimizer:
    """As the format says."""
    if form.optimizer == "scaled":
        return ScaledAdamW(parameters, learning_rate)
    matrices, rest = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": form.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, betas=(0.9, form.beta2), fused=True)


class PeerTrainer:
    """A plain training loop around the rival."""

    def __init__(self, model: nn.Module, form: Format, learning_rate: float) -> None:
        self.model, self.form = model, form
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = optimizer_of(self.parameters, form, learning_rate)
        self.forward = torch.compile(model, dynamic=form.dynamic) if form.compiled else model

    def step(self, batches: Sequence[dict[str, Tensor]], learning_rate: float | None = None) -> float:
        """One global step; returns the mean loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate or group["lr"]
        total = 0.0
        for batch in batches:
            with self.numbers():
                loss = loss_of(self.forward(**batch)) / len(batches)
            loss.backward()
            total += float(loss.detach())
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total

    def numbers(self) -> AbstractContextManager[Any]:
        """The context in which the model computes."""
        return torch.autocast("cpu", torch.bfloat16) if self.form.numbers == "autocast" else nullcontext()
