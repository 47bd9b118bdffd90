"""Generation: the cache changes nothing, draws follow the softmax, rows do not see each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from pretextlm.batch import Batch
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.generation import GenerationSettings, generate
from pretextlm.model.inputs import prepare
from pretextlm.model.sampling import Sampling, choose, probabilities
from pretextlm.model.transformer import Transformer

SIZE = 40
VOCABULARY = Vocabulary(SIZE, 0, 1, 2, 3, 4, 5, 6, (7, 8, 9), frozenset(range(10)))
FREE = GenerationSettings(max_new_tokens=12, temperature=0, stop=(), suppress=())


def random_model(architecture: str = "decoder", key_value_heads: int = 4, vocab_size: int = SIZE) -> Transformer:
    """Random weights everywhere, also where training starts from zero, large enough to give peaked predictions."""
    torch.manual_seed(3)
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": key_value_heads,
    }
    model = Transformer(ModelConfig(architecture=architecture, vocab_size=vocab_size, **shape))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 1.0 if "embed" in name else 0.3)
    return model.eval()


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(10, SIZE, rng.integers(1, 9)).tolist() for _ in range(count)]


@torch.inference_mode()
def next_logits(model: Transformer, source: list[int], text: list[int]) -> torch.Tensor:
    """Scores of the token after `text`, by reading everything anew."""
    row = np.array([text], np.int32)
    if model.encoder is None:
        batch = Batch(input_ids=row, attention="causal")
    else:
        batch = Batch(input_ids=np.array([source], np.int32), decoder_input_ids=row)
    return last_logits(model, batch)


def last_logits(model: Transformer, batch: Batch) -> torch.Tensor:
    hidden = model(prepare(batch, model.config, torch.device("cpu"), torch.float32)).hidden_BTD
    return model.logits(hidden[0, -1])


@pytest.mark.parametrize(
    ("architecture", "key_value_heads"), [("decoder", 4), ("decoder", 2), ("decoder", 1), ("encoder_decoder", 2)]
)
def test_a_cached_batch_of_ragged_prompts_writes_what_reading_everything_anew_gives(architecture, key_value_heads):
    model = random_model(architecture, key_value_heads)
    texts = prompts(7)
    starts = [[5, *text[:2]] for text in texts] if architecture == "encoder_decoder" else None
    answers = generate(model, VOCABULARY, texts, FREE, starts)
    for row, text in enumerate(texts):
        written = list(text if starts is None else starts[row])
        expected = []
        for _ in range(FREE.max_new_tokens):
            expected.append(int(next_logits(model, text, written).argmax()))
            written.append(expected[-1])
        assert answers[row] == expected
    assert len({tuple(answer) for answer in answers}) > 1


def test_a_prefix_is_seen_in_both_directions():
    model = random_model()
    texts = prompts(6)
    answers = generate(model, VOCABULARY, texts, FREE, [[7]] * 6)
    for text, answer in zip(texts, answers, strict=True):
        written = [*text, 7]
        with torch.inference_mode():
            for token in answer:
                row = np.array([written], np.int32)
                prefix = np.full_like(row, len(text))
                assert token == int(
                    last_logits(model, Batch(input_ids=row, prefix=prefix, attention="prefix")).argmax()
                )
                written.append(token)
    assert answers != generate(model, VOCABULARY, [[*text, 7] for text in texts], FREE)


def test_a_decoder_goes_on_from_the_last_token_of_a_source():
    model = random_model()
    texts = prompts(6)
    answers = generate(model, VOCABULARY, texts, FREE, [text[-1:] for text in texts], reread=True)
    for text, answer in zip(texts, answers, strict=True):
        written = list(text)
        with torch.inference_mode():
            for token in answer:
                row = np.array([written], np.int32)
                prefix = np.full_like(row, len(text))
                assert token == int(
                    last_logits(model, Batch(input_ids=row, prefix=prefix, attention="prefix")).argmax()
                )
                written.append(token)


def test_a_row_is_written_the_same_alone_and_among_others():
    model = random_model()
    texts = prompts(5)
    settings = GenerationSettings(max_new_tokens=20, temperature=1.0, seed=11, stop=(12, 13))
    together = generate(model, VOCABULARY, texts, settings)
    padded = generate(model, VOCABULARY, [*texts, list(range(10, 39))], settings)
    assert padded[:5] == together
    assert generate(model, VOCABULARY, texts[:1], settings)[0] == together[0]


def test_the_seed_decides_the_text():
    model = random_model()
    texts = prompts(3)
    one, same, other = (
        generate(model, VOCABULARY, texts, GenerationSettings(max_new_tokens=20, temperature=2.0, seed=seed))
        for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


def test_text_ends_before_a_stop_token_and_at_the_limit():
    model = random_model()
    texts = prompts(6)
    free = generate(model, VOCABULARY, texts, FREE)
    stop = free[0][3]
    stopped = generate(model, VOCABULARY, texts, FREE.model_copy(update={"stop": (stop,)}))
    for whole, cut in zip(free, stopped, strict=True):
        assert cut == (whole[: whole.index(stop)] if stop in whole else whole)
    short = generate(model, VOCABULARY, texts, FREE.model_copy(update={"max_new_tokens": 2}))
    assert short == [answer[:2] for answer in free]


def test_special_tokens_and_ids_without_a_token_are_never_written():
    model = random_model(vocab_size=64)
    settings = GenerationSettings(max_new_tokens=50, temperature=50.0)
    written = {token for answer in generate(model, VOCABULARY, prompts(20), settings) for token in answer}
    assert written <= set(range(10, SIZE))
    assert len(written) == SIZE - 10


def test_tokens_are_reported_as_they_come():
    model = random_model()
    seen: list[list[int]] = [[] for _ in range(4)]
    answers = generate(model, VOCABULARY, prompts(4), FREE, on_token=lambda row, token: seen[row].append(token))
    assert seen == answers


def test_an_encoder_points_at_fill():
    with pytest.raises(UserError, match="fill"):
        generate(random_model("encoder"), VOCABULARY, [[5]])


LOGITS = torch.tensor([[2.0, 1.5, 0.2, -1.0, -0.5, 1.0, -3.0, 0.0]])


def expected_distribution(temperature: float, top_k: int, top_p: float) -> np.ndarray:
    p = np.exp(LOGITS[0].double().numpy() / temperature)
    p /= p.sum()
    kept = np.argsort(-p)[: top_k or len(p)]
    kept_p = p[kept] / p[kept].sum()
    needed = int(np.searchsorted(np.cumsum(kept_p), top_p - 1e-12)) + 1
    out = np.zeros_like(p)
    out[kept[:needed]] = p[kept[:needed]]
    return out / out.sum()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.5, 0, 1.0), (2.0, 0, 1.0), (1.0, 3, 1.0), (1.0, 0, 0.8), (1.3, 5, 0.7)],
)
def test_draws_follow_the_softmax_under_temperature_top_k_and_top_p(temperature, top_k, top_p):
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=5)
    expected = expected_distribution(temperature, top_k, top_p)
    assert np.allclose(probabilities(LOGITS, sampling)[0].numpy(), expected, atol=1e-12)
    n = 20_000
    drawn = torch.cat([choose(LOGITS.expand(n // 10, -1), sampling, np.arange(n // 10), step) for step in range(10)])
    counts = np.bincount(drawn.numpy(), minlength=LOGITS.size(1))
    inside = expected > 0
    assert counts[~inside].sum() == 0
    assert chisquare(counts[inside], n * expected[inside]).pvalue > 1e-3


def test_temperature_zero_takes_the_most_likely_token():
    sampling = Sampling(temperature=0)
    assert choose(LOGITS, sampling, np.arange(1), 0).tolist() == [0]
    assert probabilities(LOGITS, sampling)[0].tolist() == [1.0] + [0.0] * 7
