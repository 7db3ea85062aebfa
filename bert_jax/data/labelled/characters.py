"""Which characters of a text each of its tokens stands for, whatever the tokenizer."""

import unicodedata

import numpy as np
from jaxtyping import Int

from bert_jax.data.tokenizers import Tokenizer


def encode_spans(tokenizer: Tokenizer, text: str) -> tuple[list[int], Int[np.ndarray, "n 2"]]:
    """Ids, and of each the begin and end of its characters in the text.

    Tokenizers differ in whether the space before a word is of its first token, and WordPiece
    leaves out an accent that it took off: here no span begins or ends with white space (one of
    nothing else is empty, before what follows), and marks go with their letter.
    """
    ids, offsets = tokenizer.encode_with_offsets(text)
    spans = np.empty((len(ids), 2), np.int32)
    for number, (begin, end) in enumerate(offsets):
        while begin < end and text[begin].isspace():
            begin += 1
        while begin < end and text[end - 1].isspace():
            end -= 1
        while begin < end < len(text) and unicodedata.category(text[end])[0] == "M":
            end += 1
        spans[number] = begin, end
    return ids, spans


def encode_words(tokenizer: Tokenizer, words: tuple[str, ...]) -> list[list[int]]:
    """The ids of each word as it stands in its sentence, between blanks. A word of which the
    tokenizer keeps nothing (of control characters, say) is one unknown token."""
    ids, spans = encode_spans(tokenizer, " ".join(words))
    found: list[list[int]] = [[] for _ in words]
    begins = np.cumsum([0, *(len(word) + 1 for word in words[:-1])])
    owners = np.searchsorted(begins, spans[:, 0], side="right") - 1
    for token, owner in zip(ids, np.maximum.accumulate(owners), strict=True):
        found[owner].append(token)
    return [pieces or [tokenizer.vocabulary.unk] for pieces in found]
