"""Adapters of our runs on the exported base: peft's model says what ours says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.builders import make_store
from tests.parity.families import their_logits
from tests.parity.fine_tuned import TEXTS, ours_of, published, tuned

from pretextlm.errors import UserError
from pretextlm.hf.export_model import export_model
from pretextlm.hf.peft_adapter import export_adapter
from pretextlm.training.pretrain import pretrain

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

pytestmark = pytest.mark.slow

TASK = {"name": "text_classification"}


def adapted(family, place, lora, task=TASK):
    start = published(family, place)
    run = tuned(place, start, task, tuning={"lora": {"rank": 4, **lora}}, learning_rate=0.05)
    export_model(start, place / "base")
    return run, export_adapter(run.directory, place / "adapter")


@pytest.mark.parametrize(
    ("family", "lora"),
    [
        ("bert", {}),
        ("bert", {"kind": "dora", "targets": ["q_proj", "down_proj"]}),
        ("roberta", {"kind": "rslora"}),
        ("llama", {"targets": ["q_proj", "up_proj"]}),
        ("gpt2", {"targets": ["o_proj", "up_proj"]}),
    ],
)
def test_peft_on_the_exported_base_has_our_logits(family, lora, tmp_path):
    run, done = adapted(family, tmp_path, lora)
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md"} <= set(done.files)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    peft = pytest.importorskip("peft", reason="adapters are read by peft (extra lora)")
    model = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    export_model(run.directory, tmp_path / "whole")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "whole")
    if family in ("llama", "gpt2"):  # one text at a time: tokens that the import added are beyond the base's table
        known = base.config.vocab_size
        ids = [[i for i in tokenizer(text)["input_ids"] if i < known] for text in TEXTS]
        merged = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole").eval()
        with torch.inference_mode():
            for one in ids:
                expected = merged(input_ids=torch.tensor([one])).logits
                torch.testing.assert_close(model(input_ids=torch.tensor([one])).logits, expected, atol=1e-4, rtol=1e-4)
        return
    with torch.inference_mode():
        found = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits.softmax(1).numpy()
    np.testing.assert_allclose(found, ours_of(run)[0], atol=1e-4)


def test_names_are_the_familys_and_a_tasks_head_is_saved_whole(tmp_path):
    _, done = adapted("bert", tmp_path, {})
    names = set(load_file(tmp_path / "adapter/adapter_model.safetensors"))
    values = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    layer = "base_model.model.bert.encoder.layer.{}.attention.self.{}.lora_{}.weight"
    adapters = {layer.format(i, part, half) for i in (0, 1) for part in ("query", "value") for half in "AB"}
    head = {
        f"base_model.model.{name}.{part}" for name in ("bert.pooler.dense", "classifier") for part in ("weight", "bias")
    }
    assert names == adapters | head
    assert sorted(values["target_modules"]) == ["attention.self.query", "attention.self.value"]
    assert values["modules_to_save"] == ["bert.pooler.dense", "classifier"]
    assert (values["task_type"], values["r"], values["lora_alpha"]) == ("SEQ_CLS", 4, 16.0)
    assert done.architecture == "BertForSequenceClassification"


def test_a_matrix_that_a_family_joins_with_others_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"holds q_proj, k_proj, v_proj in one matrix, transformer\.h\.0\.attn\.c_attn"):
        adapted("gpt2", tmp_path, {})


def test_a_run_without_adapters_is_refused(tmp_path):
    run = tuned(tmp_path, published("bert", tmp_path), TASK)
    with pytest.raises(UserError, match="has no adapters"):
        export_adapter(run.directory, tmp_path / "adapter")


@pytest.mark.parametrize(
    ("objective", "auto"), [("causal", "AutoModelForCausalLM"), ("masked", "AutoModelForMaskedLM")]
)
def test_adapters_of_the_default_trunk_have_the_logits_of_the_merged_model(objective, auto, tmp_path):
    """The decoder leaves as NanoChat, whose queries and keys have exchanged halves, the encoder with its own code."""
    peft = pytest.importorskip("peft", reason="adapters are read by peft (extra lora)")
    store = make_store(tmp_path / "store", train=40, validation=10)
    training = {"budget_steps": 2, "batch_tokens": 128, "dtype": "fp32", "compile": "off", "validations": 0}
    values = {
        "data": {"store": str(store.path), "length": 32},
        "objective": {"name": objective},
        "model": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
        "training": training,
    }
    start = pretrain(values, tmp_path / "start")
    lora = {"rank": 4, "kind": "dora", "targets": ["q_proj", "k_proj", "up_proj"]}
    faster = {**training, "optimizer": "adamw", "learning_rate": 0.05}
    run = pretrain(
        {**values, "start": str(start.directory), "tuning": {"lora": lora}, "training": faster}, tmp_path / "tuned"
    )
    export_model(start, tmp_path / "base")
    export_model(run, tmp_path / "merged")
    export_adapter(run.directory, tmp_path / "adapter")

    def read(name):
        return getattr(transformers, auto).from_pretrained(tmp_path / name, trust_remote_code=True).eval()

    ids = np.random.default_rng(0).integers(300, 400, (3, 14))
    expected = their_logits(read("merged"), input_ids=ids)
    adapted = peft.PeftModel.from_pretrained(read("base"), tmp_path / "adapter").eval()
    torch.testing.assert_close(their_logits(adapted, input_ids=ids), expected, atol=1e-5, rtol=1e-4)
    assert (expected - their_logits(read("base"), input_ids=ids)).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "llama"])
def test_an_adapter_names_its_base_and_is_loaded_as_its_card_says_with_label_names(family, tmp_path):
    peft = pytest.importorskip("peft", reason="adapters are read by peft (extra lora)")
    start = published(family, tmp_path)
    lora = {"lora": {"rank": 4, "targets": ["q_proj", "o_proj", "up_proj"]}}
    run = tuned(tmp_path, start, TASK, tuning=lora, learning_rate=0.05)
    done = export_adapter(run.directory, tmp_path / "adapter")
    assert done.checked.startswith("checked: peft")
    values = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert values["base_model_name_or_path"] == str(tmp_path / "published")
    assert values["target_modules"] == sorted(values["target_modules"])
    card = (tmp_path / "adapter" / "README.md").read_text()
    found = {}
    exec(card.split("```python\n")[1].split("```")[0].replace('"DIRECTORY"', repr(str(tmp_path / "adapter"))), found)
    model, tokenizer = found["model"].eval(), found["tokenizer"]
    assert model.config.id2label == {0: "bad", 1: "good", 2: "so so"}
    for text, expected in zip(TEXTS, ours_of(run)[0], strict=True):
        with torch.inference_mode():
            scores = model(**tokenizer(text, return_tensors="pt")).logits[0].softmax(0)
        np.testing.assert_allclose(scores.numpy(), expected, atol=1e-4)
    labels = {"num_labels": 3, "id2label": model.config.id2label, "label2id": model.config.label2id}
    again = peft.AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter", **labels)
    assert again.config.id2label == labels["id2label"]


def test_adapters_on_a_run_that_was_trained_here_need_the_name_of_their_base(tmp_path):
    start = published("bert", tmp_path)
    (tmp_path / "first").mkdir()
    first = tuned(tmp_path / "first", start, TASK)
    run = tuned(tmp_path, first.directory, TASK, tuning={"lora": {"rank": 4}}, learning_rate=0.05)
    assert "name it by --base" in export_adapter(run.directory, tmp_path / "unnamed").checked
    export_model(first.directory, tmp_path / "base")
    done = export_adapter(run.directory, tmp_path / "adapter", base=str(tmp_path / "base"))
    assert done.checked.startswith("checked: peft")
    with pytest.raises(UserError, match="differ from the run's"):
        export_adapter(run.directory, tmp_path / "other", base=str(tmp_path / "published"))
    assert not (tmp_path / "other").exists()
