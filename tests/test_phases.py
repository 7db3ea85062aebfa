"""A run in phases: killed on both sides of a border it ends as it would have; one compilation a
shape; speed is of the phase that runs."""

import signal
import subprocess
from dataclasses import replace

import pytest

from bert_jax.data.examples import build_examples
from bert_jax.data.loader import PhasedBatches
from bert_jax.data.phases import phases
from bert_jax.data.records import Rows
from bert_jax.errors import UserError
from bert_jax.training.feed import Feed
from bert_jax.training.mesh import MeshConfig, build_mesh
from bert_jax.training.optim import OptimizerConfig, build_optimizer
from bert_jax.training.step import init_state, make_train_step
from tests import tiny
from tests.test_resume import ROOT, command, environment, numbers


def start(workdir, corpus, module="bert_jax.pretrain", **more):
    # What is said twice on the command line, the last holds.
    sizes = ["--config.train.steps=18", "--config.data.phases=50% 50%:64:4:9"]
    return subprocess.run(
        [*command(workdir, corpus, module), *sizes], capture_output=True, text=True,
        env=environment(**more), cwd=ROOT,
    )  # fmt: skip


def test_killed_on_both_sides_of_a_border(corpus, tmp_path):
    """The border is after step 9. Killed at 12, before the save: taken up again at 6; killed
    after the save: at 12."""
    done = start(tmp_path / "whole", corpus)
    assert done.returncode == 0, done.stderr
    assert "steps 1 to 9: 8 rows of 32, K 6; epoch 0.00 to" in done.stdout
    assert "steps 10 to 18: 4 rows of 64, K 9; epoch" in done.stdout
    whole = numbers(tmp_path / "whole")
    assert [record["step"] for record in whole] == list(range(1, 19))
    assert len({r["eval_mlm_weight"] for r in whole if "eval_loss" in r}) == 1
    for moment in ("before:12", "after:12"):
        done = start(tmp_path / "killed", corpus, "tests.killed", KILL=moment)
        assert done.returncode == -signal.SIGKILL, done.stderr
    done = start(tmp_path / "killed", corpus)
    assert done.returncode == 0 and "from step 12 to 18" in done.stdout, done.stderr
    assert numbers(tmp_path / "killed") == whole


def test_one_compilation_a_shape(corpus, mesh):
    """And none for a phase of a shape that has been."""
    run = phases(replace(tiny.DATA, phases="2:32:8:6 2:64:4:6 2:32:8:6"), 6)
    rows, words = Rows(corpus.folder, "train"), tiny.vocabulary()
    examples = {p.data.sequence_length: build_examples(rows, words, p.data) for p in run}
    batches = PhasedBatches(run, examples, words, 0)
    objective, tx = tiny.bert(), build_optimizer(OptimizerConfig(warmup_steps=1), 6)
    state = init_state(objective, tiny.MODEL, tx, 0)
    step = make_train_step(objective, tiny.MODEL, tx, 0)
    for batch in Feed((batches[s] for s in range(6)), objective.fields, mesh):
        state, _ = step(state, batch)
    assert int(state.step) == 6 and step._cache_size() == 2


def test_every_phase_is_divided_by_the_devices():
    with pytest.raises(UserError, match="data.phases: a batch=12 is not divisible by the 8"):
        build_mesh(MeshConfig(), 16, [8, 12])
