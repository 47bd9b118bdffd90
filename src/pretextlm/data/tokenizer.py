"""Training tokenizers, and loading existing ones; either way with the special tokens of data/special_tokens.py.

Three of the kinds that can be trained (byte-level BPE, WordPiece, Unigram) work on bytes: the 256 bytes are in every
vocabulary, so that no text is unknown in any language and decoding restores the text exactly. The fourth kind has one
token per character of the corpus, and the unknown token for all other characters.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pretextlm.data.special_tokens import FEW_SENTINELS, FURTHER, NAMED, UNK, default_sentinels, own_names, sentinel
from pretextlm.data.token_splits import token_splits_of
from pretextlm.data.tokenizer_probe import probe_tokenizer
from pretextlm.data.untrusted_tokenizer import HINT, build, check_tokenizer_json
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.plain_files import read_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Kind = Literal["bpe", "wordpiece", "unigram", "character"]
KINDS: tuple[Kind, ...] = ("bpe", "wordpiece", "unigram", "character")
MAX_TOKENIZER_BYTES = 256 << 20

# Marks a token that continues a word. Not BERT's "##": that is text in a byte vocabulary, and decoding would lose it.
CONTINUES = "⁀"

# GPT-2's pattern (Radford et al. 2019) with combining marks counted as letters and every run bounded, so that no
# input, however long its lines, makes an encoder slow: a word of 24 letters is at most 97 bytes.
WORD_PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)| ?[\p{L}\p{M}]{1,24}| ?\p{N}{1,24}| ?[^\s\p{L}\p{M}\p{N}]{1,24}|\s{1,24}(?!\S)|\s{1,24}"
)


def special_tokens(sentinels: int = FEW_SENTINELS) -> list[str]:
    """Returns the names of all special tokens, in the order of their ids from 0 in a new tokenizer."""
    return [*NAMED, *(sentinel(index) for index in range(sentinels)), *FURTHER]


def train_tokenizer(kind: Kind, texts: Iterable[str], vocab_size: int, sentinels: int | None = None) -> Tokenizer:
    """Train a tokenizer.

    Args:
        kind: "bpe", "wordpiece", "unigram" or "character".
        texts: the sample. BPE and WordPiece depend on it and the options alone; the library's Unigram trainer sums in
            random order, so that two trainings may differ in their last few tokens.
        vocab_size: total number of ids, special tokens and sentinels included. A small sample may give fewer; the
            character tokenizer keeps the most frequent characters.
        sentinels: number of <extra_id_N> tokens; None: as `default_sentinels` says.

    Returns:
        The trained tokenizer.

    Raises:
        UserError: `vocab_size` cannot hold the special tokens and the bytes.
    """
    specials = special_tokens(default_sentinels(vocab_size) if sentinels is None else sentinels)
    if kind == "character":
        return _characters(texts, vocab_size, specials)
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    least = len(specials) + len(alphabet) * (2 if kind == "wordpiece" else 1)
    if vocab_size < least:
        raise UserError(
            f"A vocabulary of {vocab_size:,} is too small: {kind} needs {least} for special tokens and bytes alone.",
            f"Give --vocab-size {max(1024, -(-least // 64) * 64)} or more.",
        )
    common: dict[str, Any] = {
        "vocab_size": vocab_size,
        "special_tokens": specials,
        "initial_alphabet": alphabet,
        "show_progress": False,
    }
    trainer: Any
    if kind == "bpe":
        tokenizer, trainer = Tokenizer(models.BPE()), trainers.BpeTrainer(**common)
    elif kind == "wordpiece":
        # Numbered by us, as special tokens are: the trainer itself numbers continuing bytes in random order.
        common["special_tokens"] = specials + [CONTINUES + byte for byte in alphabet]
        tokenizer = Tokenizer(models.WordPiece(unk_token=UNK, max_input_chars_per_word=100))
        trainer = trainers.WordPieceTrainer(**common, continuing_subword_prefix=CONTINUES)
    else:
        tokenizer, trainer = Tokenizer(models.Unigram()), trainers.UnigramTrainer(**common, unk_token=UNK)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace(CONTINUES, ""), decoders.ByteLevel()])
    tokenizer.train_from_iterator(texts, trainer)
    return from_json(_finished(tokenizer.to_str()), "the trained tokenizer")


def _characters(texts: Iterable[str], vocab_size: int, specials: list[str]) -> Tokenizer:
    """Returns a tokenizer with one token per character, the most frequent ones, in the order of their code points."""
    from tokenizers import Tokenizer, decoders, models

    room = vocab_size - len(specials)
    if room < 1:
        raise UserError(
            f"A vocabulary of {vocab_size:,} is too small: there are {len(specials)} special tokens.",
            f"Give --vocab-size {len(specials) + 256} or more, or fewer --sentinels.",
        )
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    kept = sorted(sorted(counts, key=lambda character: (-counts[character], character))[:room])
    ids = {token: index for index, token in enumerate([*specials, *kept])}
    # BPE without merges takes a text apart into its characters, whatever they are.
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[], unk_token=UNK))
    tokenizer.add_special_tokens(specials)
    tokenizer.decoder = decoders.Fuse()
    return from_json(tokenizer.to_str(), "the new tokenizer")


def _finished(text: str) -> str:
    """Returns the JSON of the trained tokenizer with WordPiece's continuation bytes no longer marked as special."""
    values = json.loads(text)
    values["added_tokens"] = [t for t in values["added_tokens"] if not t["content"].startswith(CONTINUES)]
    if values["model"]["type"] == "WordPiece":
        values["model"]["continuing_subword_prefix"] = CONTINUES
    return json.dumps(values, ensure_ascii=False)


def load_tokenizer(path: Path) -> Tokenizer:
    """Load a tokenizer.json and set it to encode the text of a special token as text.

    Returns:
        The tokenizer.

    Raises:
        UserError: the file is not a tokenizer.json, or exceeds the limits of `check_tokenizer_json`.
    """
    text = _read(path)
    check_tokenizer_json(text, str(path))
    return from_json(text, str(path))


def foreign_tokenizer(text: str, where: str) -> Tokenizer:
    """Like `load_tokenizer`, from the content of a file of anybody's, which is tried out first.

    Raises:
        UserError: it is not a tokenizer.json, exceeds a limit, or is not sound.
    """
    check_tokenizer_json(text, where)
    probe_tokenizer(text, where)
    return from_json(text, where)


def _read(path: Path) -> str:
    try:
        return read_text(path, MAX_TOKENIZER_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"Cannot read {path}: {reason}.", "Give a tokenizer.json or a directory with one.") from None


def from_json(text: str, where: str) -> Tokenizer:
    """Like `load_tokenizer`, from the file's content; `where` names it in an error."""
    with tokenizer_errors(f"{where} is not a tokenizer.json", "Give one in Hugging Face's format."):
        return build(text)


@contextmanager
def tokenizer_errors(
    what: str = "The tokenizer fails on this text", hint: str = "Use another tokenizer."
) -> Iterator[None]:
    """Turns errors of the tokenizers library within the block into a UserError; its panics are no Exception.

    Raises:
        UserError: `what`, with the library's reason.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        raise UserError(f"{what}: {str(error)[:200]}.", hint) from None


def same_ids(one: Path, other: Path) -> bool:
    """Returns whether two files tokenizer.json give every text the same ids.

    What surrounds a text, decoding, padding and truncation may differ: an exported tokenizer has the template of its
    model, and libraries write the flags of special tokens anew, which text never becomes here.

    Raises:
        UserError: one of them is not a tokenizer.json.
    """
    texts = {str(place): _read(place) for place in (one, other)}
    if len(set(texts.values())) == 1:
        return True
    ours, theirs = (_text_to_ids(from_json(text, where)) for where, text in texts.items())
    return ours == theirs


def _text_to_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns the parts of a tokenizer.json that turn text into ids."""
    values: dict[str, Any] = json.loads(tokenizer.to_str())
    added = [
        {key: token[key] for key in ("id", "content", "special")} if token["special"] else token
        for token in values["added_tokens"]
    ]
    kept = ("model", "normalizer", "pre_tokenizer")
    return {"added_tokens": sorted(added, key=lambda token: token["id"]), **{key: values[key] for key in kept}}


def parsing_one(tokenizer: Tokenizer, token: int) -> Tokenizer:
    """Returns a tokenizer that reads the name of one special token as that token, and those of all others as text."""
    values = json.loads(tokenizer.to_str())
    for one in values["added_tokens"]:
        one["special"] = one["special"] and one["id"] != token
    return from_json(json.dumps(values), "the tokenizer")


def adopt_tokenizer(place: Path, sentinels: int | None = None) -> Tokenizer:
    """Load an existing tokenizer and add the special tokens it lacks.

    Args:
        place: a tokenizer.json, a directory that has one, or a store.
        sentinels: number of <extra_id_N> tokens to add if it has none; None: as `default_sentinels` says.

    Returns:
        The completed tokenizer.

    Raises:
        UserError: there is no tokenizer, it is not sound, or it encodes the text of a special token as that token.
    """
    file = place / "tokenizer.json" if place.is_dir() else place
    return complete(foreign_tokenizer(_read(file), str(file)), str(place), sentinels)


def complete(tokenizer: Tokenizer, where: str, sentinels: int | None = None) -> Tokenizer:
    """Add the special tokens that a tokenizer lacks, in place. Doing so twice changes nothing.

    If its model would encode the text of a special token as that token (many Unigram vocabularies hold "</s>" as an
    ordinary piece), a pre-tokenizer splits off the first character of that text; all other text is encoded as before.

    Returns:
        The same tokenizer.

    Raises:
        UserError: it still encodes the text of a special token as that token.
    """
    have = tokenizer.get_vocab(with_added_tokens=True)
    under_other_names = own_names(have, _special(tokenizer))
    added = default_sentinels(len(have)) if sentinels is None else sentinels
    wanted = special_tokens(0 if sentinel(0) in have else added)
    tokenizer.add_special_tokens([token for token in wanted if under_other_names.get(token, token) == token])
    tokenizer.encode_special_tokens = True
    faked = _faked(tokenizer)
    if faked:
        _cut_apart(tokenizer, faked)
        faked = _faked(tokenizer)
    if faked:
        raise UserError(
            f"The tokenizer {where} reads the text {faked[0]!r} as its special token, so text could fake one.",
            "Train one on the corpus instead: --tokenizer bpe, wordpiece, unigram or character.",
        )
    written = from_json(tokenizer.to_str(), where)
    if written.get_vocab(with_added_tokens=True) != tokenizer.get_vocab(with_added_tokens=True):
        raise UserError(f"The tokenizer {where} has other ids once it is written and read again.", HINT)
    return tokenizer


def _faked(tokenizer: Tokenizer) -> list[str]:
    """Returns the special tokens whose text is encoded as the token itself."""
    vocabulary = vocabulary_of(tokenizer)
    unknown = tokenizer.encode("\U0010fffd", add_special_tokens=False).ids  # a character that no vocabulary has
    names = sorted(token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special)
    texts = tokenizer.encode_batch([f"a {name} b{name}" for name in names], add_special_tokens=False)
    real = vocabulary.special.difference([vocabulary.unk, *unknown])
    return [name for name, text in zip(names, texts, strict=True) if real.intersection(text.ids)]


def _cut_apart(tokenizer: Tokenizer, names: Iterable[str]) -> None:
    """Add a pre-tokenizer that splits these texts after their first character."""
    from tokenizers import Regex, pre_tokenizers

    pattern = "|".join(f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in names if len(name) > 1)
    if not pattern:
        return
    cut = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    before = tokenizer.pre_tokenizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut] if before is None else [before, cut])


def _special(tokenizer: Tokenizer) -> frozenset[int]:
    return frozenset(index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special)


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """Returns the tokenizer's size, special ids and token splits.

    Raises:
        UserError: a special token is missing, or there is no token at all.
    """
    special = _special(tokenizer)
    ids = tokenizer.get_vocab(with_added_tokens=True)
    if not ids:
        raise UserError("The tokenizer knows no token.", "Give another tokenizer.json, or train one: --tokenizer bpe.")
    vocabulary = Vocabulary.resolve(ids, max(ids.values()) + 1, special)
    return replace(vocabulary, make_token_splits=partial(token_splits_of, tokenizer))
