"""Scores of tagged text: an entity counts when its type and both its ends are right (CoNLL-2003:
Tjong Kim Sang and De Meulder 2003, aclanthology.org/W03-0419).

Tags are `O`, or a part and a type, `B-PER`. BIO: B begins an entity, I goes on. BILOU (Ratinov and
Roth 2009): L ends one, U is one alone. A model's tags need not fit together. They are read as
CoNLL's own script reads them: an entity begins at B and U; also at I and L, unless the tag before
is of the same type and neither O, L nor U; it lasts up to the next beginning or O.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from bert_jax.errors import UserError
from bert_jax.tasks.scores.classes import Scores, from_counts

SCHEMES = {"bio": "BI", "bilou": "BILU"}  # the parts beside O
UNTYPED = "_"  # the type of entities tagged B and I alone


class Entity(NamedTuple):
    """Of the tags begin to end - 1."""

    type: str
    begin: int
    end: int


@dataclass(frozen=True)
class EntityScores:
    """`overall` counts entities of all types together (micro). By type: in alphabetical order, all
    types that occur or are predicted."""

    overall: Scores
    by_type: dict[str, Scores]


def entities(tags: Sequence[str], scheme: str = "bio") -> list[Entity]:
    """What the tags of one text say, in its order. Raises UserError for a tag that is not of the
    scheme."""
    found: list[Entity] = []
    begin: int | None = None
    before = ("O", "")
    for place, tag in enumerate([*tags, "O"]):
        part, kind = _split(tag, scheme)
        goes_on = part in "IL" and before[0] in "BI" and kind == before[1]
        if begin is not None and not goes_on:
            found.append(Entity(before[1], begin, place))
            begin = None
        if begin is None and part != "O":
            begin = place
        before = (part, kind)
    return found


def count_entities(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: str = "bio"
) -> dict[str, Int[np.ndarray, "B 3"]]:
    """For each type how many entities of each text are right, predicted, and gold: what a
    bootstrap resamples. Raises ValueError where a text has not as many tags in both, UserError
    where there is no text."""
    if not gold:
        raise UserError("no examples to score: name a split that has some")
    if [len(tags) for tags in gold] != [len(tags) for tags in predicted]:
        raise ValueError("gold and predicted tags are not of the same texts: their lengths differ")
    rows: list[tuple[Counter[str], ...]] = []
    for right, guessed in zip(gold, predicted, strict=True):
        both = set(entities(right, scheme)), set(entities(guessed, scheme))
        kept = both[0] & both[1], both[1], both[0]
        rows.append(tuple(Counter(entity.type for entity in some) for some in kept))
    types = sorted({name for row in rows for counter in row for name in counter})
    return {
        name: np.array([[counter[name] for counter in row] for row in rows], np.int64)
        for name in types
    }


def score_counts(counts: Mapping[str, Int[np.ndarray, "B 3"]]) -> EntityScores:
    """Precision, recall and F1 of the texts together. 0 where there is nothing to divide by, as in
    texts without any entity."""
    by_type = {name: rows.sum(0).tolist() for name, rows in counts.items()}
    together = [sum(triple[i] for triple in by_type.values()) for i in range(3)]
    return EntityScores(
        from_counts(*together), {name: from_counts(*triple) for name, triple in by_type.items()}
    )


def score_entities(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: str = "bio"
) -> EntityScores:
    """Of tags of texts; errors as in `entities` and `count_entities`."""
    return score_counts(count_entities(gold, predicted, scheme))


def _split(tag: str, scheme: str) -> tuple[str, str]:
    """Part and type, the type being all after the first hyphen."""
    if tag == "O":
        return "O", ""
    part, hyphen, kind = tag.partition("-")
    if part not in set(SCHEMES[scheme]):
        raise UserError(
            f"tag {tag!r}: {scheme.upper()} has O, and {', '.join(SCHEMES[scheme])} before a "
            f"hyphen and a type, as B-PER; rewrite the tags, or name the scheme that they are of"
        )
    return part, kind or UNTYPED
