"""Host batches onto devices, one ahead of the step that uses them."""

import time
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from bert_jax.models.sharding import RULES


class Feed:
    """Iterates over device batches. `waited` is the seconds spent waiting for the loader since
    it was last asked for (`take_waited`)."""

    def __init__(
        self, batches: Iterator[dict[str, np.ndarray]], fields: tuple[str, ...], mesh: Mesh
    ):
        self._batches, self._fields, self._mesh = batches, fields, mesh
        self._waited = 0.0
        self._next = self._load()

    def __iter__(self) -> "Feed":
        return self

    def __next__(self) -> dict[str, jax.Array]:
        if self._next is None:
            raise StopIteration
        # The copy of the next batch goes on while the step of this one runs.
        current, self._next = self._next, self._load()
        return current

    def take_waited(self) -> float:
        waited, self._waited = self._waited, 0.0
        return waited

    def _load(self) -> dict[str, jax.Array] | None:
        begin = time.monotonic()
        batch = next(self._batches, None)
        self._waited += time.monotonic() - begin
        if batch is None:
            return None
        return {
            name: jax.make_array_from_process_local_data(
                NamedSharding(self._mesh, RULES.batch(batch[name].ndim)), batch[name]
            )
            for name in self._fields
        }
