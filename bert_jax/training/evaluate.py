"""Held-out scores: sums over all batches, divided once."""

from collections.abc import Callable, Iterable

import jax
import numpy as np
from flax import nnx

from bert_jax.training.step import Batch, Losses, Objective, averages, total


def evaluate(
    eval_step: Callable[[nnx.State, Batch], Losses],
    objective: Objective,
    parameters: nnx.State,
    batches: Iterable[Batch],
    stop: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, float], dict[str, np.ndarray]] | None:
    """`eval_` metrics of all batches together, for each accuracy its lower 95% bound, and the
    objective's tallies, vectors, under their own names. None where `stop`, asked before each
    batch, said so."""
    sums: Losses | None = None
    for batch in batches:
        if stop():
            return None
        losses = eval_step(parameters, batch)
        sums = losses if sums is None else jax.tree.map(lambda a, b: a + b, sums, losses)
    assert sums is not None  # a split without batches is refused when it is read
    means = jax.device_get({"loss": total(objective, sums)} | averages(sums))
    scores = {name: float(value) for name, value in means.items()}
    for name, (hits, weight) in jax.device_get(sums.metrics).items():
        if name.endswith("_accuracy"):
            scores[f"{name}_lower95"] = lower_bound(round(float(hits)), round(float(weight)))
    return {f"eval_{name}": value for name, value in scores.items()}, jax.device_get(sums.tallies)


def lower_bound(hits: int, trials: int) -> float:
    """One-sided 95% bound of a proportion (Clopper and Pearson 1934)."""
    from scipy import special  # half a second, which a start without evaluation need not wait

    if not hits:
        return 0.0
    return float(special.betaincinv(hits, trials - hits + 1, 0.05))
