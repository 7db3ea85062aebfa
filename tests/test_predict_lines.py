"""Lines as they come, and texts in windows."""

import itertools
import json
import os

import numpy as np
import pytest

from bert_jax.data.labelled.features import RowFormat
from bert_jax.data.labelled.windows import windowed_texts
from bert_jax.data.tokenizers import train_tokenizer
from bert_jax.errors import UserError
from bert_jax.predictions import lines
from bert_jax.predictions.base import batched, lengths_to, put_together
from bert_jax.predictions.lines import Line
from tests import tiny
from tests.finetuning import BRACKETS


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    yield reading, writing
    os.close(reading)


def test_what_is_there_is_a_chunk(pipe):
    reading, writing = pipe
    chunks = lines.stdin_chunks(reading)
    os.write(writing, "\ufeffone\ntwo\r\n\nhal".encode())
    assert next(chunks) == [Line("one", "stdin:1"), Line("two", "stdin:2"), Line("", "stdin:3")]
    os.write(writing, b"f\nb\xffd")
    assert next(chunks) == [Line("half", "stdin:4")]
    os.close(writing)
    assert list(chunks) == [[Line("b\ufffdd", "stdin:5")]]


def test_a_file_comes_in_large_chunks(tmp_path, monkeypatch):
    (tmp_path / "lines").write_text("".join(f"line {n}\n" for n in range(1300)))
    with open(tmp_path / "lines", "rb") as file:
        chunks = list(lines.stdin_chunks(file.fileno()))
    assert [len(chunk) for chunk in chunks] == [512, 512, 276]
    assert [one.text for chunk in chunks for one in chunk] == [f"line {n}" for n in range(1300)]
    monkeypatch.setattr(lines, "CHARACTERS", 50)
    monkeypatch.setattr(lines, "_LONGEST", 100)
    (tmp_path / "lines").write_text("x" * 60 + "\nshort\n" + "y" * 90 + "\n" + "z" * 101)
    with open(tmp_path / "lines", "rb") as file:
        chunks = lines.stdin_chunks(file.fileno())
        assert [len(next(chunks)) for _ in range(2)] == [1, 2]
        with pytest.raises(UserError, match="stdin:4: longer than 100 bytes"):
            next(chunks)


@pytest.mark.parametrize(
    "text, said",
    [
        ("{", "stdin:7: is no JSON"),
        ("[1]", "stdin:7: is no JSON object"),
        ("{}", "there is no 'question'"),
        ('{"question": "a", "contest": "b"}', "did you mean"),
        ('{"question": "a", "context": "b", "id": 1}', "'id' is not read here"),
        ("[" * 100_000, "stdin:7: is no JSON"),
    ],
)
def test_broken_lines_are_named(text, said):
    with pytest.raises(UserError, match="stdin:7") as told:
        lines.json_fields(Line(text, "stdin:7"), ["question", "context"])
    assert said in str(told.value) or said in ("did you mean",) and "'context'" in str(told.value)


@pytest.mark.parametrize(
    "values, said",
    [
        ({"text": 3}, "'text' is no text"),
        ({"texts": ["a"]}, "'texts' is"),
        ({"texts": ["a", 3]}, "'texts' is no text"),
        ({"text": "a", "texts": ["a", "b"]}, "write"),
        ({"text": "\ud83d"}, "half a surrogate pair"),
        ({"text": "\0"}, "NUL"),
    ],
)
def test_broken_texts_are_named(values, said):
    with pytest.raises(UserError, match="stdin:7") as told:
        lines.read_text(Line(json.dumps(values), "stdin:7"), as_json=True)
    assert said in str(told.value)


@pytest.mark.parametrize(
    "count, length, platform, sizes",
    [
        (1, 32, "cpu", [1]),
        (15, 32, "cpu", [1] * 15),
        (50, 32, "cpu", [32, 32]),
        (11, 256, "cpu", [4, 4, 4]),
        (9, 256, "cpu", [4, 4, 1]),
        (2, 4096, "cpu", [1, 1]),
        (1, 32, "gpu", [32]),
        (33, 512, "tpu", [32, 32]),
        (0, 32, "cpu", []),
    ],
)
def test_rows_go_through_in_batches_of_two_sizes(count, length, platform, sizes):
    parts = list(batched(np.arange(count) * 3, length, platform))
    assert [len(part) for part in parts] == sizes
    numbers = [number for part in parts for number in part.tolist() if number >= 0]
    assert numbers == (np.arange(count) * 3).tolist()
    assert all(part[0] >= 0 for part in parts)


def test_lengths_of_rows():
    assert lengths_to(512, "gpu") == [32, 64, 128, 256, 512]
    assert lengths_to(512, "cpu") == [16, 32, 48, 64, 96, 128, 192, 256, 384, 512]
    assert lengths_to(40, "cpu") == [16, 32, 40] and lengths_to(40, "tpu") == [32, 40]
    assert lengths_to(12, "cpu") == [12] and lengths_to(32, "gpu") == [32]


def test_windows_lose_no_token():
    words = train_tokenizer("wordpiece", iter(tiny.sentences(300)), tiny.VOCAB, True, BRACKETS)
    form = RowFormat(20)
    short, long, longer = "the table", " ".join(tiny.sentences(6)), " ".join(tiny.sentences(20))
    texts = [("",), (short,), (long,), (short, long), (longer, short), (long, longer), ("", "")]
    examples = windowed_texts(texts, words, form)
    assert int(examples.lengths.max()) <= 20 and set(examples.owners) == set(range(len(texts)))
    for owner, text in enumerate(texts):
        rows = [examples.row(n) for n in np.flatnonzero(examples.owners == owner)]
        parts = []
        for number, row in zip(np.flatnonzero(examples.owners == owner), rows, strict=True):
            ids, second = examples.input_ids[row], int(examples.seconds[number]) - row.start
            assert ids[0] == words.vocabulary.cls and ids[-1] == words.vocabulary.sep
            parts.append([ids[1 : second - 1]] + [ids[second:-1]] * (len(text) == 2))
        for place, one in enumerate(text):
            ids = words.encode([one])[0]
            mine = [part[place].tolist() for part in parts]
            whole = all(part == ids for part in mine)
            assert whole or list(itertools.chain(*mine)) == ids
        sizes = [max(map(len, part)) for part in parts]
        assert max(sizes) - min(sizes) <= 1
    assert np.bincount(examples.owners).tolist()[:2] == [1, 1]
    first = windowed_texts(texts, words, form, most=1)
    assert len(first) == len(texts)


def test_windows_are_put_together():
    words = train_tokenizer("wordpiece", iter(tiny.sentences(300)), tiny.VOCAB, True, BRACKETS)
    piece = words.encode(["the"])[0]
    assert len(piece) == 1
    examples = windowed_texts([("the",), ("the " * 7,)], words, RowFormat(8))
    assert examples.owners.tolist() == [0, 1, 1] and examples.lengths.tolist() == [3, 5, 6]
    values = [np.array(one, float) for one in ([1, 2], [0, 11], [11, 0])]
    for long, second in (("mean", [6, 5]), ("max", [11, 11]), ("first", [0, 11])):
        got = put_together(values, examples, 2, long, lambda x: x.max(axis=0))
        np.testing.assert_allclose(got, [[1, 2], second])
