"""Which rows of a global batch a host reads."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int


class Share(NamedTuple):
    """What a host reads of each global batch, cut into `of` equal parts: those of these numbers,
    in ascending order. Which they are is decided by where its devices lie in the mesh."""

    parts: tuple[int, ...]
    of: int

    def rows(self, batch_size: int) -> Int[np.ndarray, "rows"]:
        """Their numbers in the global batch, whose size `of` divides."""
        size = batch_size // self.of
        return (np.array(self.parts)[:, None] * size + np.arange(size)).ravel()


WHOLE = Share((0,), 1)
