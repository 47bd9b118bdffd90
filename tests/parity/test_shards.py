"""Models in several files: those of transformers are read, and those written here are read by transformers."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from tests.foreign import BERT, word_pieces
from tests.parity.families import randomised
from typer.testing import CliRunner

from pretextlm.cli.main import app

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

INDEX = "model.safetensors.index.json"
SHAPE = {name: value for name, value in BERT.items() if name not in ("model_type", "architectures")}


def tensors_of(place):
    return {name: t for file in sorted(place.glob("*.safetensors")) for name, t in load_file(file).items()}


def test_shards_come_in_and_go_out_by_the_command_line_with_the_same_bytes(tmp_path):
    config = transformers.BertConfig(**{**SHAPE, "hidden_size": 128, "intermediate_size": 512})
    model = randomised(transformers.BertForMaskedLM(config))
    theirs, run, out = tmp_path / "theirs", tmp_path / "run", tmp_path / "out"
    model.save_pretrained(theirs, max_shard_size="400KB")
    word_pieces().save(str(theirs / "tokenizer.json"))
    assert len(set(json.loads((theirs / INDEX).read_text())["weight_map"].values())) > 2
    for command in (["import", str(theirs), "--out", str(run)], ["export", str(run), str(out)]):
        shards = ["--max-shard-size", "0.001"] if command[0] == "export" else []
        result = CliRunner().invoke(app, [*command, *shards])
        assert result.exit_code == 0, result.output
    files = sorted(path.name for path in out.glob("*.safetensors"))
    assert files == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert all((out / file).stat().st_size < 1_100_000 for file in files)
    expected, found = tensors_of(theirs), tensors_of(out)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    again, report = transformers.BertForMaskedLM.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
