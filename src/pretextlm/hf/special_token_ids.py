"""Special token ids named by a published model's settings, which take precedence over its tokenizer's names.

generation_config.json describes generation, config.json training; if both name an end token, generation's counts, as
in transformers. Roles that neither names are those of tokenizer_config.json. An encoder-decoder without a named decoder
start has its family's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pretextlm.data.tokenizer import vocabulary_of
from pretextlm.model.config import SpecialTokenIds

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pretextlm.hf.tokenizer_settings import TokenizerSettings
    from pretextlm.model.config import ModelConfig
    from pretextlm.model.families.base import Family

MOST_ENDS = 64


def special_token_ids(
    family: Family,
    config: ModelConfig,
    tokenizer: Tokenizer,
    values: Mapping[str, Any],
    generation: Mapping[str, Any],
    settings: TokenizerSettings,
) -> SpecialTokenIds:
    """Returns the ids in the roles given by the settings, if they differ from those found by name.

    Args:
        family: of the model.
        config: its shape.
        tokenizer: with all our special tokens.
        values: of config.json.
        generation: of generation_config.json; empty if there is none.
        settings: of tokenizer_config.json.
    """
    by_name = vocabulary_of(tokenizer)

    def token(*named: Any) -> int | None:
        every = (index for one in named for index in _ids(one) if tokenizer.id_to_token(index) is not None)
        return next(every, None)

    trained_with = _ids(values.get("eos_token_id"))
    ends = _ids(generation.get("eos_token_id")) or trained_with
    first = [index for index in trained_with if index in ends]
    if not ends and (named := settings.role("eos")) is not None:
        ends = [named]
    eos = tuple(dict.fromkeys(i for i in (*first, *ends) if tokenizer.id_to_token(i) is not None))[:MOST_ENDS]
    pad = token(values.get("pad_token_id"), generation.get("pad_token_id"), settings.role("pad"))
    bos = token(values.get("bos_token_id"), generation.get("bos_token_id"), settings.role("bos"))
    others: dict[str, Any] = {name: settings.role(name) for name in ("unk", "cls", "sep", "mask")}
    ours = {"pad": by_name.pad if pad is None else pad, "eos": eos[0] if eos else by_name.eos}
    start = None
    if config.architecture == "encoder_decoder":
        name = "decoder_start_token_id"
        start = token(values.get(name), generation.get(name))
        start = ours[family.decoder_start] if start is None else start
    forced = token(generation.get("forced_bos_token_id"), values.get("forced_bos_token_id"))
    ids = SpecialTokenIds(
        **{name: index for name, index in others.items() if index != getattr(by_name, name)},
        pad=pad if pad != by_name.pad else None,
        bos=bos if bos != by_name.bos else None,
        eos=eos if eos and eos != (by_name.eos,) else None,
        decoder_start=start if start != ours["pad"] else None,
        forced_bos=forced if config.architecture == "encoder_decoder" else None,
    )
    return ids.model_copy(update={"template": settings.template(ids)})


def _ids(named: Any) -> list[int]:
    """Returns one id or a list of ids as a list; anything else as an empty list."""
    many = named if isinstance(named, list) else [named]
    return [index for index in many if type(index) is int and 0 <= index < 1 << 32]
