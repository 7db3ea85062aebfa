"""The programs as a user starts them: real processes, real files, wrong words too."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bert_jax.training.metrics import read_metrics
from tests import tiny

ROOT = Path(__file__).parent.parent
PROGRAMS = ("prepare", "pretrain", "evaluate", "predict", "convert")


def start(program, *arguments, timeout=300, **kwargs):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", f"bert_jax.{program}", *map(str, arguments)],
        capture_output=True, text=True, timeout=timeout, env=environment, cwd=ROOT, **kwargs,
    )  # fmt: skip


def pretrain(workdir, corpus, *arguments, config="configs/bert.py:tiny", **kwargs):
    return start(
        "pretrain", f"--config={config}", f"--workdir={os.path.relpath(workdir, ROOT)}",
        f"--config.corpus.prepared={corpus.folder}", "--config.model.dtype=float32",
        *tiny.OVERRIDES, *arguments, **kwargs,
    )  # fmt: skip


def refused(done, *said):
    """One clear line, a non-zero status, no traceback."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    for words in said:
        assert words in lines[0], lines[0]


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    """A finished run of twelve steps."""
    workdir = tmp_path_factory.mktemp("run") / "workdir"
    steps = ["train.steps=12", "train.save_every=6", "train.eval_every=6"]
    done = pretrain(workdir, corpus, *(f"--config.{step}" for step in steps))
    assert done.returncode == 0, done.stderr
    return workdir, done


def test_ctrl_c_while_a_program_imports_its_parts():
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "bert_jax.prepare"],
        stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    for line in process.stderr:
        if line.endswith("| bert_jax\n"):
            break
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and told.endswith("interrupted\n") and "Trace" not in told


def test_too_little_memory_is_told():
    code = "import numpy\nfrom bert_jax import cli\nwith cli.guarded(): numpy.empty(1 << 50)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    refused(done, "memory of this machine is too small (Unable to allocate 8")


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_teaches(program):
    done = start(program, "--help")
    assert done.returncode == 0
    assert f"python -m bert_jax.{program}" in done.stdout and len(done.stdout.splitlines()) > 5


def test_a_workdir_has_all_of_its_parts(run):
    workdir, done = run
    present = {path.name for path in workdir.iterdir()}
    assert present == {
        "config.json", "tokenizer", "checkpoints", "metrics.jsonl", "tensorboard",
        "provenance.jsonl", "curve.png", "data.json", "init.json", ".lock",
    }  # fmt: skip
    records = read_metrics(workdir)
    assert [record["step"] for record in records] == list(range(1, 13))
    for record in records:
        assert record["mlm_coefficient"] == record["nsp_coefficient"] == 1.0
        assert {"loss", "mlm_loss", "nsp_loss", "mlm_weight", "mlm_overflow"} <= record.keys()
        assert {"tokens_per_second", "mfu", "loader_wait", "gradient_norm"} <= record.keys()
    evaluated = [r["step"] for r in records if "eval_loss" in r]
    assert evaluated == [6, 12]
    assert "eval_unigram_loss" in records[-1] and "eval_nsp_accuracy_lower95" in records[-1]
    assert "MLM loss" in done.stdout and "chance 0.5" in done.stdout and "seed 0" in done.stdout
    (provenance,) = map(json.loads, (workdir / "provenance.jsonl").read_text().splitlines())
    assert provenance["data"]["tokenizer_sha256"] and provenance["versions"]["jax"]
    assert {"commit", "dirty", "command", "devices"} <= provenance.keys()


def test_a_finished_run_says_so_again(run, corpus):
    workdir, first = run
    before = (workdir / "metrics.jsonl").read_bytes()
    steps = ["train.steps=12", "train.save_every=6", "train.eval_every=6"]
    done = pretrain(workdir, corpus, *(f"--config.{step}" for step in steps))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-4:] == first.stdout.splitlines()[-4:]
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_another_config_is_refused(run, corpus):
    workdir, _ = run
    refused(
        pretrain(workdir, corpus, "--config.train.steps=12", "--config.seed=7"),
        workdir.name, "seed=0", "another --workdir",
    )  # fmt: skip


def test_fill_mask(run):
    workdir, _ = run
    texts = ["The [MASK] on the table.", "[MASK] [MASK] gardens."]
    done = start("predict", "fill-mask", f"--model={workdir}", "--top-k=3", *texts)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["text"] for answer in answers] == texts
    assert [len(answer["masks"]) for answer in answers] == [1, 2]
    for answer in answers:
        for mask in answer["masks"]:
            probabilities = [choice["probability"] for choice in mask]
            assert len(mask) == 3 and probabilities == sorted(probabilities, reverse=True)
            assert 0 < sum(probabilities) < 1
    piped = start("predict", "fill-mask", f"--model={workdir}", "--top-k=3", input=texts[0] + "\n")
    assert json.loads(piped.stdout) == answers[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config.train.step=5"], "did you mean train.steps?"),
        (["--config.objective.nps=1"], "did you mean objective.nsp?"),
        (["--config.train.steps=many"], "--config.train.steps=many"),
        (["--config.train.steps=0"], "train.steps=0"),
        (["--config.data.sequence_length=65"], "model.max_positions=64"),
        (["--config.model.hidden_size=33"], "not divisible by model.num_heads=2"),
        (["--config.mesh.data=3"], "mesh: data=3 × fsdp=1 × tensor=1 does not make up"),
        (["--config.data.packing=maybe"], "--config.data.packing=maybe: must be true or false"),
        (["--config.corpus.prepared=nowhere"], "nowhere"),
        (["--config.data.mask_rate=1.5"], "data.mask_rate=1.5"),
        (["--config.data.workers=9999"], "processors for this program; set"),
        ([f"--config.train.steps={10**22}"], "train.steps=1" + "0" * 22),
        (["--config.optimizer.warmup_steps=1000000"], "optimizer.warmup_steps"),
        (["--config.model.vocab_size=512"], "set model.vocab_size=200"),
        (["--config=configs/bert.py:huge"], "there are tiny, mini, small, medium, base, large"),
        (["--config=configs/nobody.py"], "there is no file configs/nobody.py"),
        (["--stepz=3"], "stepz"),
        (["stray"], "'stray'"),
    ],
    ids=str,
)
def test_bad_words_are_refused_in_one_line(arguments, said, corpus, tmp_path):
    workdir = tmp_path / "workdir"
    refused(pretrain(workdir, corpus, *arguments), said)
    assert not workdir.exists()


def test_missing_flags_are_named(tmp_path):
    refused(start("pretrain"), "--config is missing")
    refused(start("pretrain", "--config=configs/bert.py:tiny"), "--workdir is missing")
    refused(start("prepare", "--config=configs/bert.py:tiny"), "--output is missing")
    refused(start("predict", "fill-mask"), "--model")
    refused(start("predict", "dream", "--model=x"), "dream")
    refused(
        start("predict", "fill-mask", f"--model={tmp_path}", "a [MASK]"),
        "config.json: cannot be read",
    )


def test_bad_prompts_are_named(run):
    workdir, _ = run
    refused(start("predict", "fill-mask", f"--model={workdir}", "No mask."), "has no [MASK]")
    long = "[MASK]" + " word" * 200
    refused(start("predict", "fill-mask", f"--model={workdir}", long), "64 positions")


def test_a_batch_that_devices_do_not_divide(corpus, tmp_path):
    environment = {"JAX_NUM_CPU_DEVICES": "3"}
    os.environ |= environment
    try:
        refused(pretrain(tmp_path / "w", corpus), "data.batch_size=8", "3 devices")
    finally:
        del os.environ["JAX_NUM_CPU_DEVICES"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "no text"), (b"\xff\xfe broken \xff\n", "UTF-8"), (None, "no such file")],
)
def test_a_bad_corpus_is_named(content, said, tmp_path):
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_bytes(content)
    done = start(
        "prepare", "--config=configs/bert.py:tiny", f"--output={tmp_path / 'out'}",
        f"--config.corpus.source={text}",
    )  # fmt: skip
    refused(done, said, str(text))
    assert not (tmp_path / "out").exists()


def test_prepare_then_pretrain(tmp_path):
    text = tiny.write_text(tmp_path / "text.txt")
    folder = tmp_path / "prepared"
    done = start(
        "prepare", "--config=configs/bert.py:tiny", f"--output={folder}",
        f"--config.corpus.source={text}", *tiny.OVERRIDES,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "MB of text prepared" in done.stdout
    again = start(
        "prepare", "--config=configs/bert.py:tiny", f"--output={folder}",
        f"--config.corpus.source={text}", *tiny.OVERRIDES,
    )  # fmt: skip
    refused(again, "exists already")


def test_a_full_disk_loses_nothing(corpus, tmp_path):
    """No file may grow beyond 64 kB: the first checkpoint cannot be written. With room again
    the same command ends as if nothing had been."""
    workdir = tmp_path / "workdir"
    steps = [f"--config.train.{s}" for s in ("steps=6", "save_every=3", "eval_every=6")]

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": ""}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # it would cache half a module
    command = [
        sys.executable, "-m", "bert_jax.pretrain", "--config=configs/bert.py:tiny",
        f"--workdir={workdir}", f"--config.corpus.prepared={corpus.folder}",
        "--config.model.dtype=float32", *tiny.OVERRIDES, *steps,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=small_disk, env=environment, cwd=ROOT
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: "), done.stderr
    assert "make room" in done.stderr and "Traceback" not in done.stderr
    assert pretrain(workdir, corpus, *steps).returncode == 0
    assert [record["step"] for record in read_metrics(workdir)] == [1, 2, 3, 4, 5, 6]


def test_smoke_tries_the_run_and_leaves_nothing(corpus, tmp_path):
    """Trained, evaluated, saved; a run of so few steps is over before the two minutes."""
    workdir = tmp_path / "workdir"
    done = pretrain(
        workdir, corpus, "--smoke", "--config.train.steps=8", "--config.train.save_every=100",
        "--config.train.eval_every=100", "--profile=3:4",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "step 5: held out" in done.stdout and "steps a second; 8 steps take" in done.stdout
    assert "goodput" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_trace_of_some_steps(corpus, tmp_path):
    workdir = tmp_path / "workdir"
    done = pretrain(workdir, corpus, "--config.train.steps=5", "--profile=3:4")
    assert done.returncode == 0, done.stderr
    assert [p.stat().st_size > 1000 for p in (workdir / "profile").rglob("*.xplane.pb")] == [True]
    refused(pretrain(workdir, corpus, "--profile=4:3"), "--profile=4:3: is FIRST:LAST")


def test_more_parts_than_rows_are_refused(corpus, tmp_path):
    done = pretrain(tmp_path / "workdir", corpus, "--config.train.accumulation=3")
    refused(done, "a batch of 8 is not divisible by train.accumulation=3 times the 1 devices")
