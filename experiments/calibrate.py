"""How fast cells are here, measured once: what budgets of tokens and of time are turned into steps
by, and what a study is estimated to take."""

import signal
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from bert_jax import config as configs
from bert_jax.errors import Preempted, UserError
from bert_jax.training.metrics import read_metrics
from experiments.plan import CALIBRATION_STEPS, Arm, Plan, Rate
from experiments.runs import is_locked, last_words, launched, pretrain
from experiments.workers import start, stop

_LOG_EVERY = 5


def calibrate(
    plan: Plan, arms: Sequence[Arm], folder: Path, corpus: str, environment: Mapping[str, str],
    launch: Sequence[str], jobs: int,
) -> dict[str, Rate]:  # fmt: skip
    """By cell. One at a time, with nothing beside it, on as many cores as a run will have. A cell
    that fails is told and left out; UserError where it is the baseline."""
    found: dict[str, Rate] = {}
    for arm in arms:
        workdir = folder / "calibration" / arm.folder
        log = workdir.with_name(f"{workdir.name}.log")
        try:
            with told_to_stop():
                rate = measured(arm, workdir, log, corpus, environment, launch, jobs)
            found[arm.cell] = rate
        except UserError as error:
            if arm.name == plan.baseline:
                raise
            print(f"error: {error}", flush=True)
            continue
        print(
            f"calibrated {arm.cell}: {rate.steps_per_second:.3g} steps a second, "
            f"{rate.tokens:.0f} tokens each",
            flush=True,
        )
    return found


@contextmanager
def told_to_stop() -> Iterator[None]:
    """SIGTERM ends what is timed, too, as Ctrl-C does by itself. Raises Preempted."""

    def leave(number: int, _: FrameType | None) -> None:
        raise Preempted("stopped; the same command goes on")

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def measured(
    arm: Arm, workdir: Path, log: Path, corpus: str, environment: Mapping[str, str],
    launch: Sequence[str], jobs: int,
) -> Rate:  # fmt: skip
    """Raises UserError where it failed, or where a launcher has not done it yet."""
    steps = CALIBRATION_STEPS
    fields = {
        "train.steps": steps, "train.log_every": _LOG_EVERY, "train.eval_every": steps,
        "train.save_every": steps, "train.eval_examples": 64, "train.keep": 1,
        "optimizer.warmup_steps": 10,
    }  # fmt: skip
    workdir.parent.mkdir(parents=True, exist_ok=True)
    while is_locked(workdir):  # by one that outlived the study that started it
        time.sleep(1)
    began, submitted = time.monotonic(), bool(launch) and log.exists()
    status = 0
    if not submitted:
        with log.open("ab") as file:
            words = [*launched(launch, workdir), *pretrain(arm, workdir, 0, corpus, **fields)]
            process = start(words, file, environment, 0, jobs)
            try:
                status = process.wait()
            finally:
                stop([process])
    seconds = time.monotonic() - began
    if status:
        raise UserError(f"{arm.cell} cannot be calibrated: {last_words(log)} ({log})")
    records = read_metrics(workdir) if workdir.exists() else []
    if not records or records[-1]["step"] < steps:
        raise UserError(
            f"{arm.cell} was handed to the launcher to be calibrated and is not yet done; start "
            f"the same command when it is, or delete {log} to submit it again"
        )
    rate = rate_of(workdir, arm.steps)
    aside = 0.0 if launch else max(0.0, seconds - steps / rate.steps_per_second)
    return Rate(rate.tokens, rate.steps_per_second, aside)


def rate_of(workdir: Path, steps: int) -> Rate:
    """Over a whole run of `steps`: of each of its phases the mean of the logged tokens and the
    median of the seconds a step, as other work comes and goes, by how many steps it has."""
    config = configs.load(workdir)
    records = [r for r in read_metrics(workdir) if r.get("tokens_per_second")]
    whole = configs.phases(config.data, steps)
    tokens = seconds = weights = 0.0
    for part, phase in zip(config.phases, whole, strict=False):
        mine = [r for r in records if part.begin < r["step"] <= part.begin + part.steps]
        if mine:
            each = [r["real_tokens"] / r["tokens_per_second"] for r in mine]
            tokens += phase.steps * statistics.mean(r["real_tokens"] for r in mine)
            seconds += phase.steps * statistics.median(each)
            weights += phase.steps
    if not weights:
        raise UserError(f"{workdir}: no step of it was timed; delete it and start again")
    return Rate(tokens / weights, weights / seconds)


def minutes(plan: Plan, runs: Sequence[Arm], rate: Rate, jobs: int) -> float:
    """What so many runs take, `jobs` at a time, by the speed of the baseline and the arithmetic of
    the others; what a run takes beside its steps is that of the calibration twice, once for
    pretraining and once for the probe with the evaluations."""
    base = plan.arm(plan.baseline)
    speed = base.flops / base.steps * rate.steps_per_second
    return sum(arm.flops / speed + 2 * rate.aside for arm in runs) / jobs / 60
