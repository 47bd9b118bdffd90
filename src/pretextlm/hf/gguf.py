"""Conversion of a GGUF file to a directory in Hugging Face's format, by transformers.

GGUF is the single-file format of llama.cpp: quantized weights, tokenizer and chat template. Its blocks are dequantized
to fp32; transformers knows the names of tensors and settings of each architecture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pretextlm.errors import UserError, missing_extra
from pretextlm.hf.safetensors_files import WEIGHTS
from pretextlm.hf.untrusted_files import open_plain

SUFFIX = ".gguf"
MAGIC = b"GGUF"


def convert_gguf(file: Path, out: Path) -> None:
    """Writes config.json, model.safetensors, tokenizer files and chat template of a GGUF file into a directory.

    Raises:
        UserError: the file is no GGUF file, transformers cannot read it, or a package is missing.
    """
    with open_plain(file) as opened:
        if opened.read(4) != MAGIC:
            raise UserError(f"{file} is not a GGUF file.", "Give a .gguf file, or a directory of safetensors.")
    try:
        import accelerate  # noqa: F401
        import gguf  # noqa: F401
        import transformers
    except ImportError as error:
        raise missing_extra(str(error.name), "gguf", "Reading a GGUF file") from None
    place: dict[str, Any] = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(**place)
        config = transformers.AutoConfig.from_pretrained(**place)
        kind = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
        model = kind.from_pretrained(**place, dtype="float32", **_dequantize(transformers))
    except Exception as error:  # ValueError, KeyError, OSError …: whatever a parser of a damaged file raises
        reason = str(error).strip().split("\n")[0][:300]
        raise UserError(f"transformers cannot read {file}: {reason}.", "Fetch the file again.") from None
    _save(model, out)
    tokenizer.save_pretrained(out)


def _dequantize(transformers: Any) -> dict[str, Any]:
    """Returns the arguments for fp32 weights: newer releases keep the blocks unless they are told otherwise."""
    kind = getattr(transformers, "GgufConfig", None)
    return {} if kind is None else {"quantization_config": kind(dequantize=True)}


def _save(model: Any, out: Path) -> None:
    """Writes weights and config.json; transformers' own `save_pretrained` refuses models that came from GGUF."""
    from safetensors.torch import save_file

    tensors, seen = {}, set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:  # a tied head is the embedding
            seen.add(tensor.data_ptr())
            tensors[name] = tensor.contiguous()
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
    config = model.config
    config.architectures = [type(model).__name__]
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.save_pretrained(out)
    model.generation_config.save_pretrained(out)
