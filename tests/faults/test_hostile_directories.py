"""Foreign directories that lie: refused by name, soon, in little memory, and with nothing written."""

import json
import os
import pickle
import resource
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.foreign import bert_directory, raw_safetensors

from pretextlm.errors import UserError
from pretextlm.hf.import_model import import_model

SECONDS, BYTES = 2.0, 300 << 20
F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.fixture
def place(tmp_path):
    return bert_directory(tmp_path / "model")


def refused(place: Path, tmp_path: Path, match: str) -> None:
    """Asserts the refusal, its time, its memory beyond what was used before, and that nothing was written."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(UserError, match=match) as caught:
        import_model(str(place), tmp_path / "run")
    assert time.perf_counter() - start < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < BYTES
    assert caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


INVALID = r"model\.safetensors is not a valid safetensors file: "
WEIGHTS = {
    "an empty file": (b"", INVALID),
    "seven bytes": (b"1234567", INVALID),
    "a header longer than the file": (raw_safetensors(b"{}", length=2**64 - 1), "header"),
    "a header of 200 MB": (raw_safetensors(b"{}", length=200 << 20), "header"),
    "no JSON": (raw_safetensors(b"{nonsense}"), INVALID + r"(?i:.*json|header)"),
    "a list": (raw_safetensors(b"[1, 2]"), INVALID + r"(?i:.*sequence|header)"),
    "a name twice": (raw_safetensors(b'{"a": {}, "a": {}}'), INVALID),
    "deep nesting": (raw_safetensors(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), INVALID + r"(?i:.*recursion|header)"),
    "a million lists": (raw_safetensors(b'{"a":[' + b"[]," * 1_000_000 + b"[]]}"), INVALID),
    "overlap": (raw_safetensors({"a": F32, "b": F32}, bytes(8)), INVALID + r"(?i:.*offset)"),
    "a hole": (raw_safetensors({"a": {**F32, "data_offsets": [4, 12]}}, bytes(12)), INVALID + r"(?i:.*offset)"),
    "past the end": (raw_safetensors({"a": F32}, bytes(4)), INVALID + r"(?i:.*incomplete)"),
    "bytes behind": (raw_safetensors({"a": F32}, bytes(9)), INVALID + r"(?i:.*incomplete)"),
    "a lying shape": (raw_safetensors({"a": {**F32, "shape": [3]}}, bytes(8)), INVALID + r"(?i:.*invalid)"),
    "an overflowing shape": (
        raw_safetensors({"a": {**F32, "shape": [2**61, 8]}}, bytes(8)),
        INVALID + r"(?i:.*overflow)",
    ),
    "a negative shape": (raw_safetensors({"a": {**F32, "shape": [-2]}}, bytes(8)), INVALID + r"(?i:.*-2)"),
    "a shape of truths": (raw_safetensors({"a": {**F32, "shape": [True]}}, bytes(8)), INVALID + r"(?i:.*true)"),
    "an unknown type": (raw_safetensors({"a": {**F32, "dtype": "F7"}}, bytes(8)), INVALID + r"(?i:.*F7)"),
    "a path as a name": (raw_safetensors({"../../x": F32}, bytes(8)), "not a tensor's name"),
    "none of the model's tensors": (raw_safetensors({"a": F32}, bytes(8)), "layers, but there are 1 tensors"),
}


@pytest.mark.parametrize("case", list(WEIGHTS))
def test_weights_that_lie_are_refused(place, tmp_path, case):
    data, match = WEIGHTS[case]
    (place / "model.safetensors").write_bytes(data)
    refused(place, tmp_path, match)


def test_weights_of_a_type_that_is_not_read_are_refused(place, tmp_path):
    tensors = load_file(place / "model.safetensors")
    name = next(name for name in tensors if name.endswith("query.weight"))
    save_file({**tensors, name: tensors[name].to(torch.float8_e4m3fn)}, place / "model.safetensors")
    refused(place, tmp_path, "type F8_E4M3 are not read")


@pytest.mark.slow
def test_many_tensors_of_no_size_are_refused(place, tmp_path):
    header = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(100_001)}
    (place / "model.safetensors").write_bytes(raw_safetensors(header))
    refused(place, tmp_path, "100,001 tensors")


CONFIGS = {
    "a thousand million layers": ({"num_hidden_layers": 10**9}, "not a number of a model"),
    "negative layers": ({"num_hidden_layers": -1}, "not a number of a model"),
    "more layers than tensors": ({"num_hidden_layers": 1000}, "1000 layers, but there are"),
    "one layer too few": ({"num_hidden_layers": 1}, "no place for"),
    "a negative width": ({"hidden_size": -32}, "."),
    "no width": ({"hidden_size": 0}, "."),
    "no heads": ({"num_attention_heads": 0}, "."),
    "a width of text": ({"hidden_size": "32"}, "."),
    "another width": ({"hidden_size": 64}, "shape"),
    "another vocabulary": ({"vocab_size": 1 << 23}, "shape"),
    "a number beyond all": ({"max_position_embeddings": 1 << 60}, "not a number of a model"),
    "truth for a number": ({"num_attention_heads": True}, "."),
    "an unknown family": ({"model_type": "bertt"}, "no model family"),
    "no family": ({"model_type": None}, "no model_type"),
    "code for an activation": ({"hidden_act": "__import__('os')"}, "activation"),
}


@pytest.mark.parametrize("case", list(CONFIGS))
def test_a_configuration_of_no_model_is_refused(tmp_path, case):
    changes, match = CONFIGS[case]
    refused(bert_directory(tmp_path / "model", **changes), tmp_path, match)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b'{"model_type": "bert", "x": NaN}', "NaN"),
        (b'{"model_type": "bert", "x": 1e400}', "too large"),
        (b'{"x":' * 100_000, "nested|more entries|not sound"),
        (b'{"model_type": "bert", "model_type": "bert"}', "twice"),
        (b"\xff\xfe", "not sound"),
        (b" " * (2 << 20), "at most"),
        (b'{"x": ' + b"9" * 10_000 + b"}", "not sound"),
    ],
    ids=["nan", "overflow", "deep", "twice", "no UTF-8", "2 MB", "long number"],
)
def test_a_config_that_is_no_sound_json_is_refused(place, tmp_path, data, match):
    (place / "config.json").write_bytes(data)
    refused(place, tmp_path, match)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", ".x.safetensors", "x.bin"])
def test_an_index_that_points_elsewhere_is_refused(place, tmp_path, name):
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    refused(place, tmp_path, "not a safetensors file in its own directory")


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}, {"weight_map": {}}])
def test_an_index_without_a_map_is_refused(place, tmp_path, index):
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(place, tmp_path, "no weight_map")


def test_an_index_that_promises_more_than_there_is_is_refused(place, tmp_path):
    names = {"weight_map": {"lost": "model.safetensors"}}
    (place / "model.safetensors.index.json").write_text(json.dumps(names))
    refused(place, tmp_path, "which .* puts elsewhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_links_are_not_followed(place, tmp_path, name):
    (place / name).rename(place / "real")
    (place / name).symlink_to(place / "real")
    refused(place, tmp_path, "symbolic link")


def test_a_pipe_is_not_waited_for(place, tmp_path):
    (place / "config.json").unlink()
    os.mkfifo(place / "config.json")
    refused(place, tmp_path, "not a plain file")


class Canary:
    """A pickle that leaves a mark when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_pickles_are_not_read_and_the_way_out_is_named(place, tmp_path, name):
    (place / "model.safetensors").unlink()
    canary = place / "canary"
    (place / name).write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(UserError) as caught:
        import_model(str(place), tmp_path / "run")
    assert "BertForMaskedLM.from_pretrained" in caught.value.hint
    assert not canary.exists()
    assert not (tmp_path / "run").exists()


def test_code_that_a_directory_brings_along_is_left_alone(tmp_path):
    place = bert_directory(tmp_path / "model", auto_map={"AutoModel": "evil.Evil"})
    (place / "evil.py").write_text("raise SystemExit('ran')")
    import_model(str(place), tmp_path / "run")
    assert not list((tmp_path / "run").rglob("evil*"))


TOKENIZERS = {
    "nothing": (b"", "not a tokenizer"),
    "an empty object": (b"{}", "not a tokenizer"),
    "no UTF-8": (b"\xff", "not UTF-8"),
    "deep nesting": (b'{"normalizer":' * 5000, "not a tokenizer"),
    "many added tokens": (b'{"added_tokens": [' + b'{"content": "a"},' * 100_001 + b"]}", "adds more than"),
    "too large": (b" " * ((64 << 20) + 1), "at most"),
}


@pytest.mark.parametrize("case", list(TOKENIZERS))
def test_a_tokenizer_that_is_none_is_refused(place, tmp_path, case):
    data, match = TOKENIZERS[case]
    (place / "tokenizer.json").write_bytes(data)
    refused(place, tmp_path, match)


def changed(place: Path, **parts: object) -> None:
    values = json.loads((place / "tokenizer.json").read_text())
    (place / "tokenizer.json").write_text(json.dumps({**values, **parts}))


def test_a_pattern_that_takes_for_ever_is_given_up(place, tmp_path):
    pattern = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    changed(place, pre_tokenizer=pattern)
    refused(place, tmp_path, "not a sound tokenizer")


def test_normalizers_inside_one_another_without_end_are_refused(place, tmp_path):
    inner: dict[str, object] = {"type": "NFC"}
    for _ in range(200):
        inner = {"type": "Sequence", "normalizers": [inner]}
    changed(place, normalizer=inner)
    refused(place, tmp_path, "not a tokenizer")


def test_words_of_any_length_are_not_cut_into_pieces(place, tmp_path):
    model = json.loads((place / "tokenizer.json").read_text())["model"]
    changed(place, model={**model, "max_input_chars_per_word": 10**9})
    run = import_model(str(place), tmp_path / "run")
    start = time.perf_counter()
    assert run.tokenizer.encode("a" * 20_000, add_special_tokens=False).tokens == ["[UNK]"]
    assert time.perf_counter() - start < SECONDS


def test_a_tokenizer_of_more_tokens_than_rows_is_refused(place, tmp_path):
    values = json.loads((place / "tokenizer.json").read_text())
    vocab = values["model"]["vocab"] | {f"further{i}": 1000 + i for i in range(5)}
    changed(place, model={**values["model"], "vocab": vocab})
    refused(place, tmp_path, "belongs|rows for them")
