"""What is left to do of a run, by what is there of it; and what of a study's folder is refused."""

import json
import os
from dataclasses import replace

import pytest

from bert_jax.errors import UserError
from experiments import plan as plans, study as studies
from experiments.found import collect
from experiments.plan import Arm, Plan
from experiments.runs import QUIET, Run, launched
from experiments.work import begun, left_of, standing

ARM = Arm("15%", "15%", "15pc", ("steps",), "configs/bert.py:tiny", {}, 10, 1e9)
STAGES = {"pretrain": ["train"], "probe": ["ask"], "sst2": ["tune"]}
PLAN = Plan("masking_rate", "smoke", "15%", (ARM,), 1, {}, tasks={"sst2": ["sst2.py", "--data=a"]})


@pytest.fixture
def run(tmp_path):
    return Run(ARM, 0, tmp_path)


def write(run, *, step=10, config=True, probe=True, task=True):
    """What its stages leave."""
    run.workdir.mkdir(parents=True, exist_ok=True)
    record = {"step": step, "loss": 1.0, "eval_loss": 5.0, "eval_mlm_loss": 5.0,
              "real_tokens": 9.0, "tokens_per_second": 9.0}  # fmt: skip
    (run.workdir / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    for wanted, name, text in (
        (config, "config.json", "{}"), (probe, "probe.json", '{"words": 0.6}'),
        (task, "tasks/sst2/scores.json", '{"scores": {"accuracy": 0.8}}'),
    ):  # fmt: skip
        path = run.workdir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text) if wanted else path.unlink(missing_ok=True)


def test_nothing_is_left_of_what_is_done(run):
    write(run)
    run.record("done", list(STAGES))
    assert begun(run, STAGES).left == {} and run.outcome()["status"] == "done"
    (found,) = collect(PLAN, run.folder)
    assert found.scores == {"eval_loss": 5.0, "eval_mlm_loss": 5.0, "probe_words": 0.6,
                            "task_sst2_accuracy": 0.8}  # fmt: skip


@pytest.mark.parametrize(
    ("lost", "left"),
    [
        ({"probe": False}, ["probe"]), ({"task": False}, ["sst2"]),
        ({"config": False}, ["pretrain"]), ({"step": 7}, ["pretrain"]),
    ],
)  # fmt: skip
def test_what_was_lost_is_left_to_do(run, lost, left):
    """And said; without its config or its last metrics a run has no scores."""
    write(run, **lost)
    run.record("done", list(STAGES))
    (found,) = collect(PLAN, run.folder)
    assert found.status == "incomplete" and f"what {left[0]} wrote is gone" in found.why
    assert bool(found.scores) == (left != ["pretrain"])
    assert list(begun(run, STAGES).left) == left and run.outcome()["status"] == ""


def test_what_was_submitted_is_waited_for(run):
    run.record("submitted", [])
    assert begun(run, STAGES).left == {}
    assert begun(run, STAGES, resubmit=True).left == STAGES
    write(run, step=3, probe=False, task=False)
    assert begun(run, STAGES, resubmit=True).left == {}, "it has just logged a step"
    metrics = run.workdir / "metrics.jsonl"
    os.utime(metrics, (0, metrics.stat().st_mtime - 2 * QUIET))
    assert begun(run, STAGES).left == {}
    assert begun(run, STAGES, resubmit=True).left == STAGES, "nobody has heard of it for long"
    write(run, probe=False, task=False)
    assert list(begun(run, STAGES).left) == ["probe", "sst2"]


def test_looking_at_what_is_left_writes_nothing(run):
    """As --dry-run does. What diverged, and what was submitted, is not started again."""
    write(run, probe=False)
    run.record("done", list(STAGES))
    before = run.outcome()
    assert list(left_of(*standing(run), STAGES)) == ["probe"] and run.outcome() == before
    for status in ("diverged", "submitted"):
        run.record(status, [])
        write(run, step=3)
        assert left_of(*standing(run), STAGES) == {}


def test_a_run_that_was_cut_short_says_how_far_it_is(run):
    write(run, step=3)
    (found,) = collect(PLAN, run.folder)
    assert (found.status, found.why) == ("unfinished", "at step 3 of 10") and not found.scores


def test_a_torn_line_of_provenance_is_passed_over(run):
    write(run)
    (run.workdir / "provenance.jsonl").write_text('{"commit": "a"}\n[1]\n{"comm')
    assert collect(PLAN, run.folder)[0].provenance == {"commit": "a"}


@pytest.mark.parametrize("text", ["[]", "{}", '{"status": "done"}', "{"])
def test_an_outcome_that_cannot_be_read_is_named(run, text):
    run.record("done", [])
    run.workdir.with_name("seed-0.json").write_text(text)
    with pytest.raises(UserError, match="seed-0.json: cannot be read .* delete it"):
        run.outcome()


@pytest.mark.parametrize("changes", [None, {"arms": []}, {"baseline": "x"}, {"arms": 3}])
def test_a_plan_that_cannot_be_read_is_named(tmp_path, changes):
    plans.save(PLAN, tmp_path)
    assert plans.load(tmp_path) == replace(PLAN)
    path = tmp_path / "plan.json"
    values = {} if changes is None else json.loads(path.read_text()) | changes
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="plan.json: cannot be read"):
        plans.load(tmp_path)


def test_a_folder_of_another_study_is_refused(tmp_path):
    plans.check_study(PLAN, studies.find("masking_rate"), tmp_path)
    with pytest.raises(UserError, match="is of the study masking_rate"):
        plans.check_study(PLAN, studies.find("corruption"), tmp_path)


def test_a_task_of_the_same_name_is_the_same_task(tmp_path):
    """Seeds that were fine-tuned in two ways are no seeds of one thing."""
    plans.check_same(PLAN, replace(PLAN, tasks={}), tmp_path)
    plans.check_same(PLAN, replace(PLAN, tasks=dict(PLAN.tasks) | {"rte": ["rte.py"]}), tmp_path)
    with pytest.raises(UserError, match="on sst2 with --task='sst2.py --data=a', and now"):
        plans.check_same(PLAN, replace(PLAN, tasks={"sst2": ("sst2.py", "--data=b")}), tmp_path)


def test_a_launcher_is_told_the_name_of_the_run(run):
    words = ["python", "-m", "launch.slurm", "--name=mine-{run}", "--"]
    assert launched(words, run.workdir)[3] == "--name=mine-15pc-seed-0"
