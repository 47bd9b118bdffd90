"""Adapters of our runs on the exported base: peft's model says what ours says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.parity.fine_tuned import TEXTS, ours_of, published, tuned

from pretextlm.errors import UserError
from pretextlm.hf.export_model import export_model
from pretextlm.hf.peft_adapter import export_adapter

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
    assert sorted(done.files) == ["adapter_config.json", "adapter_model.safetensors"]
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
