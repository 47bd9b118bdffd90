"""What tokenizer_config.json says beside tokenizer.json: roles of special tokens, and the template around texts.

As in transformers 5, the post-processor of tokenizer.json decides what surrounds texts; add_bos_token and add_eos_token
have no effect beside it. Without one, the tokenizer class does: BERT's adds [CLS] and [SEP], the general one nothing.
The second text of a pair has token type 1 only for models whose tokenizer passes token types on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm.data.text_template import TextTemplate, template_of
from pretextlm.data.tokenizer import vocabulary_of
from pretextlm.hf.untrusted_files import read_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pretextlm.model.config import SpecialTokenIds

SETTINGS, NAMES = "tokenizer_config.json", "special_tokens_map.json"
ROLES = ("pad", "unk", "cls", "sep", "mask", "bos", "eos")

CLASSES = {
    "albert": "AlbertTokenizer",
    "bart": "RobertaTokenizer",
    "bert": "BertTokenizer",
    "big_bird": "BigBirdTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "distilbert": "BertTokenizer",
    "electra": "BertTokenizer",
    "gpt2": "GPT2Tokenizer",
    "longformer": "RobertaTokenizer",
    "mbart": "MBartTokenizer",
    "mt5": "T5Tokenizer",
    "roberta": "RobertaTokenizer",
    "t5": "T5Tokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
"""Tokenizer class of a family, where the class does more than read tokenizer.json."""
ALIASES = {
    "BartTokenizer": "RobertaTokenizer",
    "ElectraTokenizer": "BertTokenizer",
    "LongformerTokenizer": "RobertaTokenizer",
    "MT5Tokenizer": "T5Tokenizer",
}
NO_CLASS = ("mistral", "modernbert")
"""Families whose tokenizer is read from tokenizer.json alone, whatever class is named."""
LOWER_CASING = ("BertTokenizer", "DistilBertTokenizer")
NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
"""Settings of these classes that replace those of the normalizer in tokenizer.json."""
BYTE_LEVEL = ("GPT2Tokenizer", "RobertaTokenizer")
WITH_TYPES = ("BertTokenizer", "DebertaV2Tokenizer")
"""Classes that pass token types on to the model."""


class TokenizerSettings:
    """The settings of a published tokenizer.

    Args:
        directory: of the model.
        model: values of its config.json.
        tokenizer: with all our special tokens.
    """

    def __init__(self, directory: Path, model: Mapping[str, Any], tokenizer: Tokenizer) -> None:
        read = [read_object(directory / name) for name in (NAMES, SETTINGS) if (directory / name).exists()]
        self.values: dict[str, Any] = {key: value for one in read for key, value in one.items()}
        self.model, self.tokenizer = model, tokenizer

    def role(self, name: str) -> int | None:
        """Returns the id of the token that is named for a role ("cls"); None if none is."""
        token = self.values.get(f"{name}_token")
        token = token.get("content") if isinstance(token, dict) else token
        return self.tokenizer.token_to_id(token) if isinstance(token, str) else None

    @property
    def tokenizer_class(self) -> str:
        """Returns the class of transformers that reads the tokenizer, where it matters; "" for the general one."""
        family = str(self.model.get("model_type"))
        named = self.values.get("tokenizer_class") or self.model.get("tokenizer_class")
        if family in NO_CLASS or not isinstance(named, str):
            return CLASSES.get(family, "")
        named = named.removesuffix("Fast")
        return ALIASES.get(named, named)

    def apply_options(self) -> None:
        """Sets the options that the tokenizer class takes from its settings, whatever tokenizer.json says."""
        from tokenizers import normalizers, pre_tokenizers

        old, splitter = self.tokenizer.normalizer, self.tokenizer.pre_tokenizer
        given = {name: self.values[key] for key, name in NORMALIZER.items() if key in self.values}
        given = {name: value for name, value in given.items() if value is None or isinstance(value, bool)}
        if given and self.tokenizer_class in LOWER_CASING and isinstance(old, normalizers.BertNormalizer):
            usual = {name: getattr(old, name) for name in ("clean_text", *NORMALIZER.values())}
            self.tokenizer.normalizer = normalizers.BertNormalizer(**usual | given)
        space = self.values.get("add_prefix_space")
        bytes_alone = self.tokenizer_class in BYTE_LEVEL and isinstance(splitter, pre_tokenizers.ByteLevel)
        if bytes_alone and isinstance(space, bool) and space != splitter.add_prefix_space:
            self.tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)

    def template(self, ids: SpecialTokenIds) -> TextTemplate:
        """Returns what surrounds texts.

        Args:
            ids: special tokens in the roles that the settings give them.

        Raises:
            UserError: the tokenizer has no token for any text.
        """
        has_own = self.tokenizer.post_processor is not None
        found = template_of(self.tokenizer) if has_own else self._of_class(ids)
        names = self.values.get("model_input_names")
        typed = "token_type_ids" in names if isinstance(names, list) else self.tokenizer_class in WITH_TYPES
        return found if typed else found.without_types()

    def _of_class(self, ids: SpecialTokenIds) -> TextTemplate:
        """Returns the template that the tokenizer class builds by itself."""
        known, name = ids.apply(vocabulary_of(self.tokenizer)), self.tokenizer_class
        match name:
            case (
                "AlbertTokenizer" | "BertTokenizer" | "BigBirdTokenizer" | "DebertaV2Tokenizer" | "DistilBertTokenizer"
            ):
                return TextTemplate.of_tokens([known.cls], [known.sep], [known.sep])
            case "RobertaTokenizer" | "XLMRobertaTokenizer":
                return TextTemplate.of_tokens([known.cls], [known.sep, known.sep], [known.sep], second=0)
            case "T5Tokenizer":
                return TextTemplate.of_tokens([], [known.eos], [known.eos])
            case "MBartTokenizer":
                language = self.tokenizer.token_to_id(str(self.values.get("src_lang") or "en_XX"))
                return TextTemplate.of_tokens([], [], [known.eos, *([] if language is None else [language])])
            case _:
                return TextTemplate.of_tokens([], [], [])
