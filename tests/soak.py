"""A run of four processes that is killed, or told to stop, at random moments; not in CI.

  python -m tests.soak --kills=20 --notices=10 --steps=400

One process of the run gets SIGKILL, or SIGTERM, at a moment drawn from the whole of a start: while
processes meet, compile, train, evaluate, save. Then the run is started again, until all moments
are used up, and once more to its end. It is to hold that every process ends within 60 s, that no
checkpoint is half-written, and that the metrics are, to the bit, those of a run that nobody
stopped: nothing lost, nothing repeated.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from bert_jax.training.metrics import read_metrics
from tests import tiny
from tests.test_many_processes import ended, four, processes
from tests.test_resume import numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--notices", type=int, default=10)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        corpus = tiny.prepare(folder)
        more = [f"--config.train.steps={options.steps}", "--config.train.save_every=50"]
        begin = time.monotonic()
        status, said = ended(four(folder / "whole", corpus, *more), 1800)
        seconds = time.monotonic() - begin
        assert status == 0, said
        print(f"uninterrupted: {options.steps} steps in {seconds:.0f} s")
        for number, what in ((options.kills, signal.SIGKILL), (options.notices, signal.SIGTERM)):
            workdir = folder / what.name
            for attempt in range(number):
                one(workdir, corpus, more, what, dice, attempt, seconds)
            status, said = ended(four(workdir, corpus, *more), 1800)
            assert status == 0, said
            same = numbers(workdir) == numbers(folder / "whole")
            print(f"{what.name} {number} times: metrics {'equal to the bit' if same else 'DIFFER'}")
            if not same:
                sys.exit(1)


def one(workdir, corpus, more, what, dice, attempt, seconds) -> None:
    """A start that is interrupted: half of them at any moment of its first 30 s, the others after
    so many steps of its own."""
    before = saved(workdir)
    run = four(workdir, corpus, *more)
    if attempt % 2:
        until = time.monotonic() + dice.uniform(0, min(30, seconds))
        while time.monotonic() < until and run.poll() is None:
            time.sleep(0.05)
    else:
        goal = before + dice.randrange(1, 60)
        while run.poll() is None and logged(workdir) < goal:
            time.sleep(0.02)
    victim = dice.randrange(4)
    while victim not in processes(run):  # the launcher is about to start it
        assert run.poll() is None, "the run ended by itself: give more --steps"
        time.sleep(0.01)
    os.kill(processes(run)[victim], what)
    begin = time.monotonic()
    status, said = ended(run, 60)
    took = time.monotonic() - begin
    half = [path.name for path in (workdir / "checkpoints").glob("*") if not path.name.isdigit()]
    now = saved(workdir)
    print(
        f"{attempt + 1}: {what.name} to process {victim} at step {logged(workdir)}; all had ended "
        f"{took:.1f} s later, status {status}; checkpoint {before} -> {now}", flush=True,
    )  # fmt: skip
    assert now >= before, said
    if what == signal.SIGKILL:
        assert status not in (0, 143), said
        return
    assert status == 143 and not half, (half, said)
    told = [line for line in said.splitlines() if "stopped after step" in line]
    if told:  # all of them, after the last step that was done
        assert len(told) == 4 and all(f"stopped after step {now};" in line for line in told), said
        assert now >= logged(workdir), "a step that was done is not saved"
    else:
        assert now == before, said


def saved(workdir: Path) -> int:
    steps = [int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]
    return max(steps, default=0)


def logged(workdir: Path) -> int:
    return max((record["step"] for record in read_metrics(workdir)), default=0)


if __name__ == "__main__":
    main()
