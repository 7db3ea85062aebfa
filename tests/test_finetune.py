"""Fine-tuning from a MODEL to scores, in the process of the tests; the program's own lines last."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from bert_jax import finetuned, pretrained
from bert_jax.data.labelled.features import RowFormat
from bert_jax.errors import Preempted, UserError
from bert_jax.finetune import finetune
from bert_jax.kinds import KINDS
from bert_jax.models.adapters import AdaptConfig
from bert_jax.task import TaskConfig
from bert_jax.tasks.base import FineTuning
from bert_jax.tasks.sentences import Classification
from bert_jax.training.depth import DepthConfig, scale_by_depth
from bert_jax.training.mesh import MeshConfig, build_mesh, check_batch
from bert_jax.training.metrics import LaggedMetrics, read_metrics
from bert_jax.training.preempt import Preemption
from bert_jax.training.rates import MEASURED
from tests import tiny
from tests.finetuning import TASKS, config_of
from tests.test_programs import ROOT, refused, start


@pytest.mark.parametrize(
    "task, score, least",
    [
        ({}, "accuracy", 0.95),
        ({"kind": "regress", "label": "number", "metrics": "pearson spearman"}, "pearson", 0.9),
        ({"kind": "tag", "train": "train.txt", "dev": "dev.txt"}, "f1", 0.95),
        ({"kind": "answer", "train": "train.json", "dev": "dev.json"}, "f1", 90),
        ({"kind": "choose", "texts": "context right wrong", "label": "index"}, "accuracy", 0.0),
    ],
    ids=["classify", "regress", "tag", "answer", "choose"],
)
def test_each_kind_is_learned(encoder, labelled, tmp_path, mesh, task, score, least):
    found = finetune(config_of(labelled, task=task), encoder, tmp_path / "run", mesh)
    assert found["scores"][score] >= least
    records = [record for record in read_metrics(tmp_path / "run") if "eval_loss" in record]
    assert [record["epoch"] for record in records] == [*range(1, 9)]
    assert max(record[f"eval_{score}"] for record in records) == found["scores"][score]
    assert records[-1]["compilations"] <= 2
    predictions = (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()
    assert len(predictions) == 24 and isinstance(json.loads(predictions[0]), dict)


def numbers(workdir):
    """What was logged but for times, rates, and what each process has compiled."""
    return [
        {n: value for n, value in record.items() if n not in (*MEASURED, "compilations")}
        for record in read_metrics(workdir)
    ]


def test_it_goes_on_after_the_last_epoch(encoder, labelled, tmp_path, mesh, monkeypatch):
    config = config_of(labelled, dropout=0.1, epochs=3)
    whole = finetune(config, encoder, tmp_path / "whole", mesh)
    judged = []

    def outputs(*arguments):
        judged.append(1)
        if len(judged) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    real = finetuned.outputs
    monkeypatch.setattr(finetuned, "outputs", outputs)
    with pytest.raises(KeyboardInterrupt):
        finetune(config, encoder, tmp_path / "cut", mesh)
    monkeypatch.setattr(finetuned, "outputs", real)
    assert finetune(config, encoder, tmp_path / "cut", mesh) == whole

    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")
    with pytest.raises(UserError, match="begun with epochs=3 .config.json., and now it is 4"):
        finetune(replace(config, epochs=4), encoder, tmp_path / "cut", mesh)


def test_killed_between_a_checkpoint_and_its_scores(encoder, labelled, tmp_path, mesh, monkeypatch):
    config = config_of(labelled, epochs=1)
    whole = finetune(config, encoder, tmp_path / "whole", mesh)
    with monkeypatch.context() as patched:
        patched.setattr(finetuned, "write_scores", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            finetune(config, encoder, tmp_path / "cut", mesh)
    assert not (tmp_path / "cut" / finetuned.SCORES).exists()
    assert finetune(config, encoder, tmp_path / "cut", mesh) == whole
    one, other = (tmp_path / name / finetuned.PREDICTIONS for name in ("whole", "cut"))
    assert one.read_bytes() == other.read_bytes()


def test_other_data_in_the_same_workdir_is_refused(encoder, labelled, tmp_path, mesh):
    copy = tmp_path / "data"
    shutil.copytree(labelled, copy)
    config = config_of(copy, epochs=1)
    finetune(config, encoder, tmp_path / "run", mesh)
    lines = (copy / "dev.jsonl").read_text().splitlines(keepends=True)
    (copy / "dev.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(UserError, match="was begun with other examples or another tokenizer"):
        finetune(config, encoder, tmp_path / "run", mesh)


def test_a_run_of_one_step(encoder, labelled, tmp_path, mesh):
    found = finetune(config_of(labelled, epochs=1, batch_size=96), encoder, tmp_path / "run", mesh)
    assert found["step"] == 1


def test_a_baseline_has_the_sizes_alone(encoder, labelled, tmp_path, mesh):
    """Its rate is next to none, so what is in the checkpoint is what it began with."""
    config = config_of(labelled, epochs=1, pretrained=False, optimizer={"learning_rate": 1e-12})
    finetune(config, encoder, tmp_path / "one", mesh)
    finetune(replace(config, seed=1), encoder, tmp_path / "other", mesh)
    kernel, one, other = (
        np.asarray(model.parameters["encoder"]["layers"]["feedforward"]["up_kernel"][...])
        for model in map(pretrained.load, (encoder, tmp_path / "one", tmp_path / "other"))
    )
    assert kernel.shape == one.shape
    assert all(np.abs(a - b).mean() > 1e-3 for a, b in ((kernel, one), (one, other)))


@pytest.fixture
def preemption():
    """Makes real ones; what they change of this process's signals is put back."""
    handler = signal.getsignal(signal.SIGTERM)
    yield Preemption
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, handler)


def test_stopped_it_goes_on_from_that_step(
    encoder, labelled, tmp_path, mesh, monkeypatch, preemption
):
    """In the first epoch, at the end of the second and in the third: to the same bits."""
    config = config_of(labelled, dropout=0.1, epochs=3, log_every=1)
    whole = finetune(config, encoder, tmp_path / "whole", mesh)
    hold, last, cut = LaggedMetrics.hold, 0, tmp_path / "cut"

    def held(self, step, *parts):
        hold(self, step, *parts)
        if step == last:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)  # until the thread that waits for signals has seen it

    monkeypatch.setattr(LaggedMetrics, "hold", held)
    for last in (5, 24, 31):  # noqa: B007, `held` reads it
        with pytest.raises(Preempted, match=f"stopped after step {last};"):
            finetune(config, encoder, cut, mesh, preemption())
        assert str(last) in {path.name for path in (cut / "checkpoints").iterdir()}
        if last == 5:
            with pytest.raises(UserError, match="no epoch of it is finished"):
                pretrained.load(cut)
        else:
            assert finetuned.read_scores(cut)["step"] <= 24
            assert pretrained.load(cut).heads == ("classify",)
    last = 0
    assert finetune(config, encoder, cut, mesh, preemption()) == whole
    assert numbers(cut) == numbers(tmp_path / "whole")
    assert (cut / "predictions.jsonl").read_bytes() == (
        tmp_path / "whole" / "predictions.jsonl"
    ).read_bytes()


def test_the_program_is_stopped_and_interrupted(encoder, labelled, tmp_path):
    workdir = tmp_path / "run"
    command = [
        sys.executable, "-m", "bert_jax.finetune", "--config=configs/tasks/glue.py:sst2",
        f"--data={labelled}", f"--init={encoder}", f"--workdir={workdir}",
        "--config.task.max_length=32", "--config.task.lengths=16", "--config.batch_size=8",
        "--config.epochs=5000", "--config.log_every=1",
    ]  # fmt: skip
    begun = 0
    for notice, status, said in (
        (signal.SIGTERM, 143, "stopped after step"),
        (signal.SIGINT, 130, "interrupted; start the same command again"),
    ):
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
        limit = time.monotonic() + 300
        while not any(record["step"] > begun for record in read_metrics(workdir)):
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.05)
        process.send_signal(notice)
        told = process.communicate(timeout=120)[1].strip().splitlines()
        assert process.returncode == status and said in told[-1] and len(told) == 1, told
        begun = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    refused(
        start("finetune", *command[3:], "--coordinator=127.0.0.1:1", "--processes=2",
              "--process=0"),
        "fine-tuning is one process",
    )  # fmt: skip


def test_a_field_that_was_not_there_yet_has_its_default(labelled, tmp_path):
    config = config_of(labelled)
    facts = finetuned.FineTuned("hf", "classify", tiny.MODEL, ("no", "yes"))
    finetuned.begin(tmp_path, config, facts)
    for name, fields in (("config.json", ["adapt"]), ("model.json", ["adapt", "base"])):
        values = json.loads((tmp_path / name).read_text())
        for field in fields:
            del values[field]
        (tmp_path / name).write_text(json.dumps(values))
    finetuned.begin(tmp_path, config, facts)
    with pytest.raises(UserError, match="begun with adapt.kind='' .config.json., and now it is"):
        finetuned.begin(tmp_path, replace(config, adapt=AdaptConfig("lora")), facts)
    with pytest.raises(UserError, match="begun with init='hf' .model.json., and now it is 'other'"):
        finetuned.begin(tmp_path, config, replace(facts, init="other"))
    other = tmp_path / "pretrained"
    other.mkdir()
    (other / "config.json").write_text('{"model": {}}')
    with pytest.raises(UserError, match="is the workdir of another program"):
        finetuned.begin(other, config, facts)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(UserError, match="model.json: cannot be read"):
        finetuned.begin(tmp_path, config, facts)


def test_eight_devices_train_as_one_does(encoder, labelled, tmp_path, mesh):
    config = config_of(labelled, dropout=0.1, epochs=2, log_every=1)
    finetune(config, encoder, tmp_path / "one", mesh)
    eight = build_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    with jax.set_mesh(eight):
        finetune(config, encoder, tmp_path / "eight", eight)
    one, other = (
        np.array([r[name] for r in read_metrics(tmp_path / run) for name in ("loss", "eval_loss")
                  if name in r])
        for run in ("one", "eight")
    )  # fmt: skip
    assert len(one) == 26 and np.abs(one - other).max() < 1e-5


def test_a_batch_is_cut_evenly_or_refused(mesh):
    eight = build_mesh(MeshConfig(data=4, tensor=2))
    check_batch(eight, 8, 2, "accumulation")
    with pytest.raises(UserError, match="accumulation=4 times the 4 devices .* a multiple of 16"):
        check_batch(eight, 8, 4, "accumulation")


@pytest.mark.parametrize(
    "kind, metrics", [("regress", "accuracy"), ("classify", "pearson"), ("choose", "f1"),
                      ("classify", "")]
)  # fmt: skip
def test_a_score_that_says_nothing_of_a_kind_is_refused(kind, metrics):
    with pytest.raises(UserError, match=f"to {kind}, name one or more of"):
        TaskConfig(kind=kind, metrics=metrics)


def test_a_head_of_other_labels_is_not_taken_over(encoder, labelled, tmp_path, mesh, capsys):
    first, config = tmp_path / "first", config_of(labelled, epochs=1)
    finetune(config, encoder, first, mesh)
    capsys.readouterr()
    finetune(config, str(first), tmp_path / "same", mesh)
    assert "heads.classify" not in capsys.readouterr().out
    finetune(config_of(labelled, epochs=1, task={"labels": "yes no"}), str(first),
             tmp_path / "other", mesh)  # fmt: skip
    assert "new: heads.classify" in capsys.readouterr().out


def test_a_question_without_any_candidate_has_no_answer(encoder, labelled):
    """Every span is longer than an answer may be."""
    task = config_of(labelled, task=TASKS["answer"] | {"max_answer_length": 1}).task
    kind, words = KINDS["answer"], pretrained.load(encoder).tokenizer
    records = list(kind.read(task, task.file(task.dev)))
    examples = kind.examples(task, records, words, RowFormat(32, 2), None)
    outputs = [
        np.stack([np.arange(32.0), -np.arange(32.0)], axis=-1) for _ in range(len(examples))
    ]  # the last tokens begin, and the first ones end
    scores, predictions = kind.judge(task, records, examples, outputs, None)
    assert np.isfinite(list(scores.values())).all()
    json.dumps(predictions, allow_nan=False)


@pytest.mark.filterwarnings("ignore:overflow")
def test_numbers_that_are_too_large_are_told(encoder, labelled, tmp_path, mesh, capsys):
    """The held-out loss is then not finite."""
    for name in ("train", "dev"):
        rows = [{"sentence": "a b c", "label": number} for number in (1e30, -1e30, 1e30)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = TASKS["regress"] | {"label": "label"}
    finetune(config_of(tmp_path, task=task, epochs=1), encoder, tmp_path / "run", mesh)
    assert "held out loss not finite" in capsys.readouterr().out


def test_early_stopping_keeps_the_best(encoder, labelled, tmp_path, mesh):
    config = config_of(labelled, epochs=9, patience=1, optimizer={"learning_rate": 1e-9})
    found = finetune(config, encoder, tmp_path / "run", mesh)
    assert found["epoch"] == 1 and read_metrics(tmp_path / "run")[-1]["epoch"] == 2
    # Its checkpoint is there, though the score of the second is the same.
    assert pretrained.load(tmp_path / "run").heads == ("classify",)


def test_shares_by_depth_are_what_the_formula_says():
    size = replace(tiny.MODEL, num_labels=2)
    state = nnx.state(FineTuning(Classification()).build(size, nnx.Rngs(0)), nnx.Param)
    ones = jax.tree.map(lambda x: x * 0 + 1, state)

    def shares(step, **config):
        tx = scale_by_depth(DepthConfig(**config), size.num_layers, steps_per_epoch=10)
        updates, _ = tx.update(ones, optax.ScaleByScheduleState(jnp.int32(step)))
        flat = {".".join(map(str, path)): v.get_value() for path, v in nnx.to_flat_state(updates)}
        for name, value in flat.items():
            own = name.startswith("encoder.layers")
            rows = value.reshape(size.num_layers if own else 1, -1)
            assert (rows == rows[:, :1]).all(), name
        return [
            float(flat["encoder.embeddings.word"].ravel()[0]),
            *(float(one.ravel()[0]) for one in flat["encoder.layers.attention.qkv_bias"]),
            float(flat["encoder.pooler.bias"][0]), float(flat["heads.classify.bias"][0]),
        ]  # fmt: skip

    np.testing.assert_allclose(shares(0, decay=0.5), [0.5**4, 0.5**3, 0.5**2, 1, 1])
    assert shares(0) == [1, 1, 1, 1, 1]
    assert shares(0, frozen_layers=1) == [0, 0, 1, 1, 1]
    assert shares(9, unfreeze_epochs=1.0) == [0, 0, 0, 1, 1]
    assert shares(10, unfreeze_epochs=1.0) == [0, 0, 1, 1, 1]
    assert shares(30, unfreeze_epochs=1.0) == [1, 1, 1, 1, 1]
    with pytest.raises(UserError, match="has 2 layers"):
        shares(0, frozen_layers=3)


def test_frozen_layers_do_not_move(encoder, labelled, tmp_path, mesh):
    config = config_of(
        labelled, epochs=1, depth={"frozen_layers": 1}, optimizer={"weight_decay": 0.1}
    )
    finetune(config, encoder, tmp_path / "run", mesh)
    before, after = (pretrained.load(where).parameters for where in (encoder, tmp_path / "run"))
    mine, theirs = (dict(nnx.to_flat_state(one)) for one in (after, before))
    moved = {
        ".".join(map(str, path)): np.abs(
            np.asarray(v.get_value()) - np.asarray(theirs[path].get_value())
        )
        for path, v in mine.items()
        if path in theirs
    }
    for name, change in moved.items():
        if name.startswith("encoder.layers"):
            assert (change[0] == 0).all() and (change[1] > 0).any(), name
        elif name.startswith("encoder.embeddings"):
            assert (change == 0).all(), name


@pytest.mark.parametrize(
    "change, message",
    [
        ({"data": "/nowhere"}, "/nowhere/train.jsonl"),
        ({"texts": "sentense"}, "did you mean sentence"),
        ({"labels": "yes maybe"}, "'no' is no label"),
        (
            {"kind": "answer", "train": "train.json", "dev": "dev.json", "unanswerable": False},
            "train.json: question .*: it has no answer",
        ),
        ({"texts": "sentence context right"}, "task.texts=.*the two of a pair"),
        ({"kind": "choose", "texts": "context right", "label": "index"}, "of two texts or more"),
        ({"max_length": 65}, "64 positions"),
        ({"class_weights": "1"}, "there are 2 classes"),
        ({"kind": "tag", "train": "train.jsonl", "dev": "dev.txt"}, "train.jsonl:1"),
    ],
)
def test_what_cannot_be_learned_is_named(encoder, labelled, tmp_path, mesh, change, message):
    with pytest.raises(UserError, match=message):
        finetune(config_of(labelled, task=change), encoder, tmp_path / "run", mesh)
    assert not (tmp_path / "run").exists()


def test_the_program_trains_seeds_and_refuses_in_one_line(encoder, labelled, tmp_path):
    words = [
        "--config=configs/tasks/glue.py:sst2", f"--data={labelled}", f"--init={encoder}",
        f"--workdir={tmp_path / 'runs'}", "--config.task.max_length=32",
        "--config.task.lengths=16", "--config.batch_size=16", "--config.epochs=1", "--seeds=2",
    ]  # fmt: skip
    done = start("finetune", *words)
    assert done.returncode == 0, done.stderr
    assert "medians of 2 seeds" in done.stdout
    checked = start("finetune", *words[:2], "--check")
    assert checked.returncode == 0 and " records in " in checked.stdout, checked.stderr
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "seed-0", "seed-1", "scores.json",
    }  # fmt: skip
    told = json.loads((tmp_path / "runs" / "scores.json").read_text())
    each = [one["scores"]["accuracy"] for one in told["seeds"]]
    assert told["scores"]["accuracy"]["median"] == sum(each) / 2
    for wrong, said in (
        ("--config.task.kind=guess", "must be one of classify"),
        ("--config.task.kinds=tag", "did you mean task.kind?"),
        ("--config.adapt.kind=prefix", "adapt.kind='prefix': must be one of lora, bottleneck"),
        ("--init=/nowhere", "no such folder"),
    ):
        done = start("finetune", *words, wrong)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
