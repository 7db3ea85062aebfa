"""Host batches onto devices, one ahead of the step that uses them."""

import time
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from bert_jax.models.sharding import RULES


def batch_parts(mesh: Mesh) -> tuple[tuple[int, ...], int]:
    """The parts of every global batch that this process's devices hold, by their numbers in
    ascending order, and into how many equal parts the mesh cuts it."""
    of = mesh.shape["data"] * mesh.shape["fsdp"]
    places = NamedSharding(mesh, RULES.batch(1)).addressable_devices_indices_map((of,))
    return tuple(sorted({_start(index) for index in places.values()})), of


def _start(index: tuple[slice, ...] | None) -> int:
    return (index and index[0].start) or 0  # of the whole it is None


class Feed:
    """Iterates over device batches. `batches` are of this process's rows alone, in the order of
    `batch_parts`. `waited` is the seconds spent waiting for the loader since it was last asked
    for (`take_waited`)."""

    def __init__(
        self, batches: Iterator[dict[str, np.ndarray]], fields: tuple[str, ...], mesh: Mesh
    ):
        self._batches, self._fields, self._mesh = batches, fields, mesh
        parts, self._of = batch_parts(mesh)
        self._places = {part: place for place, part in enumerate(parts)}
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
        return {name: self._place(batch[name]) for name in self._fields}

    def _place(self, rows: np.ndarray) -> jax.Array:
        size = len(rows) // len(self._places)  # of a part

        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            begin = self._places[_start(index) // size] * size
            return rows[begin : begin + size]

        shape = (size * self._of, *rows.shape[1:])
        sharding = NamedSharding(self._mesh, RULES.batch(rows.ndim))
        return jax.make_array_from_callback(shape, sharding, part)
