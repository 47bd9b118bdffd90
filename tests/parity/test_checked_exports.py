"""An export is loaded by transformers before it is kept: what it cannot read, or reads otherwise, is never written."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from tests.foreign import bert_directory, word_pieces
from tests.parity.families import randomised
from tests.parity.fine_tuned import CONFIGS, GPT, SHAPE, foreign, tuned

from pretextlm.compression.prune import Pruning, prune_run
from pretextlm.errors import UserError
from pretextlm.hf import export_model as exporting
from pretextlm.hf.export_model import export_model
from pretextlm.hf.import_model import import_model

transformers = pytest.importorskip("transformers", reason="it is the reader (extra hub)")

T5 = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "pad_token_id": 0}
BART = {"vocab_size": 64, "d_model": 32, "pad_token_id": 0, "max_position_embeddings": 96} | {
    f"{stack}_{name}": value
    for stack in ("encoder", "decoder")
    for name, value in {"layers": 2, "attention_heads": 4, "ffn_dim": 48}.items()
}
DECODER = {**CONFIGS["llama"][1], "num_key_value_heads": 4}
MODERN = {
    **{name: SHAPE[name] for name in ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size")},
    "num_hidden_layers": 4,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0),
}
MODELS = {
    "albert": ("AlbertForMaskedLM", "AlbertConfig", CONFIGS["albert"][1]),
    "bart": ("BartForConditionalGeneration", "BartConfig", BART),
    "bert": ("BertForMaskedLM", "BertConfig", SHAPE),
    "big_bird": ("BigBirdForMaskedLM", "BigBirdConfig", SHAPE),
    "deberta-v2": ("DebertaV2ForMaskedLM", *CONFIGS["deberta-v2"]),
    "distilbert": ("DistilBertForMaskedLM", *CONFIGS["distilbert"]),
    "electra": ("ElectraForMaskedLM", *CONFIGS["electra"]),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", DECODER),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**CONFIGS["gemma2"][1], **DECODER}),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT),
    "llama": ("LlamaForCausalLM", "LlamaConfig", DECODER),
    "longformer": ("LongformerForMaskedLM", "LongformerConfig", {**SHAPE, "attention_window": [8, 8]}),
    "mbart": ("MBartForConditionalGeneration", "MBartConfig", BART),
    "mistral": ("MistralForCausalLM", "MistralConfig", DECODER),
    "modernbert": ("ModernBertForMaskedLM", "ModernBertConfig", MODERN),
    "mt5": ("MT5ForConditionalGeneration", "MT5Config", {**T5, "tie_word_embeddings": False}),
    "openai-gpt": ("OpenAIGPTLMHeadModel", "OpenAIGPTConfig", GPT),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", {**DECODER, "use_sliding_window": True, "max_window_layers": 1}),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", DECODER),
    "roberta": ("RobertaForMaskedLM", *CONFIGS["roberta"]),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5),
    "xlm-roberta": ("XLMRobertaForMaskedLM", *CONFIGS["xlm-roberta"]),
}
OWN_HEAD_WIDTH = {"gemma", "mistral", "mt5", "qwen2", "qwen3", "t5"}
"""Families whose classes read a width of the heads that is not hidden_size / heads."""
NOT_IN_OUR_CODE = {"big_bird", "deberta-v2", "longformer"}
"""Families whose attention is not in the modelling code that is written where no class fits."""


@pytest.fixture(params=MODELS)
def start(request, tmp_path):
    name, config, shape = MODELS[request.param]
    model = randomised(getattr(transformers, name)(getattr(transformers, config)(**shape)))
    model.save_pretrained(tmp_path / "theirs")
    word_pieces().save(str(tmp_path / "theirs" / "tokenizer.json"))
    return import_model(tmp_path / "theirs", tmp_path / "start")


@pytest.mark.slow
def test_a_pruned_model_of_every_family_is_read_by_transformers_or_refused(start, tmp_path):
    family = start.recipe.imported_from and json.loads((tmp_path / "theirs/config.json").read_text())["model_type"]
    one_row = start.recipe.model.architecture != "encoder_decoder" and not start.recipe.model.share_layers
    prunings = {"channels": Pruning(channels=0.25), "heads": Pruning(heads=0.25)}
    prunings |= {"layers": Pruning(layers=(0,))} if one_row else {}
    for name, pruning in prunings.items():
        prune_run(start.directory, tmp_path / name, pruning)
        if name == "heads" and family in NOT_IN_OUR_CODE:
            with pytest.raises(UserError) as refused:
                export_model(tmp_path / name, tmp_path / f"out-{name}")
            assert "removed" not in refused.value.message  # refused before anything was written
            assert not (tmp_path / f"out-{name}").exists()
            continue
        if family == "qwen2":  # transformers reads every tokenizer of this family as Qwen's own
            with pytest.raises(UserError, match="transformers' tokenizer splits"):
                export_model(tmp_path / name, tmp_path / f"out-{name}")
            export_model(tmp_path / name, tmp_path / f"out-{name}", check=False)
            transformers.Qwen2ForCausalLM.from_pretrained(tmp_path / f"out-{name}")
            continue
        done = export_model(tmp_path / name, tmp_path / f"out-{name}")
        other = (name == "heads" and family not in OWN_HEAD_WIDTH) or (name, family) == ("channels", "openai-gpt")
        assert (done.family, done.checked[:8]) == ("pretextlm" if other else family, "checked:")
        assert bool(done.reason) == other
        assert (done.reason[:40] in (tmp_path / f"out-{name}" / "README.md").read_text()) or not other


def test_a_llama_with_a_number_of_heads_that_its_class_refuses_is_the_same_as_a_mistral(tmp_path):
    model = randomised(transformers.LlamaForCausalLM(transformers.LlamaConfig(**DECODER)))
    model.save_pretrained(tmp_path / "theirs")
    word_pieces().save(str(tmp_path / "theirs" / "tokenizer.json"))
    run = import_model(tmp_path / "theirs", tmp_path / "start")
    prune_run(run.directory, tmp_path / "three", Pruning(heads=0.25))
    with pytest.raises(UserError, match="with 3 heads for a width of 32") as refused:
        export_model(tmp_path / "three", tmp_path / "out", family="llama")
    assert "--family mistral" in refused.value.hint
    done = export_model(tmp_path / "three", tmp_path / "out", family="mistral")
    assert (done.family, done.checked[:8]) == ("mistral", "checked:")


def test_labels_of_the_import_do_not_stand_beside_those_of_the_new_task(tmp_path):
    foreign(
        "bert", "sequence", tmp_path / "theirs", problem_type="single_label_classification", hidden_dropout_prob=0.3
    )
    values = json.loads((tmp_path / "theirs/config.json").read_text())
    values |= {"num_labels": 3, "finetuning_task": "sst2", "problem_type": "single_label_classification"}
    (tmp_path / "theirs/config.json").write_text(json.dumps(values))
    start = import_model(tmp_path / "theirs", tmp_path / "start")
    two = {"text_classification": [{"text": f"the ship {i}", "label": ("no", "yes")[i % 2]} for i in range(6)]}
    run = tuned(tmp_path, start.directory, {"name": "text_classification"}, rows_of=two)
    done = export_model(run.directory, tmp_path / "out")
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert (written["id2label"], written["label2id"]) == ({"0": "no", "1": "yes"}, {"no": 0, "yes": 1})
    assert not {"num_labels", "finetuning_task"} & set(written)
    assert written["hidden_dropout_prob"] == 0.3  # what we do not model and what depends on nothing else
    assert done.checked.startswith("checked: transformers")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.num_labels == 2


def test_an_export_that_computes_something_else_is_not_kept(tmp_path, monkeypatch):
    run = import_model(bert_directory(tmp_path / "theirs"), tmp_path / "run")
    write = exporting.write_weights

    def wrong(directory, tensors, dtype, limit):
        name = "bert.encoder.layer.1.attention.output.dense.weight"
        write(directory, {**tensors, name: tensors[name].T.contiguous()}, dtype, limit)

    monkeypatch.setattr(exporting, "write_weights", wrong)
    with pytest.raises(UserError, match="differ from the run's"):
        export_model(run.directory, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert export_model(run.directory, tmp_path / "out", check=False).checked.startswith("not checked")


def test_an_export_with_a_tensor_too_few_is_not_kept(tmp_path, monkeypatch):
    run = import_model(bert_directory(tmp_path / "theirs"), tmp_path / "run")
    write = exporting.write_weights

    def fewer(directory, tensors, dtype, limit):
        write(directory, {n: t for n, t in tensors.items() if "layer.1.output.dense" not in n}, dtype, limit)

    monkeypatch.setattr(exporting, "write_weights", fewer)
    with pytest.raises(UserError, match=r"BertForMaskedLM misses bert.encoder.layer.1.output.dense"):
        export_model(run.directory, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_rounded_weights_are_compared_with_the_rounded_run(dtype, tmp_path):
    run = import_model(bert_directory(tmp_path / "theirs"), tmp_path / "run")
    assert export_model(run.directory, tmp_path / "out", dtype=dtype).checked.startswith("checked")


def test_without_the_reader_the_check_is_skipped_and_says_so(tmp_path, monkeypatch):
    run = import_model(bert_directory(tmp_path / "theirs"), tmp_path / "run")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name))
    done = export_model(run.directory, tmp_path / "out")
    assert done.checked == "not checked: transformers is not installed"
    assert torch.is_tensor(transformers.BertForMaskedLM.from_pretrained(tmp_path / "out").cls.predictions.bias)
