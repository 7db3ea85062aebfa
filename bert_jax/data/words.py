"""Where words begin, read off the pieces: one rule for each kind of tokenizer.

Each gives the tables of `Vocabulary`: whether a piece carries no mark of a beginning, and the
classes of its first and last characters.
"""

import unicodedata
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from bert_jax.data.vocabulary import ANY, ENDS, SPELLINGS, Vocabulary, special_ids

LETTER, NUMBER, OTHER, SPACE = range(4)
# The pre-tokenizer of GPT-2 (Radford et al. 2019, released code) cuts these off as words.
CONTRACTIONS = frozenset(["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"])


class Ends(NamedTuple):
    """Of one piece."""

    continues: bool
    first: int
    last: int


APART = Ends(False, ENDS, ENDS)  # a word of its own


def wordpiece_ends(piece: str) -> Ends:
    """Words were cut at white space and punctuation before, so the mark alone says it."""
    return Ends(piece.startswith("##"), LETTER, LETTER)


def sentencepiece_ends(piece: str) -> Ends:
    """▁ begins a word; letters, numbers and their combining marks are one class, the rest one."""
    body = piece.lstrip("▁")
    if not body:
        return Ends(False, ANY, ANY)  # the space before a word whose first character is rare
    first, last = (LETTER if _in_word(c) else OTHER for c in (body[0], body[-1]))
    return Ends(not piece.startswith("▁"), first, last)


def byte_level_ends(piece: str) -> Ends:
    """The words of GPT-2's pre-tokenizer: a space and a run of letters, numbers or others.

    Exact where single spaces part the words, as in all text that was prepared, and where the
    contractions are pieces. A piece that ends within a character is taken for letters: most such
    characters are, and where a space comes before them it makes no difference.
    """
    if any(character not in BYTES for character in piece):
        return APART  # an added token
    if piece in CONTRACTIONS:
        return Ends(False, OTHER, ENDS)
    raw = bytes(BYTES[character] for character in piece)
    inside = 0x80 <= raw[0] < 0xC0  # it begins within a character
    text = raw.decode(errors="replace")
    body = text.removeprefix(" ")
    if not body:
        return Ends(False, ANY, ANY)  # the space before what follows
    if text.isspace():
        return Ends(True, SPACE, SPACE)
    return Ends(not text.startswith(" "), ANY if inside else _class(body[0]), _class(body[-1]))


RULES = {
    "WordPiece": wordpiece_ends,
    "Unigram": sentencepiece_ends,
    "BPE": byte_level_ends,
}


def build_vocabulary(
    pieces: Sequence[str], model: str, apart: Collection[int] = frozenset()
) -> Vocabulary:
    """`model`: the key of a rule. `apart`: ids of which each is a word; '' is no piece.

    Raises UserError where a special token is missing.
    """
    found = special_ids({piece: number for number, piece in enumerate(pieces)})
    rule = RULES[model]
    ends = [
        APART if number in apart or not piece else rule(piece)
        for number, piece in enumerate(pieces)
    ]
    return Vocabulary(
        names=tuple(found[role][0] for role in SPELLINGS),
        **{role: found[role][1] for role in SPELLINGS},
        continues=np.array([end.continues for end in ends]),
        first_class=np.array([end.first for end in ends]),
        last_class=np.array([end.last for end in ends]),
    )


def _in_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character).startswith("M")


def _class(character: str) -> int:
    if character == "\ufffd":  # what is left of a character that was cut
        return LETTER
    if character.isspace():
        return SPACE
    return {"L": LETTER, "N": NUMBER}.get(unicodedata.category(character)[0], OTHER)


def _bytes() -> dict[str, int]:
    """GPT-2 writes each byte as a character that can be seen: itself where that is one, else the
    next free from U+0100 on."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    seen += range(ord("®"), ord("ÿ") + 1)
    hidden = [byte for byte in range(256) if byte not in seen]
    table = {chr(byte): byte for byte in seen}
    return table | {chr(256 + number): byte for number, byte in enumerate(hidden)}


BYTES = _bytes()
