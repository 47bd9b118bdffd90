"""Importing the tokenizer of a published model, completed with the special tokens that it lacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pretextlm.data.tokenizer import complete, foreign_tokenizer, tokenizer_errors
from pretextlm.errors import UserError, missing_extra
from pretextlm.hf.tokenizer_settings import NAMES, SETTINGS
from pretextlm.hf.untrusted_files import read_object, read_plain

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER, VOCABULARY = "tokenizer.json", "vocab.txt"
CONVERTED = ("vocab.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "spm.model")
"""Vocabularies of tokenizers that transformers converts, for directories older than tokenizer.json."""
COMPANIONS = ("merges.txt", "added_tokens.json")
"""Files beside such a vocabulary."""
CONFIG_FILE = "config.json"
MAX_TOKENIZER_BYTES = 64 << 20


@dataclass(frozen=True)
class ImportedTokenizer:
    """An imported tokenizer.

    Attributes:
        tokenizer: with all our special tokens.
        own_size: its largest id + 1 before any token was added.
        added: the added tokens in the order of their ids.
        original: its own file; None if it was built from the files of a slow tokenizer.
    """

    tokenizer: Tokenizer
    own_size: int
    added: tuple[str, ...]
    original: bytes | None

    @property
    def size(self) -> int:
        """Returns its largest id + 1."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def import_tokenizer(directory: Path) -> ImportedTokenizer:
    """Import the tokenizer of a directory.

    Raises:
        UserError: it is missing or invalid.
    """
    place = directory / TOKENIZER
    original = None
    if place.exists() or place.is_symlink():
        original = read_plain(place, MAX_TOKENIZER_BYTES)
        tokenizer = foreign_tokenizer(_text(original, place), str(place))
    elif (directory / VOCABULARY).exists():
        place = directory / VOCABULARY
        tokenizer = _word_pieces(directory)
    elif found := next((name for name in CONVERTED if (directory / name).exists()), None):
        place = directory / found
        tokenizer = _converted(directory, place)
    else:
        raise UserError(
            f"{directory} has no tokenizer: none of {', '.join((TOKENIZER, VOCABULARY, *CONVERTED))}.",
            "Copy the tokenizer's files beside the weights.",
        )
    with tokenizer_errors(f"{place} is not a sound tokenizer", "Fetch the model again."):
        return _completed(tokenizer, place, original)


def _completed(tokenizer: Tokenizer, place: Path, original: bytes | None) -> ImportedTokenizer:
    before = tokenizer.get_vocab(with_added_tokens=True)
    if not before:
        raise UserError(f"{place} knows no token.", "Fetch the model again.")
    own_size = max(before.values()) + 1
    complete(tokenizer, str(place))
    after = tokenizer.get_vocab(with_added_tokens=True)
    added = sorted((index, token) for token, index in after.items() if token not in before)
    return ImportedTokenizer(tokenizer, own_size, tuple(token for _, token in added), original)


def _word_pieces(directory: Path) -> Tokenizer:
    """Returns BERT's tokenizer built from vocab.txt, for directories older than tokenizer.json."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    place, settings = directory / VOCABULARY, directory / SETTINGS
    # The lines of a text file: of Unicode's other line separators, U+2028, U+0085 and so on, each may be a piece.
    text = _text(read_plain(place, MAX_TOKENIZER_BYTES), place).replace("\r\n", "\n").replace("\r", "\n")
    ids = {piece: index for index, piece in enumerate(text.removesuffix("\n").split("\n"))}
    if "[UNK]" not in ids:
        raise UserError(f"{place} lists no word pieces: it has no [UNK].", f"Give a directory with {TOKENIZER}.")
    lower = bool(read_object(settings).get("do_lower_case", True)) if settings.exists() else True
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([t for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if t in ids])
    if "[CLS]" in ids and "[SEP]" in ids:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return tokenizer


def _converted(directory: Path, place: Path) -> Tokenizer:
    """Returns the tokenizer that transformers makes of the files of a slow one. Code beside them is not run.

    Raises:
        UserError: transformers or sentencepiece is not installed, or cannot read them.
    """
    from tokenizers import Tokenizer

    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise missing_extra("transformers", "hub", f"Reading {place}") from None
    with TemporaryDirectory() as copy:
        for name in (CONFIG_FILE, SETTINGS, NAMES, *COMPANIONS, *CONVERTED):
            if (directory / name).exists():
                (Path(copy) / name).write_bytes(read_plain(directory / name, MAX_TOKENIZER_BYTES))
        try:
            made = AutoTokenizer.from_pretrained(copy, local_files_only=True, trust_remote_code=False)
            return Tokenizer.from_str(made.backend_tokenizer.to_str())
        except Exception as error:
            reason = str(error).strip().split("\n")[0][:300]
            raise UserError(
                f"transformers makes no tokenizer of {place}: {reason}.", f"Give a directory with {TOKENIZER}."
            ) from None


def _text(data: bytes, place: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{place} is not UTF-8.", "Fetch the model again.") from None
