"""Models from GGUF files, the hub's cache and .bin files are imported as transformers reads them."""

from __future__ import annotations

import shlex

import numpy as np
import pytest
import torch
from tests.foreign import bert_directory

import pretextlm as pt
from pretextlm.errors import UserError
from pretextlm.hf.import_model import import_model

WIDTH, LAYERS, HEADS, WORDS = (
    32,
    2,
    4,
    ["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "th", "he", "Ġt", "<|endoftext|>"],
)
CHAT = "{% for message in messages %}<s>{{ message['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    """A small Llama with random weights, in eight-bit blocks where llama.cpp's files have them."""
    gguf = pytest.importorskip("gguf", reason="writes a GGUF file (extra gguf)")
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_types([3, 3, 3] + [1] * (len(WORDS) - 3))  # 3: a control token
    writer.add_token_merges(["t h", "h e", "Ġ t"])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT)
    rng = np.random.default_rng(0)

    def add(name: str, *shape: int, quantized: bool = True) -> None:
        weights = rng.normal(0, 0.3, shape).astype(np.float32)
        if quantized:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, 1 + weights)

    add("token_embd.weight", len(WORDS), WIDTH)
    add("output_norm.weight", WIDTH, quantized=False)
    for layer in range(LAYERS):
        for name, rows, columns in (
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", WIDTH // 2, WIDTH),
            ("attn_v", WIDTH // 2, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_gate", 2 * WIDTH, WIDTH),
            ("ffn_up", 2 * WIDTH, WIDTH),
            ("ffn_down", WIDTH, 2 * WIDTH),
        ):
            add(f"blk.{layer}.{name}.weight", rows, columns)
        add(f"blk.{layer}.attn_norm.weight", WIDTH, quantized=False)
        add(f"blk.{layer}.ffn_norm.weight", WIDTH, quantized=False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_writes_the_text_that_transformers_writes(gguf_file, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the reference (extra hub)")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    run = import_model(gguf_file, tmp_path / "run")
    for prompt in ("the", "a hat that", "xyz"):
        ids = tokenizer(prompt, return_tensors="pt")
        expected = theirs.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
        found = pt.generate(run, prompt, max_new_tokens=12, temperature=0.0, top_p=1.0)[0]
        assert found == tokenizer.decode(expected, skip_special_tokens=True)


MESSAGES = [
    [{"role": "user", "content": "hat"}],
    [{"role": "system", "content": "x"}, {"role": "user", "content": "the"}],
]


def test_a_conversation_is_answered_as_by_transformers_and_the_template_is_exported(gguf_file, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the reference (extra hub)")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    run = import_model(gguf_file, tmp_path / "run")
    answers = []
    for messages in MESSAGES:
        asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
        found = theirs.generate(**asked, max_new_tokens=9, do_sample=False)[0, asked["input_ids"].shape[1] :]
        answers.append(tokenizer.decode(found, skip_special_tokens=True))
    assert pt.generate(run, MESSAGES, chat=True, max_new_tokens=9, temperature=0.0, top_p=1.0) == answers
    assert pt.generate(run, "hat", chat=True, max_new_tokens=9, temperature=0.0, top_p=1.0) == answers[:1]
    store = tmp_path / "store"
    (tmp_path / "text.jsonl").write_text(
        "".join(f'{{"text": "the hat {"that the cat had " * n}"}}\n' for n in range(40))
    )
    pt.prepare([tmp_path / "text.jsonl"], store, tokenizer=run.directory / "tokenizer.json")
    training = {"budget_steps": 1, "batch_tokens": 64, "compile": "off", "validations": 0}
    recipe = pt.Recipe(start=run.directory, data={"store": store, "length": 16}, objective="causal", training=training)
    pt.export_model(pt.pretrain(recipe, tmp_path / "trained"), tmp_path / "exported")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "exported")
    for messages in MESSAGES:
        assert again.apply_chat_template(messages, tokenize=False) == tokenizer.apply_chat_template(
            messages, tokenize=False
        )


def test_a_model_without_a_chat_template_says_so(tmp_path):
    run = import_model(bert_directory(tmp_path / "model"), tmp_path / "run")
    with pytest.raises(UserError, match="no chat template"):
        pt.generate(run, "hello", chat=True)


def test_another_file_with_that_suffix_is_refused(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(UserError, match="not a GGUF file"):
        import_model(tmp_path / "model.gguf", tmp_path / "run")


def test_a_damaged_file_is_refused_and_nothing_is_written(gguf_file, tmp_path):
    (tmp_path / "model.gguf").write_bytes(gguf_file.read_bytes()[:300])
    with pytest.raises(UserError, match="cannot read"):
        import_model(tmp_path / "model.gguf", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def cache(tmp_path):
    """A model in the layout of the hub's cache: links in a snapshot to blobs beside it."""
    model = bert_directory(tmp_path / "plain")
    place = tmp_path / "hub" / "models--lab--tiny"
    snapshot = place / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (place / "blobs").mkdir()
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc123")
    for file in model.iterdir():
        file.rename(place / "blobs" / f"hash-{file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/hash-{file.name}")
    return place


@pytest.mark.parametrize("place", ["", "snapshots/abc123"])
def test_a_model_in_the_hubs_cache_is_imported(cache, tmp_path, place):
    run = import_model(cache / place, tmp_path / "run")
    assert run.recipe.model.hidden_size == 32


def test_a_link_out_of_the_cache_is_not_followed(cache, tmp_path):
    config = cache / "snapshots" / "abc123" / "config.json"
    secret = tmp_path / "elsewhere.json"
    secret.write_bytes(config.read_bytes())
    config.unlink()
    config.symlink_to(secret)
    with pytest.raises(UserError, match="symbolic link"):
        import_model(cache, tmp_path / "run")


def test_the_way_out_for_a_bin_file_keeps_head_labels_and_tokenizer(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers", reason="converts the file (extra hub)")
    place = bert_directory(tmp_path / "model")
    labels = {0: "bad", 1: "fine", 2: "good"}
    kind = transformers.BertForSequenceClassification
    config = transformers.BertConfig.from_pretrained(place, id2label=labels, label2id={v: k for k, v in labels.items()})
    config.architectures = [kind.__name__]
    config.save_pretrained(place)
    (place / "model.safetensors").unlink()
    torch.save(kind(config).state_dict(), place / "pytorch_model.bin")
    with pytest.raises(UserError) as refused:
        import_model(place, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    exec(shlex.split(refused.value.hint.partition(": ")[2])[2])
    task = import_model("NEW", tmp_path / "run").recipe.task
    assert task is not None
    assert task.labels == ("bad", "fine", "good")
