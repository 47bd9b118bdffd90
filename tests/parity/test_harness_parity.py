"""lm-eval asks a published decoder through us and through its own transformers model: the same answers to 1e-3."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.builders import sentences
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from pretextlm.evaluation.benchmarks.run import Opened
from pretextlm.hf.import_model import import_model

pytest.importorskip("lm_eval")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.slow


END = "<|endoftext|>"


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A small Llama with random weights and a byte-level tokenizer that puts nothing before a text."""
    directory = tmp_path_factory.mktemp("published")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(sentences(200), trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END)
    fast.save_pretrained(directory)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=48,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module", params=[1, 16])
def both(request, published, tmp_path_factory):
    """(lm-eval's own model, ours) at one size of batch."""
    run = tmp_path_factory.mktemp("run") / "run"
    import_model(str(published), run)
    from lm_eval.models.huggingface import HFLM

    from pretextlm.evaluation.harness import HarnessModel

    theirs = HFLM(pretrained=str(published), batch_size=request.param, device="cpu", dtype="float32")
    return theirs, HarnessModel(Opened(run), batch_size=request.param)


def requests(*arguments: tuple) -> list[SimpleNamespace]:
    return [SimpleNamespace(args=one, arguments=one) for one in arguments]


def test_log_likelihoods_and_greedy_matches_are_those_of_transformers(both):
    theirs, ours = both
    rng = np.random.default_rng(0)
    pairs = []
    for text in sentences(24, seed=1):
        words = text.split()
        cut = int(rng.integers(0, len(words)))
        pairs += [(" ".join(words[:cut]), f" {' '.join(words[cut:])}"), (" ".join(words[:cut]), " warm bread")]
        pairs.append((f"{text} ", words[0]))
    pairs.append((" ".join(sentences(20, seed=3)), " the letters"))  # longer than the model reads
    pairs += [(text, ours.generate_until(requests((text, {"max_gen_toks": 3})))[0]) for text in sentences(3, seed=2)]
    expected = theirs.loglikelihood(requests(*pairs), disable_tqdm=True)
    found = ours.loglikelihood(requests(*pairs))
    assert [log for log, _ in found] == pytest.approx([log for log, _ in expected], abs=1e-3)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]


def test_log_likelihoods_of_whole_texts_are_those_of_transformers(both):
    theirs, ours = both
    texts = [(" ".join(sentences(count, seed=count)),) for count in (1, 3, 9)]
    expected = theirs.loglikelihood_rolling(requests(*texts), disable_tqdm=True)
    assert ours.loglikelihood_rolling(requests(*texts)) == pytest.approx(expected, abs=1e-3)


def test_what_is_written_is_what_transformers_writes(both):
    theirs, ours = both
    asked = [(text, {"until": ["."], "max_gen_toks": 8, "do_sample": False}) for text in sentences(5, seed=4)]
    assert ours.generate_until(requests(*asked)) == theirs.generate_until(requests(*asked), disable_tqdm=True)
