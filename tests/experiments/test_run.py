"""Studies through the real programs, on a corpus of a few documents: run, killed, run again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bert_jax.training.metrics import read_metrics
from tests import tiny

ROOT = Path(__file__).parent.parent.parent
STUDY = "corruption"
BASE, OTHER = "80-10-10-15pc", "mask-only-15pc"
# Every run is 12 steps of a tiny model, with an evaluation every 4.
SMALL = [
    f"--config.model.vocab_size={tiny.VOCAB}", "--config.model.max_positions=64",
    "--config.data.sequence_length=64", "--config.data.batch_size=8", "--config.train.steps=12",
    "--config.train.eval_examples=64",
]  # fmt: skip


def command(program, *words):
    return [sys.executable, "-m", f"experiments.{program}", STUDY, *words]


def run_words(corpus, workdir, *words):
    return command(
        "run", "--scale=smoke", f"--workdir={workdir}",
        f"--config.corpus.prepared={corpus.folder}", *SMALL, *words,
    )  # fmt: skip


def started(words, **more):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | more
    return subprocess.run(words, capture_output=True, text=True, env=environment, cwd=ROOT)


def results(workdir):
    """What the report says, without what was timed."""
    done = started(command("report", f"--workdir={workdir}"))
    assert done.returncode == 0, done.stderr
    folder = workdir / STUDY / "smoke" / "report"
    found = json.loads((folder / "results.json").read_text())
    del found["plan"]
    for run in found["runs"]:
        for point in run["curve"]:
            del point["seconds"]
    return found


@pytest.fixture(scope="module")
def study(corpus, tmp_path_factory):
    """Two cells, two seeds, and the report of them."""
    workdir = tmp_path_factory.mktemp("study")
    done = started(run_words(corpus, workdir, "--jobs=2"))
    assert done.returncode == 0, done.stderr
    assert "4 runs: 4 done" in done.stdout
    return workdir


def again(study, workdir, *folders):
    """A copy of the study in which these runs were never begun."""
    shutil.copytree(study, workdir)
    smoke = workdir / STUDY / "smoke"
    for folder in folders:
        shutil.rmtree(smoke / folder)
        (smoke / folder).with_suffix(".json").unlink()
        (smoke / folder).with_suffix(".log").unlink()
    return smoke


def test_every_run_has_its_scores(study):
    found = results(study)
    assert [(run["cell"], run["seed"], run["status"]) for run in found["runs"]] == [
        ("80/10/10, 15%", 0, "done"), ("mask only, 15%", 0, "done"),
        ("80/10/10, 15%", 1, "done"), ("mask only, 15%", 1, "done"),
    ]  # fmt: skip
    for run in found["runs"]:
        assert {"probe_words", "probe_order", "probe_continuation"} < set(run["scores"])
        assert [point["step"] for point in run["curve"]] == [4, 8, 12]
        assert run["scores"]["eval_mlm_loss"] == run["curve"][-1]["scores"]["eval_mlm_loss"]
    first = found["comparisons"][0]
    assert first["metric"] == "probe_words" and first["judged"]["degrees"] == 1


def test_cells_differ_in_what_they_vary_alone(study):
    configs = [
        json.loads((study / STUDY / "smoke" / f"{cell}/seed-1/config.json").read_text())
        for cell in (BASE, OTHER)
    ]
    for config, share in zip(configs, (0.8, 1.0), strict=True):
        assert config["data"].pop("mask_token_share") == share
        config["data"].pop("random_token_share")
    assert configs[0] == configs[1] and configs[0]["seed"] == 1


def test_a_report_names_no_home(study, corpus, tmp_path):
    """Its configs can still be run: the programs know ~."""
    words = command("report", f"--workdir={study}", f"--output={tmp_path}")
    home = corpus.folder.parent
    done = started(words, HOME=str(home))
    assert done.returncode == 0, done.stderr
    for file in ("configs/80-10-10-15pc-seed-0.json", "results.json"):
        assert str(home) not in (tmp_path / file).read_text()
    config = json.loads((tmp_path / "configs/80-10-10-15pc-seed-0.json").read_text())
    assert config["corpus"]["prepared"] == f"~/{corpus.folder.name}"


def test_killed_it_goes_on_and_ends_with_the_same_report(study, corpus, tmp_path):
    """SIGKILL of the study while a run trains, which lives on; what was done is not run again."""
    smoke = again(study, tmp_path / "copy", f"{BASE}/seed-1", f"{OTHER}/seed-1")
    before = (smoke / f"{BASE}/seed-0/metrics.jsonl").stat().st_mtime_ns
    words = run_words(corpus, tmp_path / "copy", "--jobs=2")
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    training = smoke / f"{BASE}/seed-1"
    while process.poll() is None and not (training.exists() and len(read_metrics(training)) > 2):
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = started(words)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "copy") == results(study)
    assert (smoke / f"{BASE}/seed-0/metrics.jsonl").stat().st_mtime_ns == before
    starts = (smoke / f"{BASE}/seed-0.log").read_text().count("$ ")
    assert starts == 2, "one of pretrain, one of the probe"


def test_a_run_that_fails_stops_no_other(study, corpus, tmp_path):
    """Its workdir is a file. Mended, it alone is run; of another, only the probe that it lost."""
    smoke = again(study, tmp_path / "copy", f"{BASE}/seed-0", f"{OTHER}/seed-1")
    (smoke / f"{BASE}/seed-0").write_text("in the way")
    (smoke / f"{BASE}/seed-1/probe.json").unlink()
    lost = next(run for run in results(tmp_path / "copy")["runs"] if run["status"] == "incomplete")
    assert lost["why"] == "what probe wrote is gone; start the study again"
    trained = (smoke / f"{BASE}/seed-1/metrics.jsonl").stat().st_mtime_ns
    words = run_words(corpus, tmp_path / "copy", "--jobs=2")
    done = started(words)
    assert done.returncode == 2 and "error: 1 of 4 runs failed" in done.stderr
    assert "80/10/10, 15% seed 0: failed, pretrain: error:" in done.stdout
    assert json.loads((smoke / f"{OTHER}/seed-1.json").read_text())["status"] == "done"
    assert (smoke / f"{BASE}/seed-1/metrics.jsonl").stat().st_mtime_ns == trained
    (smoke / f"{BASE}/seed-0").unlink()
    done = started(words)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "copy") == results(study)


def test_what_diverges_is_recorded_and_not_tried_again(corpus, tmp_path):
    words = run_words(
        corpus, tmp_path, "--config.optimizer.learning_rate=1e38", "--config.train.max_skipped=2",
        "--seeds=1",
    )  # fmt: skip
    done = started(words)
    assert done.returncode == 0, done.stderr
    assert "2 runs: 2 diverged" in done.stdout
    log = tmp_path / STUDY / "smoke" / f"{BASE}/seed-0.log"
    size = log.stat().st_size
    assert started(words).returncode == 0 and log.stat().st_size == size
    (first, *_) = results(tmp_path)["comparisons"]
    assert first["cells"]["80/10/10, 15%"] == "diverged (1 of 1 seeds)"


def test_dry_run_prints_what_would_be_started(corpus, tmp_path):
    words = run_words(
        corpus, tmp_path, "--dry-run", "--launch=python -m launch.slurm --name=s --",
        "--task=configs/tasks/glue.py:sst2 --data='a b'",
    )  # fmt: skip
    done = started(words)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1 + 4 * 3 and "which a study that is started writes" in lines[0]
    assert lines[1].startswith("python -m launch.slurm --name=s -- ")
    assert "--config.data.mask_token_share=1.0" in lines[4]
    assert "'--data=a b'" in lines[3] and "bert_jax.finetune" in lines[3]
    assert not (tmp_path / STUDY).exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["masking_rat", "--scale=smoke"], "did you mean masking_rate?"),
        (["masking_rate", "--scale=tiny"], "invalid choice: 'tiny'"),
        (["masking_rate", "--scale=smoke", "--seeds=0"], "is not a whole number from 1 to 1000"),
        (["masking_rate", "--scale=smoke", "--config.data.bogus=1"], "there is no such field"),
        (["masking_rate", "--scale=smoke", "--config.model.num_heads=3"], "15%: "),
        (["masking_rate", "--scale=smoke", "--task=--data=x"], "name a config first"),
        (["masking_rate", "--scale=smoke", "--config.seed=3"], "how many with --seeds"),
        (["masking_rate", "--scale=smoke", "--config.data.mask_rate=0.2"], "masking_rate varies"),
        (["masking_rate", "--scale=smoke", "--config.train.steps=1"], "two are the least"),
        (["masking_rate", "--scale=smoke", "--launch='x"], "no closing quotation"),
        (["masking_rate", "--scale=smoke", "--task='x"], "no closing quotation"),
        (["masking_rate", "--scale=smoke", "--task=tasks/probe.py"], "cannot be called 'probe'"),
        (["masking_rate", "--scale=smoke", "--task=nope.py"], "nope.py"),
        (
            ["masking_rate", "--scale=smoke", "--task=configs/tasks/glue.py:sst2 --data=/nowhere"],
            "/nowhere",
        ),
    ],
)
def test_mistakes_are_told_in_a_line(words, said, tmp_path):
    done = started([sys.executable, "-m", "experiments.run", *words, f"--workdir={tmp_path}"])
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_another_study_in_the_same_folder_is_refused(study, corpus):
    done = started(run_words(corpus, study, "--config.optimizer.beta2=0.9"))
    assert done.returncode == 2
    assert "optimizer.beta2=0.98, and now it is 0.9: give the old value" in done.stderr


def test_fewer_seeds_than_there_are_are_refused(study, corpus):
    done = started(run_words(corpus, study, "--seeds=1"))
    assert done.returncode == 2 and "has 2 already" in done.stderr


def test_another_text_under_the_same_name_is_refused(study, corpus, tmp_path):
    """The folder that the study began with was prepared anew from other text."""
    shutil.copytree(study, tmp_path / "copy")
    path = tmp_path / "copy" / STUDY / "smoke" / "plan.json"
    plan = json.loads(path.read_text())
    path.write_text(json.dumps(plan | {"corpus_sha256": "of another text"}))
    done = started(run_words(corpus, tmp_path / "copy"))
    assert done.returncode == 2 and "its text is another one" in done.stderr


def test_a_report_of_nothing_says_what_to_start(tmp_path):
    done = started(command("report", f"--workdir={tmp_path}"))
    assert done.returncode == 2 and f"python -m experiments.run {STUDY}" in done.stderr
