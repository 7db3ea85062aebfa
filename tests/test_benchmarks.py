"""Benchmarks run for minutes: what is wrong with a command is told before, in one line."""

import json
import sys
from importlib import import_module

import pytest

from benchmarks import bag_of_words, turns

NAMES = (
    "attention", "bag_of_words", "checkpoint", "compile_time", "loader", "memory", "packing",
    "predict", "tpu", "train_step",
)  # fmt: skip


def refused(capsys, monkeypatch, name, *words):
    """What the command says on stderr, one line; its status is 2."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    with pytest.raises(SystemExit) as left:
        import_module(f"benchmarks.{name}").main()
    said = capsys.readouterr()
    assert left.value.code == 2 and not said.out, said
    assert said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
    return said.err


@pytest.mark.parametrize("name", NAMES)
def test_figures_that_could_not_be_written(capsys, monkeypatch, tmp_path, name):
    path = tmp_path / "none" / "figures.json"
    assert f"{path}: no file can be written" in refused(
        capsys, monkeypatch, name, f"--json={path}"
    )  # fmt: skip


@pytest.mark.parametrize("name", ["loader", "predict", "train_step"])
@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/true"])
def test_a_python_without_the_peers(capsys, monkeypatch, name, python):
    assert f"--oracle={python}: " in refused(capsys, monkeypatch, name, f"--oracle={python}")


@pytest.mark.parametrize(
    "word, told",
    [
        ("--set=model.scan_layers=no", "must be as True (bool)"),
        ("--set=model.num_layers=abc", "must be as 12 (int)"),
        ("--set=model.num_layers", "must be FIELD=VALUE"),
        ("--set=model=1", "no such field"),
        ("--set=model.num_layer=1", "did you mean model.num_layers?"),
        ("--batch=0", "must be a whole number above 0"),
        ("--row=none", "invalid choice: 'none'"),
    ],
)
def test_wrong_words_to_the_compilers_rows(capsys, monkeypatch, word, told):
    assert told in refused(capsys, monkeypatch, "tpu", word)


def test_numbers_that_cannot_be(capsys, monkeypatch):
    for name, word in (
        ("attention", "--length=0"),
        ("compile_time", "--turns=0"),
        ("memory", "--batch=-3"),
    ):
        assert "must be a whole number above 0" in refused(capsys, monkeypatch, name, word)


@pytest.mark.parametrize(
    "lines, told",
    [
        ([], "0 rows of 0 classes"),
        ([{"sentence": "a", "label": 1}] * 30, "30 rows of 1 classes"),
        ([{"sentence": "a", "label": 1}, {"text": "b", "label": 0}], "line 2 has no 'sentence'"),
        ([{"sentence": "a", "label": 1}, [3]], "line 2 is no JSON object"),
    ],
)
def test_labelled_texts_that_nothing_is_learned_from(tmp_path, lines, told):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(bag_of_words.UserError, match=told):
        bag_of_words.read(path, ("sentence", "label"))


def test_a_bag_of_words_tells_two_words_apart(capsys, monkeypatch, tmp_path):
    lines = [
        {"sentence": f"{'good' if n % 2 else 'bad'} {n % 7}", "label": n % 2} for n in range(60)
    ]
    for file in ("train.jsonl", "dev.jsonl"):
        (tmp_path / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    figures = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["", f"--data={tmp_path}", f"--json={figures}"])
    bag_of_words.main()
    assert "accuracy 1.0000 on dev" in capsys.readouterr().out
    assert json.loads(figures.read_text())["accuracy"] == 1.0


def test_a_turn_that_fails_ends_the_program_with_its_status(tmp_path):
    failing = tmp_path / "failing.py"
    failing.write_text("import sys; sys.exit('error: why')")
    with pytest.raises(SystemExit) as left:
        turns.run(sys.executable, str(failing))
    assert left.value.code == 1
