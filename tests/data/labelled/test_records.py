"""Labelled files to records: what is read, and one line for each mistake, with its place."""

import contextlib
import gzip
import itertools
import json
import lzma
from pathlib import Path

import numpy as np
import pytest
import zstandard

from bert_jax.data.labelled.labels import LabelSet
from bert_jax.data.labelled.questions import read_questions
from bert_jax.data.labelled.records import TagRecord, TextRecord
from bert_jax.data.labelled.tables import Table, read_choices, read_texts
from bert_jax.data.labelled.tags import check_tags, read_tags
from bert_jax.errors import UserError

PAIRS = [("One, two.", 'He said "no".', "yes"), ("É\u00a0字", "three", "no")]


def write(path: Path, content: str | bytes) -> Path:
    raw = content.encode() if isinstance(content, str) else content
    packers = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}
    path.write_bytes(packers.get(path.suffix, bytes)(raw))
    return path


def texts(path, columns=("a", "b"), label="label", kind="class", **table):
    return list(read_texts(Table(str(path), **table), columns, label, kind))


def refusal(call, *arguments, **named) -> str:
    with pytest.raises(UserError) as caught:
        list(call(*arguments, **named))
    assert "\n" not in str(caught.value)
    return str(caught.value)


CSV = 'label,a,b\nyes,"One, two.","He said ""no""."\n\nno,É\u00a0字,three\n'
TSV = 'a\tb\tlabel\nOne, two.\tHe said "no".\tyes\r\nÉ\u00a0字\tthree\tno'
JSONL = "\n".join(json.dumps({"a": a, "b": b, "label": c, "x": [1]}) for a, b, c in PAIRS) + "\n\n"


@pytest.mark.parametrize("packed", ["", ".gz", ".xz", ".zst"])
@pytest.mark.parametrize(
    "name, content, quoted",
    [("f.csv", CSV, True), ("f.tsv", TSV, False), ("f.jsonl", "\ufeff" + JSONL, True)],
)
def test_the_same_records_of_every_kind_of_file(tmp_path, name, content, quoted, packed):
    path = write(tmp_path / (name + packed), content)
    found = texts(path, quoted=quoted)
    assert [record.texts for record in texts(path, ["b"], quoted=quoted)] == [
        (b,) for _, b, _ in PAIRS
    ]
    assert [(*record.texts, record.label) for record in found] == PAIRS
    lines = [2, 4] if name == "f.csv" else [2, 3] if name == "f.tsv" else [1, 2]
    assert [record.place for record in found] == [f"{path}:{line}" for line in lines]


def test_a_quoted_field_of_several_lines_is_counted_in_lines(tmp_path):
    path = write(tmp_path / "f.csv", 'a,label\n"one\n\ntwo",x\nthree,y\n')
    found = texts(path, ["a"])
    assert [record.texts[0] for record in found] == ["one\n\ntwo", "three"]
    assert [record.place for record in found] == [f"{path}:2", f"{path}:5"]


def test_a_file_without_a_header(tmp_path):
    path = write(tmp_path / "f.tsv", 'gj04\t1\t\tA "b.\ngj04\t0\t*\tC.\n')
    found = texts(path, ["a"], quoted=False, header=("from", "label", "mark", "a"))
    assert [(*record.texts, record.label) for record in found] == [('A "b.', "1"), ("C.", "0")]
    assert found[0].place == f"{path}:1"


def test_labels_are_names_or_numbers(tmp_path):
    values = ["x", 1, True, 2.0]
    path = write(tmp_path / "f.jsonl", "\n".join(json.dumps({"a": "", "label": v}) for v in values))
    assert [record.label for record in texts(path, ["a"])] == ["x", "1", "true", "2"]
    path = write(tmp_path / "f.jsonl", '{"a":"","label":1}\n{"a":"","label":"-2.5e0"}')
    assert [record.label for record in texts(path, ["a"], kind="number")] == [1.0, -2.5]


@pytest.mark.parametrize(
    "name, content, options, expected",
    [
        ("f.csv", "text_a,b,label\nx,y,z\n", {}, "f.csv:1: there is no column 'a'; there are "),
        ("f.csv", "aa,b,label\nx,y,z\n", {}, "; did you mean aa?"),
        ("f.csv", "a,b,b,label\nx,y,z,1\n", {}, "f.csv:1: two columns are called 'b'"),
        ("f.csv", "a,b,label\nx,y,z\nx,y\n", {}, "f.csv:3: 2 columns, and 3 are named"),
        ("f.tsv", "a\tb\tlabel\nx\ty\t1\t\n", {}, "f.tsv:2: 4 columns, and 3 are named"),
        ("f.csv", 'a,b,label\nx,y,z\nx,"y,z\n', {}, "f.csv:3: unexpected end of data"),
        ("f.tsv", 'a\tb\tlabel\n"x" y\ty\tz\n', {}, "set task.quoted=false"),
        ("f.tsv", 'a\tb\tlabel\n"x\ty\tz\nno"\ty\tz\n', {}, "f.tsv:2: between quotation marks"),
        ("f.tsv", "a\tb\tlabel\nx\ty\tpos \n", {}, "f.tsv:2: the label 'pos ' begins or ends"),
        ("f.csv", "", {}, "f.csv: is empty"),
        ("f.csv", "a,b,label\n", {}, "f.csv: is empty"),
        ("f.jsonl", "\n \n", {}, "f.jsonl: is empty"),
        ("f.csv", b"a,b,label\nx,\xff,z\n", {}, "f.csv:2: not UTF-8 at byte 2"),
        ("f.csv", "a,b,label\nx,\0,z\n", {}, "f.csv:2: a NUL character"),
        ("f.jsonl", '{"a": "\\u0000", "b": "", "label": 1}', {}, "f.jsonl:1: a NUL character"),
        ("f.jsonl", '{"a": "\\ud800", "b": "", "label": 1}', {}, "f.jsonl:1: half a surrogate"),
        ("f.jsonl", '{"a": 1', {}, "f.jsonl:1: is no JSON (Expecting"),
        ("f.jsonl", "[" * 100_000, {}, "f.jsonl:1: is no JSON"),
        ("f.jsonl", "\n[1]", {}, 'f.jsonl:2: is no JSON object; write {"a": ...}'),
        ("f.jsonl", '{"a": "x", "label": 1}', {}, "f.jsonl:1: there is no column 'b'"),
        ("f.jsonl", '{"a": 5, "b": "", "label": 1}', {}, "the column a is no text (5)"),
        ("f.jsonl", '{"a": "", "b": "", "label": null}', {}, "the column label has no label"),
        ("f.jsonl", '{"a": "", "b": "", "label": 0.5}', {}, "the column label has no label (0.5)"),
        ("f.csv", "a,b,label\nx,y,\n", {}, "f.csv:2: the column label has no label ('')"),
        ("f.csv", "a,b,label\nx,y,z\n", {"kind": "number"}, "f.csv:2: the column label is 'z'"),
        ("f.csv", "a,b,label\nx,y,nan\n", {"kind": "number"}, "which is no number"),
        ("f.jsonl", '{"a":"","b":"","label":1e999}', {"kind": "number"}, "is inf, which is no nu"),
        ("f.txt", "x\n", {}, "f.txt: what it holds is told by its ending"),
        ("f.csv.gz", None, {}, "damaged .gz file"),
    ],
)  # fmt: skip
def test_mistakes_in_tables(tmp_path, name, content, options, expected):
    path = tmp_path / name
    path.write_bytes(b"no gzip") if content is None else write(path, content)
    assert expected in refusal(texts, path, **options)


def test_files_that_are_not_there(tmp_path):
    assert "no such file; name a file with labelled" in refusal(texts, tmp_path / "f.csv")
    (tmp_path / "d.csv").mkdir()
    assert "is a folder; name a file in it" in refusal(texts, tmp_path / "d.csv")


def test_tfds(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    class Small(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "a": tfds.features.Text(),
                "score": np.float32,
                "label": tfds.features.ClassLabel(names=["yes", "no"]),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples([0, 1]), "test": self._generate_examples([-1])}

        def _generate_examples(self, labels):
            for number, label in enumerate(labels):
                yield number, {"a": f"é{label}", "score": label / 2, "label": label}

    builder = Small(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    folder = f"tfds:{builder.data_dir}"
    found = sorted(texts(folder, ["a"]), key=lambda record: record.texts)
    assert [(record.texts, record.label) for record in found] == [(("é0",), "yes"), (("é1",), "no")]
    assert Table(folder).classes("label") == ("yes", "no")
    assert Table(folder).classes("a") == Table("a.csv").classes("label") == ()
    assert {record.place for record in found} == {f"{folder}#train: example {n}" for n in (0, 1)}
    scores = texts(folder, ["a"], "score", "number")
    assert sorted(record.label for record in scores) == [0.0, 0.5]
    assert "example 0: the column label has no label (None)" in refusal(
        texts, f"{folder}#test", ["a"]
    )
    assert "no such split; there are" in refusal(texts, f"{folder}#dev", ["a"])
    assert "no column 'b'; there are a, label, score" in refusal(texts, folder, ["b"])
    assert "the column score is no text" in refusal(texts, folder, ["score"])


def test_choices(tmp_path):
    rows = [{"c": "Why?", "x": "so", "y": "no", "label": n} for n in (1, "0")]
    path = write(tmp_path / "f.jsonl", "\n".join(map(json.dumps, rows)))
    found = list(read_choices(Table(str(path)), "c", ["x", "y"], "label"))
    assert [(r.context, r.choices, r.label) for r in found] == [
        ("Why?", ("so", "no"), 1), ("Why?", ("so", "no"), 0),
    ]  # fmt: skip
    write(path, json.dumps(rows[0] | {"label": 2}))
    message = refusal(read_choices, Table(str(path)), "c", ["x", "y"], "label")
    assert f"{path}:1: label is '2', and must be the number of the right choice, 0 to 1" in message
    assert "no column 'z'" in refusal(read_choices, Table(str(path)), "c", ["x", "z"], "label")
    assert "name two or more" in refusal(read_choices, Table(str(path)), "c", ["x"], "label")


CONLL = "-DOCSTART- X O\n\nJohn NNP B-PER\nSmith NNP I-PER\n\n \nruns\tVB\tO"


def test_sentences_of_conll(tmp_path):
    path = write(tmp_path / "f.txt", CONLL)
    first, second = read_tags(path)
    assert first == TagRecord(("John", "Smith"), ("B-PER", "I-PER"), str(path), 3)
    assert second == TagRecord(("runs",), ("O",), str(path), 7)
    assert (first.place_of(1), second.place) == (f"{path}:4", f"{path}:7")
    assert [r.tags for r in read_tags(path, tag=1, scheme="none")] == [("NNP", "NNP"), ("VB",)]
    spaced = write(tmp_path / "g.txt", "New York\tB-LOC\n\u00a0x\tO\n")
    assert next(read_tags(spaced)).words == ("New York", "x")


@pytest.mark.parametrize(
    "content, options, expected",
    [
        ("a O\nb I-PER\n", {}, "f.txt:2: I-PER cannot follow O; an entity begins with B-PER"),
        ("a B-LOC\nb I-PER\n", {}, "f.txt:2: I-PER cannot follow B-LOC"),
        ("a I-PER\n", {}, "f.txt:1: I-PER cannot follow the beginning of a sentence"),
        ("a B-PER\n\nb I-PER\n", {}, "f.txt:3: I-PER cannot follow the beginning"),
        ("a E-PER\n", {}, "f.txt:1: 'E-PER' is no tag of BIO; write O, B-TYPE, I-TYPE"),
        ("a -PER\n", {}, "'-PER' is no tag"), ("a B-\n", {}, "'B-' is no tag"),
        ("a BPER\n", {}, "'BPER' is no tag"), ("a BI-PER\n", {}, "'BI-PER' is no tag"),
        ("a L-PER\n", {"scheme": "bilou"}, "f.txt:1: L-PER cannot follow the beginning"),
        ("a B-PER\nb O\n", {"scheme": "bilou"}, "f.txt:1: B-PER must be followed by I-PER or"),
        ("a B-PER\nb U-PER\n", {"scheme": "bilou"}, "f.txt:1: B-PER must be followed by"),
        ("a O\nb B-PER", {"scheme": "bilou"}, "f.txt:2: B-PER must be followed by"),
        ("a U-PER\nb I-PER\n", {"scheme": "bilou"}, "f.txt:2: I-PER cannot follow U-PER"),
        ("a U-PER\nb L-PER\n", {"scheme": "bilou"}, "f.txt:2: L-PER cannot follow U-PER"),
        ("a x O\nb O\n", {}, "f.txt:2: 2 columns, and the lines before have 3"),
        ("a O\n", {"tag": 2}, "f.txt:1: there is no column 2 for the tag; there are 2"),
        ("\tO\n", {}, "f.txt:1: the word is empty"), ("a\t \n", {}, "f.txt:1: the tag is empty"),
        ("\n\n", {}, "f.txt: is empty"), ("-DOCSTART- O\n", {}, "f.txt: is empty"),
        (b"a O\n\xe9 O\n", {}, "f.txt:2: not UTF-8 at byte 0"),
        ("a O\n", {"scheme": "iob"}, "scheme='iob': must be one of bio, bilou, none"),
    ],
)  # fmt: skip
def test_mistakes_in_tags(tmp_path, content, options, expected):
    path = write(tmp_path / "f.txt", content)
    assert expected in refusal(lambda: list(read_tags(path, **options)))


def chains(scheme, words):
    """All sequences of tags of so many words that stand for entities of two types, by the
    definition: outside words and entities, one after the other."""
    if words == 0:
        return {()}
    found = {("O", *rest) for rest in chains(scheme, words - 1)}
    for size in range(1, words + 1):
        shape = "B" + "I" * (size - 1)
        if scheme == "bilou":
            shape = "U" if size == 1 else "B" + "I" * (size - 2) + "L"
        for rest in chains(scheme, words - size):
            found |= {(*(f"{p}-{kind}" for p in shape), *rest) for kind in "XY"}
    return found


@pytest.mark.parametrize("scheme", ["bio", "bilou"])
def test_the_tags_that_stand_for_entities_are_taken_and_no_others(scheme):
    taken = set()
    for tags in itertools.product(["O", *(f"{p}-{k}" for p in "BILU" for k in "XY")], repeat=4):
        with contextlib.suppress(UserError):
            check_tags(TagRecord(("w",) * 4, tags, "f", 1), scheme)
            taken.add(tags)
    assert taken == chains(scheme, 4)


def squad(answers, context="The 字 is red.", **entry):
    found = {"id": "q1", "question": "What?", "answers": answers} | entry
    return {"version": "v2.0", "data": [{"paragraphs": [{"context": context, "qas": [found]}]}]}


def test_questions(tmp_path):
    path = write(tmp_path / "f.json", json.dumps(squad([{"text": "字 is", "answer_start": 4}])))
    (found,) = read_questions(path)
    assert (found.id, found.place) == ("q1", f"{path}: question q1")
    assert [(a.text, a.start) for a in found.answers] == [("字 is", 4)]
    packed = write(tmp_path / "f.json.xz", json.dumps(squad([], is_impossible=True)))
    assert next(read_questions(packed)).answers == ()
    without = squad([])
    del without["data"][0]["paragraphs"][0]["qas"][0]["answers"]
    path = write(tmp_path / "f.json", json.dumps(without))
    assert "f.json: question q1: there is no 'answers'" in refusal(read_questions, path)


@pytest.mark.parametrize(
    "content, expected",
    [
        (squad([{"text": "red", "answer_start": 8}]), "q1: 'red' does not stand at character 8 of"),
        (squad([{"text": "The", "answer_start": -14}]), "does not stand at character -14"),
        (squad([{"text": "red", "answer_start": "10"}]), "'answer_start' is not an integer"),
        (squad([{"text": " ", "answer_start": 3}]), "q1: an answer is blank"),
        (squad([]), "is_impossible is false with 0 answers"),
        (squad([], is_impossible=1), "is_impossible is 1"),
        (
            squad([{"text": "The", "answer_start": 0}], is_impossible=True),
            "is_impossible is true with 1 answers",
        ),
        (squad([], id=5), "data[0].paragraphs[0].qas[0]: 'id' is not text"),
        (squad([], context=5), "data[0].paragraphs[0]: 'context' is not text"),
        (squad([], context="a\0"), "data[0].paragraphs[0]: a NUL character"),
        ({"data": 1}, "f.json: 'data' is not a list"),
        ([1], "f.json: there is no 'data'"),
        ({"data": []}, "f.json: is empty"),
        ('{"data":\n [}', "f.json:2: is no JSON (Expecting value at column 3)"),
        ("", "f.json: is empty"),
        (b'{"data":\n "\xff"}', "f.json:2: not UTF-8"),
    ],
)
def test_mistakes_in_questions(tmp_path, content, expected):
    raw = content if isinstance(content, str | bytes) else json.dumps(content)
    assert expected in refusal(read_questions, write(tmp_path / "f.json", raw))


def test_an_id_that_stands_twice(tmp_path):
    both = squad([], is_impossible=True)
    both["data"] *= 2
    path = write(tmp_path / "f.json", json.dumps(both))
    assert "question q1: this id stands twice" in refusal(read_questions, path)


def test_label_sets():
    given = LabelSet.given(["b", "a", 3])
    assert dict(given) == {"b": 0, "a": 1, "3": 2} and given.id("a", "f:1") == 1
    message = refusal(given.id, "A", "f:1")
    assert message.startswith("f:1: 'A' is no label of this task; there are b, a, 3")
    assert "name all in task.labels" in message
    assert "did you mean entails" in refusal(LabelSet.given(["entails", "not"]).id, "entail", "f:1")
    records = [TextRecord(("",), name, "f:1") for name in ("10", "9", "10", "-1")]
    assert LabelSet.found(records).names == ("-1", "9", "10")
    tags = [TagRecord(("w", "w"), ("O", "B-X"), "f", 1), TagRecord(("w",), ("B-A",), "f", 4)]
    assert LabelSet.found(tags).names == ("B-A", "B-X", "O")
    for names, expected in (("aa", "'a' stands twice"), ("a", "of 1 class"), (["", "a"], "empty")):
        assert expected in refusal(LabelSet.given, list(names))


def test_squad_of_tfds(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    class Squad(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "context": tfds.features.Text(),
                    "question": tfds.features.Text(),
                    "is_impossible": np.bool_,
                    "answers": tfds.features.Sequence(
                        {"text": tfds.features.Text(), "answer_start": np.int32}
                    ),
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(5), "wrong": self._generate_examples(4)}

        def _generate_examples(self, start):
            base = {"context": "Émile wrote it.", "question": "What did he do?"}
            answers = {"text": ["wrote", "wrote it"], "answer_start": [start + 1, start + 1]}
            yield 0, base | {"id": "a", "is_impossible": False, "answers": answers}
            nothing = {"text": [], "answer_start": []}
            yield 1, base | {"id": "b", "is_impossible": True, "answers": nothing}

    builder = Squad(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    folder = f"tfds:{builder.data_dir}"
    found = {record.id: record for record in read_questions(folder)}
    assert [answer.text for answer in found["a"].answers] == ["wrote", "wrote it"]
    assert found["a"].context == "Émile wrote it." and found["b"].answers == ()
    assert "question a: 'wrote' does not stand at character 5" in refusal(
        lambda source: list(read_questions(source)), f"{folder}#wrong"
    )
