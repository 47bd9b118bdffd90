"""NanoChat: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.builders import sentences
from tests.parity.decoders import DecoderParity
from tests.parity.test_llama import SHAPE

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

RECIPE = Path(__file__).parents[2] / "recipes" / "causal.toml"


class TestNanoChat(DecoderParity):
    kind = "NanoChatForCausalLM"
    values: ClassVar[dict[str, Any]] = {
        **SHAPE,
        "final_logit_softcapping": 2.5,
        "rope_parameters": {"rope_theta": 300.0},
    }


class TestNanoChatWithBiasesAWiderHeadAndOneTable(DecoderParity):
    kind = "NanoChatForCausalLM"
    values: ClassVar[dict[str, Any]] = {
        **SHAPE,
        "head_dim": 12,
        "attention_bias": True,
        "final_logit_softcapping": None,
        "rms_norm_eps": 1e-2,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
    }


READER = """
import sys
sys.modules["pretextlm"] = None  # importing it fails
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained(sys.argv[1]), AutoModelForCausalLM.from_pretrained(sys.argv[1])
for prompt in sys.argv[2:]:
    ids = tokenizer(prompt, return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=12, do_sample=False)
    print(type(model).__name__ + ":" + tokenizer.decode(out[0, ids.input_ids.shape[1]:], skip_special_tokens=True))
"""
PROMPTS = ("The river", "Every child remembers", "Nobody")


@pytest.mark.slow
def test_a_run_of_the_default_decoder_writes_the_same_text_without_pretextlm(command_line, tmp_path):
    def run(*arguments):
        found = command_line.run(*arguments, cwd=tmp_path)
        assert found.returncode == 0, found.stderr
        return found

    (tmp_path / "text.txt").write_text("\n\n".join(sentences(400)))
    run("data", "prepare", "text.txt", "--out", "store", "--text-mode", "paragraphs", "--vocab-size", 448)
    small = ["model.hidden_size=32", "model.num_hidden_layers=2", "data.store=store", "data.length=32"]
    budget = ["training.budget_tokens=4e4", "training.batch_tokens=1024", 'training.compile="off"']
    begun = run("pretrain", RECIPE, *small, *budget, "training.validations=0", "--out", "run")
    assert "Exports as NanoChatForCausalLM (transformers)" in begun.stderr
    run("export", "run", "out", "--no-check")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    greedy = ["--temperature", 0, "--max-new-tokens", 12, "--json"]
    found = json.loads(run("generate", "run", "--prompts", "prompts.txt", *greedy).stdout)
    written = [result["texts"][0] for result in found["results"]]
    assert len(set(written)) > 1
    reader = [sys.executable, "-c", READER, str(tmp_path / "out"), *PROMPTS]
    read = subprocess.run(reader, capture_output=True, text=True, check=True)
    assert read.stdout.splitlines() == [f"NanoChatForCausalLM:{text}" for text in written]
