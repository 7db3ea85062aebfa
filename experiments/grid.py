"""What a study varies: cells, each a name and the fields of the config that it sets.

chain([Cell("15%")], values("data.mask_rate", 0.3, 0.4))      one grid after the other
product(values("data.mask_rate", 0.15, 0.4), values("data.mask_units", "token", "span"))
zipped(values("data.batch_size", 64, 512), values("optimizer.learning_rate", 1e-3, 3e-3))
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Value = int | float | bool | str


@dataclass(frozen=True)
class Cell:
    """`family`: the file of configs/ that it begins from; '' for the study's."""

    name: str
    settings: Mapping[str, Value] = field(default_factory=dict)
    family: str = ""

    @property
    def folder(self) -> str:
        """The name as a folder's: stable, and of other letters only where the name's differ."""
        return re.sub(r"[^a-z0-9.=-]+", "-", self.name.lower().replace("%", "pc")).strip("-.")


Grid = Sequence[Cell]


def values(name: str, *options: Value) -> list[Cell]:
    """A cell an option of one field, named as 'mask_rate=0.3'."""
    short = name.rpartition(".")[2]
    return [Cell(f"{short}={option}", {name: option}) for option in options]


def product(*grids: Grid) -> list[Cell]:
    """Every cell of one with every cell of the others, the last one changing fastest."""
    return [_joined(cells) for cells in itertools.product(*grids)]


def zipped(*grids: Grid) -> list[Cell]:
    """The first cells together, the second ones, and so on."""
    if len({len(grid) for grid in grids}) > 1:
        raise ValueError(f"grids of {[len(grid) for grid in grids]} cells do not go together")
    return [_joined(cells) for cells in zip(*grids, strict=True)]


def chain(*grids: Grid) -> list[Cell]:
    """One grid after the other. Raises ValueError for names, or folders, that are there twice."""
    cells = list(itertools.chain(*grids))
    for kind, names in (
        ("cells", [cell.name for cell in cells]),
        ("folders", [cell.folder for cell in cells]),
    ):
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{kind} of the same name: {', '.join(twice)}")
    return cells


def _joined(cells: Iterable[Cell]) -> Cell:
    """All settings together. Raises ValueError where two set a field to different values."""
    cells, together = list(cells), dict[str, Value]()
    for cell in cells:
        for name, value in cell.settings.items():
            if together.setdefault(name, value) != value:
                raise ValueError(f"{name} is both {together[name]} and {value}")
    families = {cell.family for cell in cells if cell.family}
    if len(families) > 1:
        raise ValueError(f"a cell of several families: {', '.join(sorted(families))}")
    return Cell(", ".join(cell.name for cell in cells), together, next(iter(families), ""))
