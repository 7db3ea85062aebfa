"""What layout and masking need to know of a tokenizer: its special ids, and where words begin."""

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from bert_jax.errors import UserError

# Classes of a piece's ends, beside those that a tokenizer counts from 0 (data/words.py).
ANY = -1  # goes on with whatever it touches
ENDS = -2  # of a last end: nothing goes on with it

# How the five special tokens are spelled, by role; the first that a vocabulary has is taken.
SPELLINGS = {
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "mask": ("[MASK]", "<mask>"),
}


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The ids of a tokenizer. Whether a token goes on with the word before it is read off the
    ids alone, so that prepared rows need to store nothing but ids.

    A piece goes on with a word if it carries no mark of a word's beginning (`continues`) and its
    first character is of the class of the last one before it, or one of the two is ANY. What the
    mark is and whether there are classes is the tokenizer's own: `##` marks the others in
    WordPiece, where punctuation is split off before; `▁` in SentencePiece and `Ġ` in byte-level
    BPE mark the beginning, and there a full stop needs its class to be no part of the word it
    follows.
    """

    names: tuple[str, ...]  # of the special tokens, in the order of SPELLINGS
    pad: int
    unk: int
    cls: int
    sep: int
    mask: int
    continues: Bool[np.ndarray, "V"]
    first_class: Int[np.ndarray, "V"]
    last_class: Int[np.ndarray, "V"]

    def __len__(self) -> int:
        return len(self.continues)

    @property
    def mask_token(self) -> str:
        """The mask as a person types it."""
        return self.names[list(SPELLINGS).index("mask")]

    def split_prompt(self, text: str) -> list[str]:
        """The parts between the masks that were typed: by the mask's name, or as [MASK], whatever
        its name."""
        return re.split("|".join(map(re.escape, {self.mask_token, "[MASK]"})), text)

    @cached_property
    def special_names(self) -> dict[int, str]:
        """Of the five special ids."""
        roles = zip(SPELLINGS, self.names, strict=True)
        return {getattr(self, role): name for role, name in roles}

    def spell(self, ids: list[int], decode: Callable[[list[int]], str]) -> str:
        """Text of the ids: `decode` of those between special tokens, and these by their names."""
        out: list[str] = []
        for special, run in itertools.groupby(ids, self.special_names.__contains__):
            found = list(run)
            out += [self.special_names[i] for i in found] if special else [decode(found)]
        return " ".join(out)

    @cached_property
    def special(self) -> Bool[np.ndarray, "V"]:
        """True for the five ids that no text may give (but unk) and that are never masked."""
        special = np.zeros(len(self), bool)
        special[list(self.special_names)] = True
        return special

    @cached_property
    def ordinary(self) -> Int[np.ndarray, "ordinary"]:
        """All other ids, ascending: what a random replacement is drawn from."""
        return np.flatnonzero(~self.special)

    def word_starts(self, input_ids: Int[np.ndarray, "B S"]) -> Bool[np.ndarray, "B S"]:
        """True where a token begins a word; special tokens begin one each."""
        before, here = input_ids[:, :-1], input_ids[:, 1:]
        last, first = self.last_class[before], self.first_class[here]
        goes_on = self.continues[here] & ((last == first) | (last == ANY) | (first == ANY))
        goes_on &= ~self.special[here] & ~self.special[before]
        return np.pad(~goes_on, ((0, 0), (1, 0)), constant_values=True)


def special_ids(ids: Mapping[str, int]) -> dict[str, tuple[str, int]]:
    """Name and id of each role, from a table of pieces. Raises UserError where one is missing."""
    found = {}
    for role, spellings in SPELLINGS.items():
        name = next((spelling for spelling in spellings if spelling in ids), None)
        if name is None:
            raise UserError(
                f"tokenizer: it has no {' or '.join(spellings)}, which pretraining needs"
            )
        found[role] = (name, ids[name])
    return found
