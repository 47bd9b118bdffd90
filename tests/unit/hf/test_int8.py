"""Eight-bit weights: how far off they may be, that they come back, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.foreign import bert_directory

from pretextlm.errors import UserError
from pretextlm.hf import int8
from pretextlm.hf.export_model import export_model
from pretextlm.hf.import_model import import_model

KINDS = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = bert_directory(tmp_path_factory.mktemp("foreign") / "model")
    return import_model(str(place), tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(params=[int8.PACK, int8.PLAIN])
def exported(request, run, tmp_path, monkeypatch):
    """In either format; what reads it does not ask which model is written in which."""
    monkeypatch.setattr(int8, "format_of", lambda *_: request.param)
    export_model(run.directory, tmp_path / "out", quantize=True)
    return tmp_path / "out"


def changed(directory, **changes):
    """The directory with other values under quantization_config."""
    values = json.loads((directory / "config.json").read_text())
    values[int8.KEY] = {**values[int8.KEY], **changes}
    (directory / "config.json").write_text(json.dumps(values))
    return directory


@pytest.mark.parametrize("kind", KINDS)
def test_no_weight_is_off_by_more_than_half_a_step(kind):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 50, generator=generator) * torch.logspace(-5, 3, 64)[:, None]
    if kind == torch.float16:
        weight = weight.clamp(-30_000, 30_000)
    q, scale = int8.quantize(weight, kind)
    off = (weight.double() - q.double() * scale.double()).abs()
    assert (off <= scale.double() * (0.5 + 1e-6)).all()
    assert scale.dtype == kind


def test_the_largest_weight_of_a_row_is_127_steps_and_a_row_of_zeros_stays_one():
    weight = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]])
    q, scale = int8.quantize(weight, torch.float32)
    assert q.tolist() == [[64, -127, 32], [0, 0, 0]]
    assert torch.equal(int8.dequantize(q, scale)[1], weight[1])


@pytest.mark.parametrize("columns", [1, 3, 4, 5, 31, 32, 33])
def test_what_is_packed_comes_back(columns):
    generator = torch.Generator().manual_seed(columns)
    q = torch.randint(-128, 128, (7, columns), generator=generator, dtype=torch.int8)
    packed = int8.pack(q)
    assert packed.dtype == torch.int32
    assert packed.shape == (7, -(-columns // 4))
    assert torch.equal(int8.unpack(packed, columns), q)


def test_the_first_of_four_values_lies_in_the_lowest_byte():
    assert int8.pack(torch.tensor([[-128, -127, 0, 127]], dtype=torch.int8)).tolist() == [
        [int.from_bytes(bytes([0, 1, 128, 255]), "little", signed=True)]
    ]


def test_an_export_imports_as_the_weights_it_stands_for(run, exported, tmp_path):
    again = import_model(str(exported), tmp_path / "again").load_model().state_dict()
    whole = run.load_model().state_dict()
    assert set(again) == set(whole)
    for name, tensor in whole.items():
        if name.endswith("_proj.weight"):
            expected = int8.dequantize(*int8.quantize(tensor, torch.float32))
            assert not torch.equal(tensor, expected)
        else:
            expected = tensor
        assert torch.equal(again[name], expected), name


def test_an_export_of_that_import_is_whole_and_says_what_it_was(exported, tmp_path):
    import_model(str(exported), tmp_path / "again")
    done = export_model(tmp_path / "again", tmp_path / "whole")
    assert not done.untouched
    assert int8.KEY not in json.loads((tmp_path / "whole" / "config.json").read_text())
    assert all(t.is_floating_point() for t in load_file(tmp_path / "whole" / "model.safetensors").values())
    assert "eight-bit integers" in (tmp_path / "whole" / "README.md").read_text()


def test_a_sharded_export_with_bf16_imports_alike(run, tmp_path):
    export_model(run.directory, tmp_path / "one", quantize=True, dtype="bf16")
    export_model(run.directory, tmp_path / "many", quantize=True, dtype="bf16", max_shard_bytes=4_000)
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    one, many = (import_model(str(tmp_path / n), tmp_path / f"run-{n}").load_model() for n in ("one", "many"))
    assert all(torch.equal(tensor, many.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_the_matrices_take_a_quarter_of_their_bytes(run, exported):
    stored = load_file(exported / "model.safetensors")
    packed = sum(t.nbytes for n, t in stored.items() if not t.is_floating_point() and not n.endswith(int8.SHAPE))
    whole = sum(t.nbytes for name, t in run.load_model().state_dict().items() if name.endswith("_proj.weight"))
    assert 4 * packed == whole


@pytest.mark.parametrize(
    "changes",
    [
        {"quant_method": "gptq"},
        {"format": "float-quantized"},
        {"config_groups": {}},
        {"config_groups": {"group_0": {"weights": {**int8._WEIGHTS, "num_bits": 4}}}},
        {"config_groups": {"group_0": {"weights": {**int8._WEIGHTS, "symmetric": False}}}},
        {"config_groups": {"group_0": {"weights": {**int8._WEIGHTS, "strategy": "group"}}}},
        {"config_groups": {"group_0": {"weights": int8._WEIGHTS, "input_activations": {"num_bits": 8}}}},
        {"config_groups": {"group_0": 7}},
    ],
)
def test_weights_quantised_in_another_way_are_refused(exported, tmp_path, changes):
    with pytest.raises(UserError, match="quantised by"):
        import_model(str(changed(exported, **changes)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_parts_that_do_not_fit_are_refused(exported, tmp_path):
    stored = load_file(exported / "model.safetensors")
    name = next(name for name in stored if name.endswith(int8.SCALE)).removesuffix(int8.SCALE)
    wrong = {
        int8.SCALE: [torch.ones(3, 1), torch.ones(32), torch.ones(32, 1, dtype=torch.int32), None],
        int8.SHAPE: [torch.tensor([32, 999_999]), torch.tensor([32, -4]), torch.tensor([32]), torch.ones(2), None],
        int8.PACKED: [torch.ones(32, 3, dtype=torch.int32), torch.ones(32, 8), None],
        "": [torch.ones(32, 32), torch.ones(3, dtype=torch.int8), None],
    }
    for ending, tensors in wrong.items():
        for tensor in tensors if name + ending in stored else []:
            others = {n: t for n, t in stored.items() if n != name + ending}
            save_file(others if tensor is None else {**others, name + ending: tensor}, exported / "model.safetensors")
            with pytest.raises(UserError):
                import_model(str(exported), tmp_path / "run")
            assert not (tmp_path / "run").exists()
