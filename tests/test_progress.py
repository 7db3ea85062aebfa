"""What long work tells where no terminal shows a bar."""

import json

import pytest

from bert_jax import progress, summary


def test_a_log_gets_a_line_now_and_then(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.preparing() as report:
        for second in range(1, 100):
            now[0] = float(second)
            report("tokenizing", second, 1000 * second, 200_000)
        report("waiting for another", 0, 0, 0)
        now[0] = 150.0
        report("writing rows (tokens)", 50, 0, 100)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "tokenizing", "tokenizing", "tokenizing", "waiting for another", "writing rows (tokens)",
    ]  # fmt: skip
    assert "16%, 31 documents" in lines[0] and "50%, 50" in lines[-1]


def test_short_work_says_nothing(capsys):
    with progress.preparing() as report:
        report("tokenizing", 1, 1000, 2000)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("total", [0, 100])
def test_a_bar_has_an_end_where_one_is_known(monkeypatch, total):
    tasks = []
    monkeypatch.setattr(progress.Progress, "update", lambda *_, **fields: tasks.append(fields))
    with progress.preparing() as report:
        report("writing rows (tokens)", 50, 0, total)
    assert tasks[0]["total"] == (total or None) and tasks[0]["completed"] == 50


def test_a_score_that_is_not_finite_is_told_as_that(capsys, tmp_path):
    """Of a run that diverged: null in metrics.jsonl."""
    record = {"step": 4, "loss": None, "eval_loss": None, "eval_mlm_accuracy": 0.0}
    with progress.training(0, 10) as report:
        report(4, record)
    told = "step 4: held out loss not finite  mlm_accuracy 0.0000"
    assert told in capsys.readouterr().out
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    assert summary.held_out(0, tmp_path) == "held out after 4 steps, seed 0: no finite loss"
