"""How fast each cell is here, measured once: what budgets of tokens and of time are turned into
steps by."""

import statistics
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bert_jax.errors import UserError
from bert_jax.training.metrics import read_metrics
from experiments import plan as plans
from experiments.plan import CALIBRATION_STEPS, Plan, Rate
from experiments.runs import last_words, pretrain
from experiments.study import Study


def calibrate(
    study: Study, plan: Plan, folder: Path, corpus: str, environment: Mapping[str, str], root: Path
) -> dict[str, Rate]:
    """By cell; empty where no budget needs it. One cell at a time, with nothing beside it."""
    if not plans.needs_calibration(study):
        return {}
    found = {}
    for arm in plan.arms:
        if arm.cell in found:
            continue
        workdir = folder / "calibration" / arm.folder
        steps = CALIBRATION_STEPS
        fields = {
            "train.steps": steps, "train.log_every": 5, "train.eval_every": steps,
            "train.save_every": steps, "train.eval_examples": 64, "train.keep": 1,
            "optimizer.warmup_steps": 10,
        }  # fmt: skip
        workdir.parent.mkdir(parents=True, exist_ok=True)
        log = workdir.with_suffix(".log")
        with log.open("ab") as file:
            done = subprocess.run(
                pretrain(arm, workdir, 0, corpus, **fields), cwd=root, env=environment,
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip
        if done.returncode:
            raise UserError(f"{arm.name} cannot be calibrated: {last_words(log)} ({log})")
        found[arm.cell] = rate = rate_of(workdir)
        print(
            f"calibrated {arm.cell}: {rate.steps_per_second:.3g} steps a second, "
            f"{rate.tokens:.0f} tokens each",
            flush=True,
        )
    return found


def rate_of(workdir: Path) -> Rate:
    """Of the later half of the logged steps: medians, as other work comes and goes."""
    records = [r for r in read_metrics(workdir) if r.get("tokens_per_second")]
    later = records[len(records) // 2 :]
    return Rate(
        statistics.median(r["real_tokens"] for r in later),
        statistics.median(r["tokens_per_second"] / r["real_tokens"] for r in later),
    )
