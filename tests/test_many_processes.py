"""Four real processes with two devices each are one run: the same numbers as in one process, and
to the bit the same however often the run is stopped and killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bert_jax.training.metrics import read_metrics
from tests.test_resume import command, environment, numbers

ROOT = Path(__file__).parent.parent
STEPS = 40
MORE = [
    f"--config.train.steps={STEPS}", "--config.train.save_every=12",
    "--config.train.natural_bias=true",
]  # fmt: skip


def four(workdir, corpus, *more, module="bert_jax.pretrain", **variables):
    """The run under launch.local."""
    launcher = [sys.executable, "-m", "launch.local", "--processes=4", "--devices=2", "--"]
    return subprocess.Popen(
        [*launcher, *command(workdir, corpus, module), *MORE, *more],
        env=environment(**variables), cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def ended(run, seconds):
    try:
        said, _ = run.communicate(timeout=seconds)
    finally:
        run.kill()
    return run.returncode, said


def processes(run):
    """Those that the launcher has started, by their number in the run."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue  # it has just ended
            for word in words if parent == run.pid else ():
                if word.startswith(b"--process="):
                    found[int(word.partition(b"=")[2])] = int(folder.name)
    return found


def until_logged(run, workdir, step):
    limit = time.monotonic() + 300
    while not any(record["step"] >= step for record in read_metrics(workdir)):
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < limit, "the run does not get on"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def uninterrupted(corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("four") / "workdir"
    status, said = ended(four(workdir, corpus), 600)
    assert status == 0, said
    return numbers(workdir)


def test_losses_are_those_of_one_process(corpus, tmp_path, uninterrupted):
    workdir = tmp_path / "workdir"
    done = subprocess.run(
        [*command(workdir, corpus), *MORE], env=environment(), cwd=ROOT, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    alone = numbers(workdir)
    assert (
        [r["step"] for r in uninterrupted] == [r["step"] for r in alone] == [*range(1, STEPS + 1)]
    )
    for mine, theirs in zip(uninterrupted, alone, strict=True):
        assert mine.keys() == theirs.keys()
        for name in ("loss", "eval_loss", "mlm_loss"):
            if name in mine:
                assert mine[name] == pytest.approx(theirs[name], abs=1e-5)


def test_stopped_and_killed_it_ends_with_the_same_numbers(corpus, tmp_path, uninterrupted):
    """A notice to one of them, in an evaluation, stops all at one step, and the evaluation is made
    up for; a death of one ends all of them; a checkpoint of which one cannot read its part is
    passed over."""
    workdir = tmp_path / "workdir"
    run = four(workdir, corpus, module="tests.stopped", STOP="evaluation:9", ONLY="2")
    status, said = ended(run, 300)
    assert status == 143 and said.count("stopped after step 9;") == 4, said
    assert "eval_loss" not in read_metrics(workdir)[-1]

    run = four(workdir, corpus)
    until_logged(run, workdir, 14)
    victim = random.Random(0).randrange(4)
    os.kill(processes(run)[victim], signal.SIGKILL)
    status, said = ended(run, 60)
    assert status not in (0, 143), said
    newest = max((workdir / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    for path in newest.rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[:1000])

    status, said = ended(four(workdir, corpus), 600)
    assert status == 0 and f"checkpoint {newest.name} in" in said, said
    assert numbers(workdir) == uninterrupted
