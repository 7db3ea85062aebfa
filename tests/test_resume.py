"""Killed and started again, a run logs what it would have logged: to the bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bert_jax import config as configs
from bert_jax.compare import compare
from bert_jax.store import objects, reach, upload
from bert_jax.training.metrics import MetricsWriter, read_metrics
from bert_jax.training.rates import MEASURED
from tests import tiny

ROOT = Path(__file__).parent.parent
STEPS = 36


def command(workdir, corpus, module="bert_jax.pretrain", log_every=1):
    return [
        sys.executable, "-m", module, "--config=configs/bert.py:tiny", f"--workdir={workdir}",
        f"--config.corpus.prepared={corpus.folder}", "--config.model.dtype=float32",
        *tiny.OVERRIDES, f"--config.train.steps={STEPS}", "--config.train.save_every=6",
        "--config.train.eval_every=9", "--config.optimizer.learning_rate=0.002",
        f"--config.train.log_every={log_every}",
    ]  # fmt: skip


def environment(**more):
    return os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | more


def finish(workdir, corpus, log_every=1, **more):
    done = subprocess.run(
        command(workdir, corpus, log_every=log_every), capture_output=True, text=True,
        env=environment(**more), cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def killed(workdir, corpus, moment, **more):
    return subprocess.run(
        command(workdir, corpus, "tests.killed"), capture_output=True, text=True,
        env=environment(KILL=moment, **more), cwd=ROOT,
    )  # fmt: skip


def numbers(workdir):
    return [
        {name: value for name, value in record.items() if name not in MEASURED}
        for record in read_metrics(workdir)
    ]


@pytest.fixture(scope="module")
def uninterrupted(corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted") / "workdir"
    finish(workdir, corpus)
    found = numbers(workdir)
    assert [record["step"] for record in found] == list(range(1, STEPS + 1))
    examples = len(tiny.batches(corpus)._examples)
    assert STEPS * 8 > 2 * examples, "the run is to reach its third epoch"
    return found


def test_the_same_run_twice_is_the_same(corpus, tmp_path, uninterrupted):
    finish(tmp_path / "workdir", corpus)
    assert numbers(tmp_path / "workdir") == uninterrupted


def test_killed_before_during_and_after_saves(corpus, tmp_path, uninterrupted):
    """Six times in one run: in the first epoch and later, between saves too."""
    workdir = tmp_path / "workdir"
    for moment in ("before:6", "during:6", "after:12", "during:18", "before:30", "after:36"):
        done = killed(workdir, corpus, moment)
        assert done.returncode == -signal.SIGKILL, (moment, done.stderr)
        steps = [record["step"] for record in numbers(workdir)]
        assert steps == list(range(1, len(steps) + 1))
    finish(workdir, corpus)
    assert numbers(workdir) == uninterrupted


def test_killed_in_a_store(corpus, tmp_path, uninterrupted, bucket):
    """The workdir and the corpus are in gs://; the numbers are those of local folders."""
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    workdir = reach(f"{bucket}/resumed")
    upload(corpus.folder, reach(f"{bucket}/corpus"), "manifest.json", lambda done, total: None)
    there = corpus._replace(folder=f"{bucket}/corpus")
    for moment, last in (("during:6", 6), ("after:18", 18), ("after:24", 24)):
        done = killed(workdir, there, moment, **environment)
        assert done.returncode == -signal.SIGKILL, (moment, done.stderr)
        steps = [record["step"] for record in numbers(workdir)]
        assert steps == list(range(1, last + 1)), moment  # stored before the checkpoint is seen
    found = objects(workdir)
    assert ".lock" in found and "metrics/0000000024.jsonl" in found
    for name in found:
        if name.startswith("checkpoints/24/") and "/d/" in name:
            (workdir / name).write_bytes(b"damaged")
    said = finish(workdir, there, **environment)
    assert "checkpoint 24 in" in said and "going on from step 18" in said
    assert numbers(workdir) == uninterrupted
    found = objects(workdir)
    assert "damaged-checkpoints/24/commit_success.txt" in found
    assert not any(name.startswith("metrics/") for name in found) and ".lock" not in found
    starts = (workdir / "provenance.jsonl").read_text().splitlines()
    assert [json.loads(line)["from_step"] for line in starts] == [0, 0, 18, 18]


@pytest.mark.tree_mode
def test_killed_between_saves(corpus, tmp_path, uninterrupted):
    """From outside, while steps are running."""
    workdir = tmp_path / "workdir"
    process = subprocess.Popen(
        command(workdir, corpus), env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL
    )
    while process.poll() is None and len(read_metrics(workdir)) < 15:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "lo')  # as if the last line had been torn
    finish(workdir, corpus)
    assert numbers(workdir) == uninterrupted


def test_a_damaged_newest_checkpoint_costs_a_few_steps(corpus, tmp_path, uninterrupted):
    workdir = tmp_path / "workdir"
    killed(workdir, corpus, "after:18")
    files = [p for p in (workdir / "checkpoints" / "18").rglob("*") if p.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:1000])
    said = finish(workdir, corpus)
    assert "checkpoint 18 in" in said and "going on from step 12" in said
    assert (workdir / "damaged-checkpoints" / "18").exists()
    assert numbers(workdir) == uninterrupted


def test_metrics_that_were_lost_are_told_of(corpus, tmp_path):
    """A finished run whose last line, and whose every line, is gone."""
    workdir = tmp_path / "workdir"
    finish(workdir, corpus)
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    for left in ("".join(lines[:-1]) + lines[-1][:-30], ""):
        path.write_text(left)
        said = finish(workdir, corpus)
        assert "lines of them were lost" in said and "held out after 36 steps" in said
        last = read_metrics(workdir)[-1]
        assert last["step"] == 36 and last["eval_loss"] == json.loads(lines[-1])["eval_loss"]
        assert "loss" not in last and len(read_metrics(workdir)) in (len(lines), 1)


# The step that is then saved: the last one done when it is asked whether to go on.
STOPPED = {"evaluation:18": 18, "saving:12": 13, "step:36": 36}


@pytest.mark.parametrize("moment", STOPPED)
def test_told_to_stop_it_saves_the_last_step(corpus, tmp_path, uninterrupted, moment):
    """SIGTERM: status 143, and the same numbers when it goes on, the held-out ones too. The step
    that it saves need not be one that is logged, and then no line is missed."""
    workdir = tmp_path / "workdir"
    done = subprocess.run(
        command(workdir, corpus, "tests.stopped", log_every=5), capture_output=True, text=True,
        env=environment(STOP=moment), cwd=ROOT,
    )  # fmt: skip
    saved = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert saved == STOPPED[moment]
    assert done.returncode == 143, done.stderr
    assert f"stopped after step {saved}; the same command goes on" in done.stderr
    assert "lost" not in finish(workdir, corpus, log_every=5)
    due = {*range(0, 37, 5), *range(0, 37, 6), *range(0, 37, 9)}
    assert numbers(workdir) == [record for record in uninterrupted if record["step"] in due]
    starts = (workdir / "provenance.jsonl").read_text().splitlines()
    assert [json.loads(start)["from_step"] for start in starts] == [0, saved]


def test_told_to_stop_before_the_first_step_it_leaves_at_once(corpus, tmp_path, uninterrupted):
    workdir = tmp_path / "workdir"
    done = subprocess.run(
        command(workdir, corpus, "tests.stopped"), capture_output=True, text=True,
        env=environment(STOP="compile"), cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 143, done.stderr
    assert done.stderr.endswith("stopped before the first step; nothing was lost\n")
    assert not any(path.name.isdigit() for path in (workdir / "checkpoints").iterdir())
    finish(workdir, corpus)
    assert numbers(workdir) == uninterrupted


def test_compare_names_the_first_step_that_differs(corpus, tmp_path, uninterrupted):
    """The same run is equal to the bit; one with another seed differs from step 1; one whose
    record was changed at step 5 there."""
    mine, changed, other = (tmp_path / name for name in ("mine", "changed", "other"))
    finish(mine, corpus)
    shutil.copytree(mine, changed)
    assert compare(mine, changed) == (["equal to the bit in all 36 steps that both logged"], True)
    records = read_metrics(changed)
    records[4]["loss"] += 1e-7
    records[7]["mlm_loss"] = 0.0
    MetricsWriter(changed, records[:30]).close()
    lines, same = compare(mine, changed)
    assert not same
    assert lines[0] == f"6 logged steps only in {mine}, the first 31"
    assert lines[1] == "equal before step 5; there" and lines[2].startswith("  loss: ")
    assert lines[3] == "the farthest apart" and lines[4].endswith(" at step 5")
    assert lines[5].startswith("  mlm_loss: ") and lines[5].endswith(" at step 8")
    shutil.copytree(mine, other)
    (other / "config.json").write_text((mine / "config.json").read_text().replace("0.002", "0.003"))
    assert compare(mine, other)[0][0] == "config: optimizer.learning_rate is 0.002 and 0.003"


def test_a_finished_run_may_be_lengthened(corpus, tmp_path, uninterrupted):
    """The steps so far stay; the rate from there on is that of the longer schedule."""
    workdir = tmp_path / "workdir"
    unfinished = subprocess.run(
        command(workdir, corpus, "tests.stopped"), env=environment(STOP="step:7"), cwd=ROOT
    )
    assert unfinished.returncode == 143
    longer = [*command(workdir, corpus), "--config.train.steps=40"]
    refused = subprocess.run(longer, capture_output=True, text=True, env=environment(), cwd=ROOT)
    assert refused.returncode == 2
    assert "(a run can be lengthened once it is finished; this is at 7)" in refused.stderr
    finish(workdir, corpus)
    done = subprocess.run(longer, capture_output=True, text=True, env=environment(), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert numbers(workdir)[:36] == uninterrupted and len(numbers(workdir)) == 40
    assert configs.load(workdir).train.steps == 40
