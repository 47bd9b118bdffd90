"""The encoder's state at a sentinel, added to the decoder's input at the same sentinel.

    source           The <0> sat on the <1> .        decoder's input   [PAD] <0> cat <1> mat
    encoder's states  h₀ h₁  h₂  h₃ h₄  h₅ h₆                          e(PAD) e(<0>) + h₁ e(cat) e(<1>) + h₅ e(mat)

A decoder that learns where to look by cross-attention alone has to find the sentinel among all tokens of the source,
while the encoder's state there says nothing yet about what is missing, and the encoder has no reason to say it while
nobody looks: both wait for each other, and a small training ends before it has begun (docs/results/encoder_decoder.md).
With the sum, the encoder is trained through its sentinels from the first step, as a masked language model is.

Axis letters: B rows, T positions of the decoder, S positions of the encoder, D hidden_size.
"""

from __future__ import annotations

import torch
from torch import Tensor


def match_sentinels(
    decoder_ids_BT: Tensor,
    encoder_ids_BS: Tensor,
    sentinel_ids: tuple[int, int],
    decoder_segments_BT: Tensor | None = None,
    encoder_segments_BS: Tensor | None = None,
) -> Tensor:
    """Find the place of each of the decoder's sentinels in the source.

    Args:
        decoder_ids_BT: Input of the decoder.
        encoder_ids_BS: Input of the encoder.
        sentinel_ids: Lowest and highest id of a sentinel.
        decoder_segments_BT: Segment of each position; None when every row is one.
        encoder_segments_BS: Likewise, of the encoder's row.

    Returns:
        (B, T, S) booleans, True where both are the same sentinel in the same segment.
    """
    first, last = sentinel_ids
    sentinel_BT = (decoder_ids_BT >= first) & (decoder_ids_BT <= last)
    match_BTS = (decoder_ids_BT[:, :, None] == encoder_ids_BS[:, None, :]) & sentinel_BT[:, :, None]
    if decoder_segments_BT is not None and encoder_segments_BS is not None:
        match_BTS &= decoder_segments_BT[:, :, None] == encoder_segments_BS[:, None, :]
    return match_BTS


def add_encoder_states(x_BTD: Tensor, match_BTS: Tensor, encoder_hidden_BSD: Tensor) -> Tensor:
    """Add to the decoder's input what the encoder says at its sentinels.

    Returns:
        (B, T, D).
    """
    # A product with a matrix of zeros and ones: no indices whose number depends on the batch, no synchronization.
    return x_BTD + torch.bmm(match_BTS.to(encoder_hidden_BSD.dtype), encoder_hidden_BSD)
