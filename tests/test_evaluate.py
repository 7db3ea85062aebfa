"""A fine-tuned model scored again: the scores of its training, and what is beside them."""

import json

import pytest

from bert_jax import finetuned
from bert_jax.errors import UserError
from bert_jax.evaluate import evaluate, tell, write
from tests.finetuning import TASKS
from tests.test_programs import refused, start


@pytest.mark.parametrize("name", TASKS)
def test_the_scores_are_those_of_the_training(fine_tuned, tmp_path, capsys, name):
    workdir = fine_tuned(name)
    found = evaluate(str(workdir))
    assert found.scores == finetuned.read_scores(workdir)["scores"]
    told = [json.loads(line) for line in (workdir / "predictions.jsonl").open()]
    assert json.loads(json.dumps(found.predictions)) == told and len(told) == found.examples == 24
    assert found.intervals
    for score, interval in found.intervals.items():
        assert interval.score == pytest.approx(found.scores[score])
        assert interval.low <= interval.score <= interval.high
    tell(found)
    said = capsys.readouterr().out
    for score, value in found.scores.items():
        assert f"{score} {value:.4f}" in said
    write(found, tmp_path, str(workdir))
    values = json.loads((tmp_path / "scores.json").read_text())
    assert values["scores"] == found.scores and values["intervals"].keys() == found.intervals.keys()
    classes = name in ("classify", "pairs", "choose")
    assert (tmp_path / "classes.png").exists() == ("matrix" in values) == classes
    if classes:
        assert sum(map(sum, values["matrix"])) == 24
        right = sum(row[number] for number, row in enumerate(values["matrix"]))
        assert right / 24 == pytest.approx(found.scores["accuracy"])
    assert (tmp_path / "predictions.jsonl").read_text() == (
        workdir / "predictions.jsonl"
    ).read_text()


def test_another_file_and_another_epoch(fine_tuned, labelled, tmp_path):
    workdir = fine_tuned("classify")
    lines = (labelled / "dev.jsonl").read_text().splitlines()[:5]
    (tmp_path / "few.jsonl").write_text("\n".join(lines) + "\n")
    assert evaluate(str(workdir), str(tmp_path), "few.jsonl").examples == 5
    step = finetuned.read_scores(workdir)["step"]
    found = evaluate(str(workdir / "checkpoints" / str(step)), str(labelled), "dev.jsonl")
    assert found.scores == finetuned.read_scores(workdir)["scores"]
    with pytest.raises(UserError, match="few.jsonl"):
        evaluate(str(workdir), str(labelled), "few.jsonl")
    (tmp_path / "few.jsonl").write_text('{"sentence": "no", "label": "perhaps"}\n')
    with pytest.raises(UserError, match="few.jsonl:1: 'perhaps' is no label"):
        evaluate(str(workdir), str(tmp_path), "few.jsonl")


def test_the_program(fine_tuned, encoder, labelled, tmp_path):
    workdir = fine_tuned("tag")
    done = start(
        "evaluate", f"--model={workdir}", f"--data={labelled}", f"--output={tmp_path / 'out'}"
    )
    assert done.returncode == 0, done.stderr
    assert "24 examples" in done.stdout and "precision" in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "scores.json", "predictions.jsonl",
    }  # fmt: skip
    refused(start("evaluate", f"--model={encoder}"), "was not fine-tuned here")
    refused(start("evaluate"), "--model is missing")
