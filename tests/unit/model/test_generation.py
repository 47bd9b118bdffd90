"""Generation: the cache changes nothing, draws follow the softmax, rows do not see each other."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from pretextlm.batch import Batch
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.generation import GenerationConfig, generate
from pretextlm.model.incremental_decoding import IncrementalDecoder
from pretextlm.model.inference_weights import cast_for_inference
from pretextlm.model.model_inputs import prepare
from pretextlm.model.sampling import SamplingConfig, next_tokens, probabilities
from pretextlm.model.transformer import Transformer

SIZE = 40
VOCABULARY = Vocabulary(SIZE, 0, 1, 2, 3, 4, 5, 6, (7, 8, 9), frozenset(range(10)))
FREE = GenerationConfig(max_new_tokens=12, temperature=0, stop=(), suppress=())


def random_model(
    architecture: str = "decoder", key_value_heads: int = 4, vocab_size: int = SIZE, **parts: object
) -> Transformer:
    """Random weights everywhere, also where training starts from zero, large enough to give peaked predictions."""
    torch.manual_seed(3)
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": key_value_heads,
        **parts,
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


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize(
    "parts",
    [
        {"attention": {"sliding_windows": (3, 0)}},
        {"attention": {"sliding_windows": (4,), "global_tokens": 1}},
        {"attention": {"softcap": 2.0}},
        {"positions": {"kind": "relative", "num_buckets": 8}},
        {"positions": {"kind": "learned", "max_position_embeddings": 64}},
    ],
    ids=str,
)
def test_windows_and_positions_of_every_kind_are_cached_with_and_without_padding(parts, even):
    model = random_model(key_value_heads=2, **parts)
    texts = [text + [11] * (9 - len(text) if even else 0) for text in prompts(5)]
    for text, answer in zip(texts, generate(model, VOCABULARY, texts, FREE), strict=True):
        written = list(text)
        for token in answer:
            assert token == int(next_logits(model, [], written).argmax())
            written.append(token)


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
    settings = GenerationConfig(max_new_tokens=20, temperature=1.0, seed=11, stop=(12, 13))
    together = generate(model, VOCABULARY, texts, settings)
    padded = generate(model, VOCABULARY, [*texts, list(range(10, 39))], settings)
    assert padded[:5] == together
    assert generate(model, VOCABULARY, texts[:1], settings)[0] == together[0]


def test_the_seed_decides_the_text():
    model = random_model()
    texts = prompts(3)
    one, same, other = (
        generate(model, VOCABULARY, texts, GenerationConfig(max_new_tokens=20, temperature=2.0, seed=seed))
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
    settings = GenerationConfig(max_new_tokens=50, temperature=50.0)
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


def test_samples_of_a_prompt_are_draws_of_their_own_and_do_not_depend_on_how_many_there_are():
    model, texts = random_model(), prompts(4)
    settings = GenerationConfig(max_new_tokens=8, temperature=2.0, stop=(12, 13))
    one, three = (
        generate(model, VOCABULARY, texts, settings.model_copy(update={"samples": samples})) for samples in (1, 3)
    )
    assert three[::3] == one
    assert len({tuple(text) for text in three}) > 8


def test_no_text_ends_before_its_least_length():
    model, texts = random_model(), prompts(8)
    settings = FREE.model_copy(update={"stop": tuple(range(10, 30)), "min_new_tokens": 5})
    lengths = [len(answer) for answer in generate(model, VOCABULARY, texts, settings)]
    assert min(lengths) == 5
    assert max(lengths) > 5


def text_of(ids) -> str:
    return "".join(chr(ord("a") + token % 26) for token in ids)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_text_ends_with_the_token_that_completes_a_stop_string(beams):
    model, texts = random_model(), prompts(6)
    settings = FREE.model_copy(update={"beams": beams})
    free = generate(model, VOCABULARY, texts, settings)
    stop = text_of(free[0][3:5])
    stopped = generate(model, VOCABULARY, texts, settings.model_copy(update={"stop_strings": (stop,)}), decode=text_of)
    for answer in stopped:
        assert stop not in text_of(answer[:-1])
    if beams == 1:
        assert stopped[0] == free[0][:5]
        for whole, cut in zip(free, stopped, strict=True):
            end = text_of(whole).find(stop)
            assert cut == (whole[: end + 2] if end >= 0 else whole)


def test_repeated_tokens_lose_score_as_transformers_has_it():
    model, (text,) = random_model(), prompts(1)
    settings = FREE.model_copy(update={"repetition_penalty": 3.0, "max_new_tokens": 6})
    (answer,) = generate(model, VOCABULARY, [text], settings)
    written = list(text)
    for token in answer:
        scores = next_logits(model, [], written).clone()
        seen = torch.tensor(sorted(set(written)))
        scores[seen] = torch.where(scores[seen] < 0, scores[seen] * 3, scores[seen] / 3)
        assert token == int(scores.argmax())
        written.append(token)


def test_a_wide_enough_search_finds_the_likeliest_text():
    model, (text,) = random_model(), prompts(1)
    allowed = list(range(10, 16))
    settings = GenerationConfig(
        beams=36, max_new_tokens=3, stop=(), suppress=tuple(i for i in range(SIZE) if i not in allowed)
    )
    (found,) = generate(model, VOCABULARY, [text], settings)

    def log_probability(answer) -> float:
        total = 0.0
        for place, token in enumerate(answer):
            total += float(next_logits(model, [], [*text, *answer[:place]]).log_softmax(0)[token])
        return total

    assert tuple(found) == max(itertools.product(allowed, repeat=3), key=log_probability)


@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
@pytest.mark.parametrize("tied", [True, False])
def test_matrices_cast_once_give_the_states_and_logits_of_casting_on_use(architecture, tied):
    model = random_model(architecture, tie_word_embeddings=tied)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = cast_for_inference(model, torch.bfloat16)
    sources = prompts(3) if architecture == "encoder_decoder" else None
    hidden = [
        IncrementalDecoder(one, sources, dtype=torch.bfloat16).extend(prompts(3))[:, -1] for one in (model, found)
    ]
    assert torch.equal(*hidden)
    assert torch.equal(model.logits(hidden[0]), found.logits(hidden[0]))
    assert cast_for_inference(found, torch.bfloat16) is found
    assert cast_for_inference(model, torch.float32) is model
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert found.embed_tokens.weight is model.embed_tokens.weight


def test_half_precision_writes_by_the_rounded_model():
    model, texts = random_model(), prompts(3)
    rounded = copy.deepcopy(model)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.bfloat16().float()
    found = generate(model, VOCABULARY, texts, FREE, dtype=torch.bfloat16)
    for text, answer in zip(texts, found, strict=True):
        scores = next_logits(rounded, [], text)
        assert scores[answer[0]] > scores.max() - 0.05 * scores.std()


LOGITS = torch.tensor([[2.0, 1.5, 0.2, -1.0, -0.5, 1.0, -3.0, 0.0]])


def expected_distribution(temperature: float, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    p = np.exp(LOGITS[0].double().numpy() / temperature)
    p /= p.sum()
    kept = np.argsort(-p)[: top_k or len(p)]
    kept_p = p[kept] / p[kept].sum()
    needed = int(np.searchsorted(np.cumsum(kept_p), top_p - 1e-12)) + 1
    out = np.zeros_like(p)
    out[kept[:needed]] = p[kept[:needed]]
    out[out < min_p * out.max()] = 0
    return out / out.sum()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        (1.0, 0, 1.0, 0.0),
        (0.5, 0, 1.0, 0.0),
        (2.0, 0, 1.0, 0.0),
        (1.0, 3, 1.0, 0.0),
        (1.0, 0, 0.8, 0.0),
        (1.3, 5, 0.7, 0.0),
        (1.0, 0, 1.0, 0.2),
        (1.3, 6, 0.95, 0.3),
    ],
)
def test_draws_follow_the_softmax_under_temperature_top_k_top_p_and_min_p(temperature, top_k, top_p, min_p):
    sampling = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=5)
    expected = expected_distribution(temperature, top_k, top_p, min_p)
    assert np.allclose(probabilities(LOGITS, sampling)[0].numpy(), expected, atol=1e-12)
    n = 20_000
    drawn = torch.cat(
        [next_tokens(LOGITS.expand(n // 10, -1), sampling, np.arange(n // 10), step) for step in range(10)]
    )
    counts = np.bincount(drawn.numpy(), minlength=LOGITS.size(1))
    inside = expected > 0
    assert counts[~inside].sum() == 0
    assert chisquare(counts[inside], n * expected[inside]).pvalue > 1e-3


def test_temperature_zero_takes_the_most_likely_token():
    sampling = SamplingConfig(temperature=0)
    assert next_tokens(LOGITS, sampling, np.arange(1), 0).tolist() == [0]
    assert probabilities(LOGITS, sampling)[0].tolist() == [1.0] + [0.0] * 7
