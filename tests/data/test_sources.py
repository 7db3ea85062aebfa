"""Every kind of source, the line that names it, mixtures, and bytes that are no text."""

import bz2
import gzip
import json
import lzma
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from bert_jax.data.config import CorpusConfig
from bert_jax.data.corpora import Corpus, held_out
from bert_jax.data.sampling import sample, training_sentences
from bert_jax.data.sources import readers, reading
from bert_jax.data.sources.grammar import parse
from bert_jax.data.sources.reading import Cleaning
from bert_jax.errors import UserError
from tests.data.reading import documents, fingerprint

TEXTS = ["One is here. It is open.", "Two.\nIt goes on.", "", "Four, an é and a 字."]


def write_jsonl(path, texts=TEXTS, field="text"):
    path.write_text("\n".join(json.dumps({"id": 1, field: text}) for text in texts) + "\n")
    return path


def write_tfds(folder, texts):
    """A real dataset of TFDS, which needs no TensorFlow to be prepared."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {"text": tfds.features.Text(), "label": tfds.features.Scalar(np.int64)}
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(texts), "test": self._generate_examples("x")}

        def _generate_examples(self, texts):
            for number, text in enumerate(texts):
                yield number, {"text": text, "label": number}

    builder = Tiny(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_dir)


def texts_of(source, cleaning=None):
    return ["\n".join(d.paragraphs) for d in documents(str(source), cleaning)]


def test_json_lines_however_they_are_packed(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", field="body")
    cleaning = Cleaning()
    found = list(documents(f"{path}@body", cleaning))
    assert ["\n".join(d.paragraphs) for d in found] == [text for text in TEXTS if text]
    assert [d.name for d in found] == ["a.jsonl:0", "a.jsonl:1", "a.jsonl:3"]
    assert cleaning.counts == Counter(empty_documents=1)
    for suffix, pack in PACKERS.items():
        packed = tmp_path / f"a.jsonl{suffix}"
        packed.write_bytes(pack(path.read_bytes()))
        assert texts_of(f"{packed}@body") == texts_of(f"{path}@body")


PACKERS = {
    ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,  # as its program does
}  # fmt: skip


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_packed_file_is_read_whole_or_refused(tmp_path, suffix):
    """Several streams are one text; cut off, flipped or followed by anything they are none."""
    path, pack = tmp_path / f"a.txt{suffix}", PACKERS[suffix]
    rng = np.random.default_rng(0)
    text = b"".join(b"Number %d.\n" % n for n in rng.integers(0, 1 << 40, 3000))
    first, second = pack(b"One.\n\n" + text), pack(text + b"End.\n")
    path.write_bytes(first + second)
    one, both = [d.paragraphs for d in documents(str(path))]
    assert one == ("One.\n",) and "".join(both).encode() == text + text + b"End.\n"
    middle = len(first) + len(second) // 2
    flipped = bytearray(first + second)
    flipped[middle] ^= 1
    wrong = {
        "cut": (first + second)[:middle], "last": (first + second)[:-1],
        "half": first[: len(first) // 2], "flipped": bytes(flipped),
        "garbage": first + second + b"no stream",
    }  # fmt: skip
    for what, content in wrong.items():
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"damaged {suffix} file"):
            pytest.fail(f"{what}: {len(texts_of(path))} documents")


def test_what_may_stand_between_streams(tmp_path):
    """Padding of .xz, a frame of .zst that is to be passed over: pzstd writes some."""
    path = tmp_path / "a.txt.xz"
    path.write_bytes(lzma.compress(b"One.\n\nTw") + bytes(8) + lzma.compress(b"o.\n") + bytes(4))
    assert texts_of(path) == ["One.\n", "Two.\n"]
    path = tmp_path / "a.txt.zst"
    skipped = struct.pack("<II", 0x184D2A50, 5) + b"hello"
    frames = [zstandard.compress(b"One.\n\nTw"), skipped, zstandard.compress(b"o.\n")]
    path.write_bytes(b"".join(frames))
    assert texts_of(path) == ["One.\n", "Two.\n"]


def test_parquet(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "_BATCH", 2)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": range(5), "body": [*TEXTS, None]}), path)
    assert texts_of(f"{path}@body") == [text for text in TEXTS if text]
    for source, said in ((path, "no 'text', but n, body"), (f"{path}@n", "no text; name another")):
        with pytest.raises(UserError, match=said):
            documents(str(source))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="damaged Parquet file"):
        documents(f"{path}@body")


@pytest.mark.parametrize(
    "kind", ["string", "large_string", "string_view", "binary", "large_binary", "binary_view"]
)
def test_columns_of_parquet_that_are_text(tmp_path, kind):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array(TEXTS).cast(getattr(pa, kind)())}), path)
    assert pq.read_schema(path).field("text").type == getattr(pa, kind)()
    assert texts_of(path) == [text for text in TEXTS if text]


@pytest.mark.parametrize("invalid", ["fail", "replace", "skip"])
def test_utf_16_is_no_text(tmp_path, invalid):
    path = tmp_path / "a.txt"
    text = "Much is said in this sentence.\n\n" * 20
    for codec in ("utf-16", "utf-16-le"):
        path.write_text(text, encoding=codec)
        with pytest.raises(UserError, match=r"a.txt: not UTF-8 at line \d+, byte \d+.*iconv"):
            list(documents(str(path), Cleaning(invalid)))


def test_lines_that_name_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("One.\n\nTwo.")
    for source, said in (
        (",", "no name beside a comma"),
        (f"{path},,{path}", "no name beside a comma"),
        ("https://example.com/a.txt", "copy them here first"),
        (f"0.00001x {path}", "no document is left at these weights"),
    ):
        with pytest.raises(UserError, match=said):
            documents(source)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(texts_of("~/a.txt")) == len(texts_of("~/*.txt")) == 2


def test_tfds_without_tensorflow(tmp_path):
    import sys

    folder = write_tfds(tmp_path, TEXTS)
    cleaning = Cleaning()
    assert sorted(texts_of(f"tfds:{folder}", cleaning)) == sorted(text for text in TEXTS if text)
    assert cleaning.counts["empty_documents"] == 1
    assert texts_of(f"tfds:{folder}#test@text") == ["x"]
    names = [document.name for document in documents(f"tfds:{folder}")]
    assert all(name.startswith("tiny/1.0.0:") for name in names) and len(set(names)) == 3
    files = {fact["name"] for fact in fingerprint(f"tfds:{folder}#test")["sources"]}
    assert "tiny/1.0.0/tiny-test.array_record-00000-of-00001" in files
    assert "tensorflow" not in sys.modules
    for source, said in (
        (f"tfds:{folder}#valid", "no such split; there are train, test"),
        (f"tfds:{folder}@body", "no 'body', but label, text"),
        (f"tfds:{folder}@label", "feature label is no text"),
        (f"tfds:{tmp_path}", "no dataset that is prepared here"),
        ("tfds:no_such_dataset", "no dataset that is prepared here"),
        (str(folder), "is a folder of TFDS; write tfds:"),
    ):
        with pytest.raises(UserError, match=said):
            documents(source)
    (shard,) = folder.glob("tiny-train*")
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(UserError, match="cannot be read"):
        list(documents(f"tfds:{folder}"))


def test_files_by_comma_and_pattern(tmp_path):
    for folder, name, text in (("x", "1.txt", "A."), ("x", "2.txt", "B."), ("y", "1.txt", "C.")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text(text)
    write_jsonl(tmp_path / "z.jsonl", ["D."])
    assert texts_of(f"{tmp_path}/x/*.txt") == ["A.", "B."]
    assert texts_of(f"{tmp_path}/**/*.txt,{tmp_path}/z.jsonl") == ["A.", "B.", "C.", "D."]
    assert texts_of(f"text:{tmp_path}/z.jsonl") == ['{"id": 1, "text": "D."}\n']
    # Names are short, unless two files would have the same.
    assert [d.name for d in documents(f"{tmp_path}/x/*.txt")] == ["1.txt:0", "2.txt:0"]
    assert len({d.name for d in documents(f"{tmp_path}/**/*.txt")}) == 3
    # Also of several members; a file that is read twice is one file.
    for source in (f"{tmp_path}/x/1.txt + {tmp_path}/y/1.txt", f"{tmp_path}/[xy]/1.txt"):
        assert [d.name for d in documents(source)] == ["x/1.txt:0", "y/1.txt:0"]
    twice = documents(f"{tmp_path}/x/1.txt + 0.9x {tmp_path}/x/1.txt")
    assert {d.name for d in twice} == {"1.txt:0"}
    with pytest.raises(UserError, match="nothing fits this pattern"):
        parse(f"{tmp_path}/*.text")
    with pytest.raises(UserError, match="1.txt@foo: is plain text, without fields"):
        parse(f"{tmp_path}/x/1.txt@foo")
    odd = tmp_path / "2x a + b,c@d.txt"
    odd.write_text("Odd.")
    assert texts_of(odd) == ["Odd."]


def mixture(tmp_path):
    big = tmp_path / "big.txt"
    small = tmp_path / "small.txt"
    big.write_text("\n\n".join(f"Big {number:06d}." for number in range(4000)))
    small.write_text("\n\n".join(f"Sml {number:06d}." for number in range(400)))
    return big, small


def counted(corpus, factors, fraction=0.0):
    found = Counter(d.name for d in corpus.documents(Cleaning(), factors, fraction))
    return {
        name: sum(n for d, n in found.items() if d.startswith(name)) for name in ("big", "small")
    }, found


def test_members_are_read_as_often_as_it_says(tmp_path):
    big, small = mixture(tmp_path)
    corpus = Corpus(f"0.25x {big} + 2.5x {small}")
    counts, each = counted(corpus, None)
    assert 900 < counts["big"] < 1100 and 940 < counts["small"] < 1060
    assert {n for d, n in each.items() if d.startswith("small")} == {2, 3}
    again = [d.name for d in corpus.documents(Cleaning())]
    assert again == [d.name for d in corpus.documents(Cleaning())]
    # All are read once before one is read again.
    assert again.index("small.txt:0", again.index("small.txt:0") + 1) > again.index("small.txt:399")
    _, each = counted(corpus, None, fraction=0.3)
    assert {each[d] for d in each if held_out(d, 0.3)} == {1}


def test_a_file_that_is_named_twice(tmp_path):
    """In one member it is read once; two members are a mixture, what is held out once in it."""
    _, small = mixture(tmp_path)
    (tmp_path / "link.txt").symlink_to(small)
    once = [d.name for d in documents(str(small))]
    places = (f"{small},{tmp_path}/s*.txt", f"{small},{tmp_path}/./small.txt,{tmp_path}/link.txt")
    for source in places:
        assert [d.name for d in documents(source)] == once
    for source, least in ((f"{small} + {small}", 2), (f"0.3x {small} + 2x {small}", 2)):
        _, each = counted(Corpus(source), None, fraction=0.3)
        held = {d for d in once if held_out(d, 0.3)}
        assert {each[d] for d in held} == {1} and held
        assert {each[d] for d in once if d not in held} == {
            least,
            *([3] if "0.3" in source else []),
        }
    for source in (f"0.3x {small} + 0.6x {small}", f"0.6x {small} + 0.3x {small}"):
        _, each = counted(Corpus(source), None, fraction=0.3)
        assert {each[d] for d in each if held_out(d, 0.3)} == {1}
        assert {each[d] for d in each if not held_out(d, 0.3)} == {1, 2}


def test_shares_and_alpha(tmp_path):
    big, small = mixture(tmp_path)
    sizes = [4000, 400]
    halves = Corpus(f"50% {big} + 50% {small}")
    assert halves.factors(sizes, 1.0) == [0.55, 5.5]
    counts, _ = counted(halves, [0.55, 5.5])
    assert abs(counts["big"] - counts["small"]) < 200
    plain = Corpus(f"{big} + {small}")
    assert plain.factors(sizes, 1.0) == pytest.approx([1, 1])
    found = plain.factors(sizes, 0.3)
    share = 4000**0.3 / (4000**0.3 + 400**0.3)  # Conneau et al. 2020, 3.1
    assert found == pytest.approx([share * 4400 / 4000, (1 - share) * 4400 / 400])
    for wrong in (f"70% {big} + 20% {small}", f"70% {big} + {small}"):
        with pytest.raises(UserError, match="add up to 100%"):
            parse(wrong)
    with pytest.raises(UserError, match="has no weight"):
        parse(f"0x {big} + {small}")


@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_invalid_utf8(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    raw = [b"Fine.", b"caf\xe9 and\0more.", b"Fine again."]
    if kind == "txt":
        path.write_bytes(b"\n\n".join(raw))
    elif kind == "jsonl":
        path.write_bytes(b"\n".join(b'{"text": "%s"}' % r.replace(b"\0", b"\\u0000") for r in raw))
    else:
        pq.write_table(pa.table({"text": pa.array(raw, pa.binary())}), path)
    with pytest.raises(UserError, match=r"not UTF-8.*byte \d+.*set corpus.invalid_utf8 to"):
        list(documents(str(path)))
    cleaning = Cleaning("replace")
    found = [text.strip() for text in texts_of(path, cleaning)]
    assert found == ["Fine.", "caf\ufffd and more.", "Fine again."]
    assert cleaning.counts == Counter(invalid_utf8=1, nul_characters=1)
    cleaning = Cleaning("skip")
    found = list(documents(str(path), cleaning))
    assert [d.paragraphs[0].strip() for d in found] == ["Fine.", "Fine again."]
    assert [d.name for d in found] == [f"a.{kind}:0", f"a.{kind}:2"]
    assert cleaning.counts == Counter(invalid_utf8=1)


def test_bad_json(tmp_path):
    path = tmp_path / "a.jsonl"
    for content, said in (
        ('{"text": "cut', "line 2: is no JSON"),
        ("[1]", "line 2: is no JSON object"),
        ('{"body": "x"}', "line 2: there is no 'text', but body; name the text as"),
        ('{"text": 3}', "line 2: the field text is no text"),
        ('{"text": "\\ud800"}', "line 2: not Unicode"),
    ):
        path.write_text('{"text": "Fine."}\n' + content)
        with pytest.raises(UserError, match=said):
            list(documents(str(path)))


def test_a_long_document_comes_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_CHARACTERS", 100)
    path = tmp_path / "a.txt"
    lines = [f"This is line number {number}." for number in range(20)]
    path.write_text("Short.\n\n" + "\n".join(lines) + "\n\nLast.")
    found = list(documents(str(path)))
    assert [d.part for d in found] == [None, 0, 1, 2, 3, None]
    assert [d.name for d in found] == ["a.txt:0"] + ["a.txt:1"] * 4 + ["a.txt:2"]
    assert [p.strip() for d in found[1:-1] for p in d.paragraphs] == lines


def test_of_a_long_document_that_is_skipped_no_part_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_CHARACTERS", 100)
    path = tmp_path / "a.txt"
    lines = [b"This is line number %d." % number for number in range(20)]
    long = b"\n".join(lines)
    path.write_bytes(
        b"\n\n\0\nShort \xff.\n\n" + long + b"\n\n" + long + b"\nBad \xff.\nMore.\n\n" + long
    )
    cleaning = Cleaning("skip")
    found = list(documents(str(path), cleaning))
    assert [(d.name, d.part) for d in found] == [
        (f"a.txt:{number}", part) for number in (1, 3) for part in range(4)
    ]
    assert cleaning.counts["invalid_utf8"] == 2


def test_a_line_that_is_no_line(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 1 << 10)
    path = tmp_path / "a.txt"
    path.write_bytes(b"Fine.\n" + b"x" * 5000)
    with pytest.raises(UserError, match="line 2 is longer than"):
        list(documents(str(path)))


def test_the_sample_is_bounded_and_a_function_of_the_corpus(tmp_path):
    path = tmp_path / "a.txt"
    text = "Much is said in this one sentence, over and over again. " * 200
    path.write_text("\n\n".join(f"Document {number}. {text}" for number in range(300)))
    config = CorpusConfig(source=str(path), held_out=0.1, tokenizer_megabytes=1)
    corpus = Corpus(config.source)
    found = sample(corpus, config, [1.0], lambda *_: None)
    assert found.all_documents == 300 and found.all_characters > 3_000_000
    size = sum(d.characters for d in found.documents)
    assert 950_000 < size <= 1_000_000
    numbers = [int(d.name.rpartition(":")[2]) for d in found.documents]
    assert numbers == sorted(numbers) and max(numbers) > 200 and min(numbers) < 100
    assert not any(held_out(d.name, 0.1) for d in found.documents)
    assert found == sample(corpus, config, [1.0], lambda *_: None)
    twice = [found.documents[0]] * 2
    said = [list(training_sentences(twice, dedup, lambda *_: None)) for dedup in (True, False)]
    assert len(said[1]) == 2 * len(said[0]) > 0
