"""The names of classes, and their ids."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from bert_jax.data.labelled.records import TagRecord, TextRecord, near
from bert_jax.errors import UserError


@dataclass(frozen=True)
class LabelSet(Mapping[str, int]):
    """A mapping of each class's name to its id: its place among the names."""

    names: tuple[str, ...]

    def __post_init__(self):
        if twice := [name for name in self.names if self.names.count(name) > 1]:
            raise UserError(f"labels: {twice[0]!r} stands twice in {', '.join(self.names)}")
        if "" in self.names:
            raise UserError("labels: one is empty; write its name, or leave it out")
        if len(self.names) < 2:
            raise UserError(
                f"labels: there is nothing to learn of {len(self.names)} class"
                f"{'' if self.names else 'es'}; name two or more"
            )

    @classmethod
    def given(cls, names: Iterable[str | int]) -> "LabelSet":
        """In this order. Raises UserError for a name that stands twice, and for fewer than two."""
        return cls(tuple(map(str, names)))

    @classmethod
    def found(cls, records: Iterable[TextRecord | TagRecord]) -> "LabelSet":
        """All labels of the records, sorted; integers by their size."""
        found: set[str] = set()
        for record in records:
            if isinstance(record, TagRecord):
                found.update(record.tags or ())
            elif isinstance(record.label, str):
                found.add(record.label)
        if all(re.fullmatch(r"-?\d+", name) for name in found):
            return cls(tuple(sorted(found, key=lambda name: (int(name), name))))
        return cls(tuple(sorted(found)))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    def __getitem__(self, name: str) -> int:
        return self._ids[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def id(self, name: str, place: str) -> int:
        """Raises UserError, which names the place, for a label that is not among these."""
        if name not in self._ids:
            raise UserError(
                f"{place}: {name!r} is no label of this task; {near(name, self.names)} (if it is "
                f"one, name all in task.labels)"
            )
        return self._ids[name]


def names_or_numbers(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    """The names of `count` classes, their numbers where they have none; () of a single one, which
    is a number."""
    return names or (tuple(map(str, range(count))) if count > 1 else ())
