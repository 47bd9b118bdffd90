"""Random fine-tuned models of published families, and runs that are fine-tuned from them."""

from __future__ import annotations

import json

import pytest
from tests.foreign import BERT, word_pieces
from tests.parity.families import randomised

from pretextlm.data.offset_mapping import OffsetTokenizer
from pretextlm.data.records import read_records
from pretextlm.evaluation.task_evaluation import predictions
from pretextlm.hf.import_model import import_model
from pretextlm.model.families.registry import FAMILIES as REGISTRY
from pretextlm.training.initial_weights import with_start
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

SHAPE = {name: value for name, value in BERT.items() if name not in ("model_type", "architectures")}
GPT = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96, "pad_token_id": 0}
LLAMA = {
    **{name: SHAPE[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")},
    "intermediate_size": 48,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}
CONFIGS = {
    "albert": ("AlbertConfig", {**SHAPE, "embedding_size": 16}),
    "bert": ("BertConfig", SHAPE),
    "deberta-v2": (
        "DebertaV2Config",
        {
            **SHAPE,
            "type_vocab_size": 0,
            "relative_attention": True,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": "p2c|c2p",
            "position_biased_input": False,
            "max_relative_positions": -1,
        },
    ),
    "distilbert": (
        "DistilBertConfig",
        {"vocab_size": 64, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "pad_token_id": 0},
    ),
    "electra": ("ElectraConfig", {**SHAPE, "embedding_size": 16}),
    "roberta": ("RobertaConfig", SHAPE),
    "xlm-roberta": ("XLMRobertaConfig", SHAPE),
    "gemma": ("GemmaConfig", LLAMA),
    "gemma2": ("Gemma2Config", {**LLAMA, "query_pre_attn_scalar": 8, "attn_implementation": "eager"}),
    "gpt2": ("GPT2Config", GPT),
    "llama": ("LlamaConfig", LLAMA),
    "mistral": ("MistralConfig", LLAMA),
    "openai-gpt": ("OpenAIGPTConfig", GPT),
    "qwen2": ("Qwen2Config", LLAMA),
    "qwen3": ("Qwen3Config", LLAMA),
}
NAMES = {0: "bad", 1: "so so", 2: "good"}
STILL = {"budget_steps": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
TASK_CLASSES = {name: family.task_classes for name, family in REGISTRY.items() if name != "pretextlm"}


def foreign(family, kind, place, **changes):
    """A random fine-tuned model, saved by transformers with a tokenizer."""
    name, shape = CONFIGS[family]
    named = {"id2label": NAMES, "label2id": {v: k for k, v in NAMES.items()}} if kind in ("sequence", "token") else {}
    config = getattr(transformers, name)(**{**shape, **named, **changes})
    model = randomised(getattr(transformers, TASK_CLASSES[family][kind].theirs)(config))
    model.save_pretrained(place)
    word_pieces().save(str(place / "tokenizer.json"))
    return model


TEXTS = ["the old ship sails", "a river", "the ship, the old river.", "sail a ship", "old", "a ship sailed the river?"]
PAIRS = ["a ship", "the old river sails", ".", "the ship", "river, river", "old"]
CLASSES = ["good", "bad", "so so", "good", "bad", "so so"]
ROWS = {
    "text_classification": [
        {"text": a, "pair": b, "label": label} for a, b, label in zip(TEXTS, PAIRS, CLASSES, strict=True)
    ],
    "text_regression": [{"text": text, "label": 3.0 + place} for place, text in enumerate(TEXTS)],
    "token_classification": [
        {"tokens": text.split(), "tags": [("B-X", "O")[i % 2] for i in range(len(text.split()))]} for text in TEXTS
    ],
    "question_answering": [
        {"question": pair, "context": text, "answers": {"text": [text.split()[0]], "answer_start": [0]}}
        for text, pair in zip(TEXTS, PAIRS, strict=True)
    ],
}


def tuned(place, start, task, rows_of=ROWS, tuning=None, **training):
    """A run that was fine-tuned for some steps from a published encoder or decoder."""
    rows = place / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in rows_of[task["name"]]))
    values = {
        "start": str(start),
        "data": {"train": str(rows), "validation": str(rows), "length": 32},
        "task": task,
        "tuning": tuning or {},
        "training": {
            "budget_steps": 3,
            "batch_rows": 3,
            "learning_rate": 1e-3,
            "dtype": "fp32",
            "compile": "off",
            **training,
        },
    }
    return pretrain(Recipe.load(with_start(values)), place / "tuned")


def published(family, place):
    """An import of a random model without a head for any task."""
    name, shape = CONFIGS[family]
    model = randomised(getattr(transformers, name.replace("Config", "Model"))(getattr(transformers, name)(**shape)))
    model.save_pretrained(place / "published")
    word_pieces().save(str(place / "published" / "tokenizer.json"))
    return import_model(str(place / "published"), place / "start").directory


def ours_of(run):
    """What a run says of its validation records, in their order."""
    objective = run.recipe.training_objective
    records = read_records(run.recipe.data.validation, objective.columns())
    encoder = OffsetTokenizer(run.tokenizer, run.vocabulary)
    model = run.load_model()
    examples = objective.examples(records, encoder, model.config, run.recipe.data.length)
    return predictions(model, objective, examples, run), records
