"""Names of the special tokens: ours, and those that published tokenizers give to the same tokens."""

from __future__ import annotations

from collections.abc import Container, Mapping

PAD, UNK, CLS, SEP, MASK, BOS, EOS = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>"
NAMED = (PAD, UNK, CLS, SEP, MASK, BOS, EOS)
OTHER_NAMES = {
    PAD: ("<pad>", "<|pad|>", "<|finetune_right_pad_id|>"),
    UNK: ("<unk>",),
    CLS: ("<cls>", "<s>"),
    SEP: ("<sep>", "</s>"),
    MASK: ("<mask>",),
    BOS: ("<bos>", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>"),
    EOS: ("<eos>", "<|end_of_text|>", "<|endoftext|>"),
}
"""Names of the same tokens in published tokenizers, used where a tokenizer has none of our name; the first one that is
a special token counts. One token may have two roles, as RoBERTa's <s> and GPT-2's <|endoftext|> do."""
FEW_SENTINELS, MANY_SENTINELS, MANY_FROM = 100, 256, 8192
NLU, NLG, S2S = "[NLU]", "[NLG]", "[S2S]"
REGULAR, SHORT, EXTREME = "[R]", "[S]", "[X]"
FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE = "<fim_prefix>", "<fim_suffix>", "<fim_middle>"
FURTHER = (NLU, NLG, S2S, REGULAR, SHORT, EXTREME, FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE)
"""Special tokens of some objectives: the mode tokens of UL2's denoisers and the fill-in-the-middle markers."""


def sentinel(index: int) -> str:
    """Returns the text of the sentinel token number `index`, as T5 writes it."""
    return f"<extra_id_{index}>"


def default_sentinels(vocab_size: int) -> int:
    """Returns the number of sentinels of a tokenizer of so many ids, unless another is given.

    Rows of 512 tokens need 128 if half of them are hidden. In 8,192 ids, 156 sentinels more cost 0.25 % of bytes per
    token (4.76 of English), in 4,096 ids 0.8 % and in 2,048 ids 2.3 %: small vocabularies have a hundred, as T5 has.
    """
    return MANY_SENTINELS if vocab_size >= MANY_FROM else FEW_SENTINELS


def own_names(ids: Mapping[str, int], special: Container[int] = frozenset()) -> dict[str, str]:
    """Find the seven named special tokens in a tokenizer.

    Args:
        ids: id of every token of the tokenizer.
        special: ids that the tokenizer marks as special.

    Returns:
        Our name → the tokenizer's name. Tokens that the tokenizer lacks are left out.
    """
    found = {}
    for token in NAMED:
        others = (name for name in OTHER_NAMES[token] if name in ids and ids[name] in special)
        name = token if token in ids else next(others, None)
        if name is not None:
            found[token] = name
    return found
