"""How a row of text is shaped: the special tokens around the documents it reads, and its lengths."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Frame:
    """Special tokens around the documents of the stream that an objective reads; None adds no token.

    Attributes:
        begin: id inserted before every document.
        end: id inserted after every document.
        lead: id at the start of every row, in addition to the tokens that the row reads.
        sentences: rows also report where sentences begin.
    """

    begin: int | None = None
    end: int | None = None
    lead: int | None = None
    sentences: bool = False


@dataclass(frozen=True)
class Variant:
    """One shape of row that an objective reads.

    Attributes:
        name: "main", or the denoiser's name in a mixture.
        raw: stream tokens that a row reads (its lead token not counted).
        length: width of the (encoder's) input row.
        decoder_length: width of the decoder row; 0 without one.
        overlap: how many of the raw tokens the next row reads again (the causal model's one token of look-ahead).
        weight: share of the rows that have this shape.
        restart: the rows of every epoch begin at the same positions in the text, so that a row number always reads
            the same tokens (static noise needs it); otherwise an epoch continues where the previous one ended.
    """

    name: str
    raw: int
    length: int
    decoder_length: int = 0
    overlap: int = 0
    weight: float = 1.0
    restart: bool = False
