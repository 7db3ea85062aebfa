"""Checkpoints: bitwise, on any mesh, and never trusted when they are damaged."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.models.sharding import RULES, is_variable
from bert_jax.training.checkpoint import Checkpoints, digest, restore_parameters
from bert_jax.training.optim import OptimizerConfig, build_optimizer
from bert_jax.training.step import init_state, make_train_step
from tests import tiny

pytestmark = pytest.mark.tree_mode
AXES = ("data", "fsdp", "tensor")


def new_state(seed=0):
    return init_state(
        tiny.bert(), tiny.MODEL, build_optimizer(OptimizerConfig(warmup_steps=1), 10), seed
    )


def assert_same(mine, theirs):
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def three(tmp_path):
    """A workdir with checkpoints 1, 2 and 3 (the same state, for what is tested here)."""
    state = new_state()
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (1, 2, 3):
        checkpoints.save(step, state)
    checkpoints.close()
    return tmp_path, state


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_restored_bitwise(three):
    workdir, state = three
    restored, notes = Checkpoints(workdir, keep=3).restore_newest(new_state(seed=1))
    assert_same(restored, state)
    assert notes == []


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 1, 2)], ids=str)
def test_restored_on_another_mesh(three, shape):
    workdir, state = three
    devices = jax.devices()[: int(np.prod(shape))]
    with jax.set_mesh(jax.make_mesh(shape, AXES, devices=devices)):
        restored, _ = Checkpoints(workdir, keep=3).restore_newest(new_state(seed=1))
        assert_same(restored, state)
        for variable in jax.tree.leaves(restored.parameters, is_leaf=is_variable):
            assert jax.typeof(variable.get_value()).sharding.spec == RULES.parameter(variable)


def test_only_the_newest_are_kept(tmp_path):
    checkpoints, state = Checkpoints(tmp_path, keep=2), new_state()
    for step in (1, 2, 3, 4):
        checkpoints.save(step, state)
    checkpoints.close()
    assert Checkpoints(tmp_path, keep=2).steps == [3, 4]


def test_the_best_and_every_so_many_are_kept_too(tmp_path):
    state = new_state()

    def opened():
        return Checkpoints(tmp_path, keep=1, keep_best=1, keep_every=4)

    for steps in ((1, 2, 3, 4, 5), (6, 7, 8, 9)):  # the best is known again after a restart
        checkpoints = opened()
        for step in steps:
            loss = {2: 3.0, 5: 2.0, 6: 2.5}.get(step)  # the others were not evaluated
            checkpoints.save(step, state, loss)
        checkpoints.close()
    assert opened().steps == [4, 5, 8, 9]


EIGHT_HEADS = replace(tiny.MODEL, num_heads=8)


def mesh_of(shape):
    return jax.make_mesh(shape, AXES, devices=jax.devices()[: int(np.prod(shape))])


def state_and_step():
    objective, tx = tiny.bert(EIGHT_HEADS), build_optimizer(OptimizerConfig(warmup_steps=1), 10)
    state = init_state(objective, EIGHT_HEADS, tx, seed=0)
    return state, make_train_step(objective, EIGHT_HEADS, tx, seed=0)


@pytest.fixture(scope="module")
def saved_on_eight(tmp_path_factory):
    """Three steps as 4x2x1: the workdir, its state on the host, and the loss of the fourth."""
    workdir, mesh = tmp_path_factory.mktemp("eight"), mesh_of((4, 2, 1))
    with jax.set_mesh(mesh):
        state, step = state_and_step()
        batch = tiny.on_mesh(mesh, tiny.random_batch())
        for _ in range(3):
            state, _ = step(state, batch)
        checkpoints = Checkpoints(workdir, keep=1)
        checkpoints.save(3, state)
        checkpoints.close()
        before = jax.device_get(state)
        return workdir, before, float(step(state, batch)[1]["loss"])


@pytest.mark.parametrize("shape", [(1, 1, 8), (2, 1, 1), (1, 1, 1)], ids=str)
def test_a_run_goes_on_on_another_mesh(saved_on_eight, shape):
    workdir, before, loss = saved_on_eight
    mesh = mesh_of(shape)
    with jax.set_mesh(mesh):
        state, step = state_and_step()
        restored, _ = Checkpoints(workdir, keep=1).restore_newest(state)
        assert_same(jax.device_get(restored), before)
        assert int(restored.step) == 3  # the place in the data is the step
        _, metrics = step(restored, tiny.on_mesh(mesh, tiny.random_batch()))
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-5)


def test_none_is_none(tmp_path):
    assert Checkpoints(tmp_path, keep=1).restore_newest(new_state()) == (None, [])


@pytest.mark.parametrize("damage", [flip, truncate, lambda p: p.unlink()])
def test_a_damaged_checkpoint_is_passed_over_and_kept(three, damage):
    workdir, state = three
    damage(largest_file(workdir / "checkpoints" / "3"))
    checkpoints = Checkpoints(workdir, keep=3)
    restored, notes = checkpoints.restore_newest(new_state(seed=1))
    assert_same(restored, state)
    assert len(notes) == 1 and notes[0].startswith("checkpoint 3 in")
    (note,) = checkpoints.set_aside_after(2)
    assert "going on from step 2" in note
    assert checkpoints.steps == [1, 2]
    assert (workdir / "damaged-checkpoints" / "3").is_dir()
    checkpoints.save(3, state)  # its number is free again
    checkpoints.close()
    assert Checkpoints(workdir, keep=3).steps == [1, 2, 3]


def test_a_checkpoint_with_unreadable_metrics_is_moved_away(tmp_path):
    """Orbax reads the metrics of all before it does anything."""
    checkpoints, state = Checkpoints(tmp_path, keep=3), new_state()
    for step in (1, 2):
        checkpoints.save(step, state, 0.5)
    checkpoints.close()
    (tmp_path / "checkpoints" / "2" / "metrics" / "metrics").write_text("")
    with pytest.raises(UserError, match="metrics of a checkpoint cannot be read"):
        restore_parameters(tmp_path, state.parameters)
    checkpoints = Checkpoints(tmp_path, keep=3)
    restored, notes = checkpoints.restore_newest(new_state(seed=1))
    assert_same(restored, state)
    assert checkpoints.steps == [1] and "checkpoint 2 in" in notes[0] and len(notes) == 2
    assert (tmp_path / "damaged-checkpoints" / "2").is_dir()


def test_a_half_written_checkpoint_is_invisible(three):
    workdir, _ = three
    (workdir / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir()
    checkpoints = Checkpoints(workdir, keep=3)
    assert checkpoints.steps == [1, 2, 3]


def test_where_none_can_be_read_nothing_is_lost(three):
    workdir, _ = three
    for step in (1, 2, 3):
        truncate(largest_file(workdir / "checkpoints" / str(step)))
    with pytest.raises(UserError, match="nor can any older one"):
        Checkpoints(workdir, keep=3).restore_newest(new_state())
    assert Checkpoints(workdir, keep=3).steps == [1, 2, 3]


def test_parameters_alone(three, tmp_path):
    workdir, state = three
    parameters, step = restore_parameters(workdir, new_state(seed=1).parameters)
    assert step == 3
    assert_same(parameters, state.parameters)
    with pytest.raises(UserError, match="no checkpoint here"):
        restore_parameters(tmp_path / "elsewhere", state.parameters)


def test_digest_sees_one_bit_and_no_mesh():
    array = jnp.asarray(np.random.default_rng(0).normal(size=(8, 16)), jnp.float32)
    changed = np.asarray(array).copy()
    changed.view(np.uint32)[3, 5] ^= 1
    swapped = array[::-1]
    plain = np.asarray(jax.jit(digest)([array]))
    assert plain != jax.jit(digest)([jnp.asarray(changed)])
    assert plain != jax.jit(digest)([swapped])
    mesh = jax.make_mesh((2, 2, 2), AXES)
    with jax.set_mesh(mesh):
        spread = jax.device_put(array, jax.NamedSharding(mesh, jax.P(("data", "fsdp"), "tensor")))
        np.testing.assert_array_equal(jax.jit(digest)([spread]), plain)
