"""Steps with adapters: where their leaves are, what does not move, what is not computed."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from bert_jax.models.adapters import PLAIN, TARGETS, AdaptConfig, split
from bert_jax.tasks.base import FineTuning
from bert_jax.tasks.sentences import Classification
from bert_jax.training.optim import build_optimizer
from bert_jax.training.step import begin_state, init_parameters, make_train_step
from tests import tiny
from tests.training.test_step import OPTIMIZER, assert_same, check_places, mesh_of

pytestmark = pytest.mark.tree_mode
MODEL = replace(tiny.MODEL, num_labels=2)
# Each with the number of leaves that are trained: those of adapters and head, and of norms.
ADAPTERS = {
    "lora": (AdaptConfig("lora", targets=" ".join(TARGETS)), 2 * 6 + 2),
    "bottleneck": (AdaptConfig("bottleneck", size=8), 2 * 4 + 2 + 6),
}


def start(mesh, adapt, accumulation=1):
    """The step and what it takes. Call under `jax.set_mesh`."""
    objective, tx = FineTuning(Classification(), adapt=adapt), build_optimizer(OPTIMIZER, 100)
    learned, frozen = split(init_parameters(objective, MODEL, 0), adapt, new_pooler=False)
    batch = tiny.random_batch()
    batch |= {"labels": batch["nsp_labels"], "weights": batch["nsp_weights"]}
    batch = tiny.on_mesh(mesh, {name: batch[name] for name in objective.fields})
    step = make_train_step(objective, MODEL, tx, 0, accumulation)
    return step, begin_state(learned, tx), batch, frozen


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_is_frozen_does_not_move_on_any_mesh(name):
    """By not a bit, and it has no moments. The losses are those of one device, and those of the
    batch in parts."""
    adapt, leaves = ADAPTERS[name]

    def losses(shape=(1, 1, 1), accumulation=1):
        mesh = mesh_of(shape)
        with jax.set_mesh(mesh):
            step, state, batch, frozen = start(mesh, adapt, accumulation)
            before, found = jax.device_get(frozen), []
            for _ in range(3):
                state, metrics = step(state, batch, frozen)
                found.append(float(metrics["loss"]))
            check_places(state, leaves)
            assert_same(before, frozen)
            # All that is trained has had a gradient.
            assert all(np.abs(one).max() > 0 for one in jax.tree.leaves(state.optimizer[1].nu))
            return found

    alone = losses()
    np.testing.assert_allclose(losses((2, 2, 2)), alone, rtol=1e-5)
    np.testing.assert_allclose(losses(accumulation=2), alone, rtol=1e-5)


def test_no_gradient_of_a_frozen_kernel_is_computed(mesh):
    """Which is a third of the operations of a step."""

    def operations(adapt):
        step, *given = start(mesh, adapt)
        return step.lower(*given).compile().cost_analysis()["flops"]

    few = AdaptConfig("lora", rank=1, targets="value")
    assert operations(few) < 0.8 * operations(PLAIN)
