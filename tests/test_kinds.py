"""How a config names files, columns and labels."""

import pytest

from bert_jax.errors import UserError
from bert_jax.kinds import KINDS, label_set
from bert_jax.task import METRICS_OF, TaskConfig, parted


def test_every_kind_has_its_parts():
    assert list(KINDS) == list(METRICS_OF)


@pytest.mark.parametrize(
    "names, expected",
    [
        ("a b", ("a", "b")), ("a", ("a",)), ("", ()), ("very good, bad", ("very good", "bad")),
        ("the text,", ("the text",)),
    ],
)  # fmt: skip
def test_names_with_blanks(names, expected):
    assert parted(names) == expected


def test_columns_and_labels_with_blanks(tmp_path):
    (tmp_path / "train.csv").write_text("the text,the label\nfine,very good\nso so,bad\n")
    task = TaskConfig(
        data=str(tmp_path), train="train.csv", texts="the text,", label="the label",
        labels="very good, bad",
    )  # fmt: skip
    records = list(KINDS["classify"].read(task, task.file(task.train)))
    assert [(*one.texts, one.label) for one in records] == [("fine", "very good"), ("so so", "bad")]
    assert label_set(task, records).names == ("very good", "bad")


def test_a_file_without_a_header(tmp_path):
    """As the release of CoLA is."""
    (tmp_path / "train.tsv").write_text("gj04\t1\t\tOne.\ngj04\t0\t*\tTwo one.\n")
    task = TaskConfig(
        data=str(tmp_path), train="train.tsv", quoted=False, header="source label mark sentence"
    )
    records = list(KINDS["classify"].read(task, task.file(task.train)))
    assert [(*one.texts, one.label) for one in records] == [("One.", "1"), ("Two one.", "0")]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"class_weights": "nan 1"}, "task.class_weights='nan 1': must be numbers above 0"),
        ({"class_weights": "inf 1"}, "must be numbers above 0"),
        ({"kind": "answer", "max_answer_length": 0}, "task.max_answer_length=0: must be 1 or more"),
        ({"kind": "answer", "stride": -1}, "task.stride=-1: must be 1 or more"),
        ({"texts": "sentence label"}, "task.label='label': is one of task.texts="),
    ],
)  # fmt: skip
def test_what_no_task_can_have(fields, message):
    with pytest.raises(UserError, match=message):
        TaskConfig(**fields)


def test_columns_of_tags(tmp_path):
    (tmp_path / "train.txt").write_text("1 Ada NNP B-PER\n2 ran VB O\n")
    task = TaskConfig(kind="tag", data=str(tmp_path), train="train.txt", word=1)
    (record,) = KINDS["tag"].read(task, task.file(task.train))
    assert (record.words, record.tags) == (("Ada", "ran"), ("B-PER", "O"))
    task = TaskConfig(kind="tag", data=str(tmp_path), train="train.txt", tag=7)
    with pytest.raises(UserError, match="train.txt:1: there is no column 7 for the tag"):
        list(KINDS["tag"].read(task, task.file(task.train)))
