"""The perplexity of a text by sliding windows equals the documented recipe of transformers on the exported model."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
from tests.builders import FIXTURES, make_run, make_store, published
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from pretextlm.errors import UserError
from pretextlm.evaluation import sliding_window
from pretextlm.evaluation.sliding_window import evaluate_text
from pretextlm.hf.export_model import export_model
from pretextlm.hf.import_model import import_model

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

TEXT = "\n".join(
    f" = Entry {number} = \n {json.loads(line)['text']} <unk> , <unk> @-@ \n"
    for number, line in enumerate((FIXTURES / "english.jsonl").read_text(encoding="utf-8").splitlines()[:12])
)
"""Laid out as WikiText-2 is, with its marks."""


def published_recipe(directory: Path, text: str, length: int, stride: int) -> float:
    """The loop of transformers' page "Perplexity of fixed-length models"."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForCausalLM.from_pretrained(directory).eval()
    encodings = tokenizer(text, return_tensors="pt")
    size, nats, count, before = encodings.input_ids.size(1), 0.0, 0, 0
    for begin in range(0, size, stride):
        end = min(begin + length, size)
        input_ids = encodings.input_ids[:, begin:end]
        labels = input_ids.clone()
        labels[:, : -(end - before)] = -100
        with torch.no_grad():
            loss = model(input_ids, labels=labels).loss
        scored = int((labels != -100).sum()) - 1
        if scored:
            nats, count = nats + float(loss) * scored, count + scored
        before = end
        if end == size:
            break
    return math.exp(nats / count)


def published_model(directory: Path, kind: str, positions: int = 64, text: str = TEXT) -> Path:
    """A random model; Llama's tokenizer begins a text with <s> and knows <unk>, GPT-2's does neither."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>"] if kind == "llama" else ["<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(text.splitlines(), trainer)
    size = tokenizer.get_vocab_size()
    torch.manual_seed(0)
    if kind == "llama":
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = transformers.LlamaConfig(vocab_size=size, max_position_embeddings=positions, **shape)
        model, names = transformers.LlamaForCausalLM(config), {"bos_token": "<s>", "eos_token": "</s>"}
    else:
        ids = {"bos_token_id": 0, "eos_token_id": 0}
        config = transformers.GPT2Config(vocab_size=size, n_positions=positions, n_embd=32, n_layer=2, n_head=4, **ids)
        model, names = transformers.GPT2LMHeadModel(config), dict.fromkeys(("bos_token", "eos_token"), "<|endoftext|>")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # a model that prefers some tokens
    model.save_pretrained(directory)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def imported(request, tmp_path_factory):
    place = tmp_path_factory.mktemp(request.param)
    directory = published_model(place / "published", request.param)
    import_model(str(directory), place / "run")
    export_model(place / "run", place / "exported")
    return place / "run", place / "exported"


@pytest.mark.parametrize(("length", "stride"), [(64, 32), (64, 64), (48, 5)])
def test_perplexity_equals_the_recipe(imported, length, stride, tmp_path, monkeypatch):
    run, exported = imported
    monkeypatch.setattr(sliding_window, "BATCH_TOKENS", 300)  # a few windows at once
    file = tmp_path / "wiki.txt"
    file.write_text(TEXT, encoding="utf-8")
    found = evaluate_text(run, [file], length=length, stride=stride)
    values = {name: metric["value"] for name, metric in found["metrics"].items()}
    assert values["perplexity"] == pytest.approx(published_recipe(exported, TEXT, length, stride), rel=1e-4)
    settings = found["settings"]
    tokens = len(transformers.AutoTokenizer.from_pretrained(exported)(TEXT).input_ids)
    assert settings["tokens"] == tokens
    assert settings["windows"] == 1 + math.ceil((tokens - length) / stride)
    nats = math.log(values["perplexity"]) * tokens
    assert values["word_perplexity"] == pytest.approx(math.exp(nats / len(TEXT.split())))
    assert values["byte_perplexity"] == pytest.approx(math.exp(nats / len(TEXT.encode())))
    assert values["bits_per_byte"] == pytest.approx(math.log2(values["byte_perplexity"]))
    assert json.loads((run / settings["file"]).read_text()) == found
    assert settings["sha256"] == {str(file): hashlib.sha256(TEXT.encode()).hexdigest()}
    assert not (run / "evaluation.json").exists()


def test_several_files_are_each_a_sequence(imported, tmp_path):
    run, _ = imported
    files = []
    for name, text in (("one", TEXT[:900]), ("two", TEXT[900:2000])):
        (tmp_path / name).write_text(text)
        files.append(tmp_path / name)
    both = evaluate_text(run, files, length=32)
    alone = [evaluate_text(run, [file], length=32) for file in files]
    assert [source["metrics"] for source in both["sources"].values()] == [one["metrics"] for one in alone]
    assert both["settings"]["tokens"] == sum(one["settings"]["tokens"] for one in alone)
    assert alone[0]["settings"]["stride"] == 16
    low, high = sorted(one["metrics"]["perplexity"]["value"] for one in alone)
    assert low < both["metrics"]["perplexity"]["value"] < high


def test_a_run_trained_here_has_the_perplexity_of_its_export(tmp_path):
    run = make_run(make_store(tmp_path / "store", train=40, validation=4), tmp_path / "run")
    export_model(run, tmp_path / "exported")
    (tmp_path / "text.txt").write_text(TEXT[:3000])
    found = evaluate_text(run, [tmp_path / "text.txt"])
    assert (found["settings"]["length"], found["settings"]["stride"]) == (32, 16)
    expected = published_recipe(tmp_path / "exported", TEXT[:3000], 32, 16)
    assert found["metrics"]["perplexity"]["value"] == pytest.approx(expected, rel=1e-4)


def test_wikitext_2_in_full_equals_the_recipe(tmp_path):
    file = published("eval/wikitext2-valid-test/valid.tokens.txt.gz")
    text = gzip.decompress(file.read_bytes()).decode()
    directory = published_model(tmp_path / "published", "gpt2", 512, text)
    import_model(str(directory), tmp_path / "run")
    found = evaluate_text(tmp_path / "run", [file], stride=384)
    assert found["metrics"]["perplexity"]["value"] == pytest.approx(
        published_recipe(directory, text, 512, 384), rel=1e-4
    )
    assert found["settings"]["words"] == len(text.split())


def test_what_cannot_be_measured_is_refused(imported, tmp_path):
    run, _ = imported
    short, binary = tmp_path / "short", tmp_path / "binary"
    short.write_text("")
    binary.write_bytes(b"\xff\xfe\x00a")
    for file, options, message in (
        (short, {}, "no two tokens"),
        (binary, {}, "not UTF-8"),
        (tmp_path / "gone", {}, "does not exist"),
        (short, {"length": 65}, "at most 64 tokens"),
        (short, {"stride": 65}, "stride of 65"),
        (short, {"stride": 1}, "stride of 1 "),
    ):
        with pytest.raises(UserError, match=message):
            evaluate_text(run, [file], **options)
    masked = make_run(make_store(tmp_path / "store", train=40, validation=4), tmp_path / "masked", "masked")
    with pytest.raises(UserError, match="from left to right"):
        evaluate_text(masked, [short])
