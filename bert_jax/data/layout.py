"""Tokens between special tokens: the rows of a batch as they are read."""

import numpy as np
from jaxtyping import Int

from bert_jax.data.vocabulary import Vocabulary

Places = tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]  # rows and places in them


def lay_out(
    tokens: np.ndarray,
    lasts: Int[np.ndarray, "B"],
    separators: Places,
    sequence_length: int,
    vocabulary: Vocabulary,
    begins: Places | None = None,
) -> dict[str, np.ndarray]:
    """[CLS] in front of each row, [SEP] at the end, `lasts`, and at the places of `separators`,
    and between them the tokens, in order; all token types 0.

    Of packed rows `begins` are the places of every [CLS]: there segment_ids count from 1 in each
    row, and position_ids begin anew at each.
    """
    places = np.arange(sequence_length)
    real = places <= lasts[:, None]
    inner = places < lasts[:, None]
    inner[:, 0] = inner[separators] = False
    if begins is not None:
        inner[begins] = False
    input_ids = np.where(real, np.int32(vocabulary.sep), np.int32(vocabulary.pad))
    input_ids[inner] = tokens
    input_ids[:, 0] = vocabulary.cls
    laid = {
        "input_ids": input_ids,
        "token_type_ids": np.zeros_like(input_ids),
        "segment_ids": real.astype(np.int32),
    }
    if begins is None:
        return laid
    input_ids[begins] = vocabulary.cls
    begun = np.zeros_like(real)
    begun[begins] = True
    starts = np.maximum.accumulate(np.where(begun, places, 0), axis=1)
    return laid | {
        "segment_ids": (np.cumsum(begun, axis=1) * real).astype(np.int32),
        "position_ids": ((places - starts) * real).astype(np.int32),
    }


def shares(
    a: Int[np.ndarray, "B"], b: Int[np.ndarray, "B"], rooms: Int[np.ndarray, "B"]
) -> tuple[Int[np.ndarray, "B"], Int[np.ndarray, "B"]]:
    """How many tokens each segment of a pair keeps: the longer gives way first (released code)."""
    half = rooms - rooms // 2
    a_keep = np.where(a + b <= rooms, a, np.minimum(a, np.maximum(rooms - b, half)))
    return a_keep, np.minimum(b, rooms - a_keep)
