"""How fast a cell is, by the real program, and what a launcher has that only submits it."""

import os
import signal
import sys
import threading
import time

import pytest

from bert_jax.errors import Preempted, UserError
from experiments.calibrate import calibrate, measured, minutes, told_to_stop
from experiments.plan import CALIBRATION_STEPS, Arm, Plan, Rate
from experiments.runs import Run, is_locked
from experiments.work import Job, run_all
from experiments.workers import surroundings
from tests import tiny

SETTINGS = {
    word.removeprefix("--config.").partition("=")[0]: word.partition("=")[2]
    for word in tiny.OVERRIDES
} | {"objective.nsp": 0.0, "data.pairs": "none"}  # fmt: skip
ARM = Arm("BERT", "BERT", "bert", ("time",), "configs/bert.py:tiny", SETTINGS, 10, 1e9)
PLAN = Plan("variants", "smoke", "BERT", (ARM,), 1, {})


def test_a_cell_is_timed_by_the_program_itself(corpus, tmp_path):
    found = calibrate(PLAN, [ARM], tmp_path, str(corpus.folder), surroundings(1), [], 1)
    rate = found["BERT"]
    assert 8 * 16 < rate.tokens <= 8 * 32 and rate.steps_per_second > 0 and rate.aside > 0
    folder = tmp_path / "calibration" / "bert"
    assert f'"step": {CALIBRATION_STEPS}' in (folder / "metrics.jsonl").read_text()
    assert not is_locked(folder)


def test_a_launcher_that_is_back_at_once_has_only_submitted_it(corpus, tmp_path):
    """The calibration is not submitted twice, and waits for the next start; a run is noted."""
    words = PLAN, [ARM], tmp_path, str(corpus.folder), surroundings(1), ["true"], 1
    for _ in range(2):
        with pytest.raises(UserError, match="was handed to the launcher to be calibrated"):
            calibrate(*words)
    run = Run(ARM, 0, tmp_path)
    job = Job(run, [], run.stages(str(corpus.folder), None, []))
    run_all([job], ["true"], 1, surroundings(1))
    assert run.outcome()["status"] == "submitted"
    assert run.log.read_text().startswith("$ true ")


def test_a_cell_that_cannot_be_timed_fails_alone(tmp_path, capsys):
    other = Arm("x", "x", "x", ("time",), "configs/bert.py:tiny", SETTINGS, 10, 1e9)
    nowhere = str(tmp_path / "no-such-corpus")
    assert calibrate(PLAN, [other], tmp_path, nowhere, surroundings(1), [], 1) == {}
    assert "error: x cannot be calibrated" in capsys.readouterr().out
    with pytest.raises(UserError, match="BERT cannot be calibrated"):
        calibrate(PLAN, [ARM], tmp_path, nowhere, surroundings(1), [], 1)


def test_told_to_stop_it_leaves_nothing_that_works(tmp_path):
    sleeper = [sys.executable, "-c", "import time; print('there', flush=True); time.sleep(600)"]
    log = tmp_path / "log"

    def stop():
        while not log.exists() or "there" not in log.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=stop, daemon=True).start()
    begin = time.monotonic()
    with pytest.raises(Preempted), told_to_stop():
        measured(ARM, tmp_path / "bert", log, "", os.environ, sleeper, 1)
    assert time.monotonic() - begin < 300 and signal.getsignal(signal.SIGTERM) == before


def test_the_minutes_of_a_study():
    """By the arithmetic of its runs, at the speed of the baseline: 10 steps in 5 seconds."""
    rate = Rate(1000.0, 2.0, aside=30.0)
    twice = Arm("twice", "twice", "twice", ("time",), "", {}, 10, 2e9)
    assert minutes(PLAN, [ARM, twice], rate, 2) == pytest.approx((5 + 10 + 4 * 30) / 2 / 60)
