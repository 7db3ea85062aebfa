"""A corpus on disk: whole or not there, the same every time, splits apart."""

import json
import os
import resource
import shutil
import struct
import threading
from dataclasses import replace
from itertools import pairwise
from multiprocessing import Pipe

import numpy as np
import pytest
from etils import epath

from bert_jax.data import corpora, duplicates, parts, records
from bert_jax.data.config import CorpusConfig
from bert_jax.data.fast_tokenizer import FastTokenizer
from bert_jax.data.merge import UNIGRAM
from bert_jax.data.parts import sentences_of
from bert_jax.data.prepare import cached, passed_over, prepare, token_counts
from bert_jax.data.records import ROW_TOKENS, Rows, SplitWriter, read_manifest
from bert_jax.data.tokenizers import load_tokenizer, train_tokenizer
from bert_jax.data.workers import serve
from bert_jax.errors import UserError
from tests import tiny
from tests.data.reading import documents


def quiet(what, documents, characters, total):
    pass


def config_of(corpus, **changes):
    """As tests/tiny.py prepared it."""
    facts = {"source": str(corpus.text), "held_out": 0.3, "tokenizer": "sentencepiece"}
    return CorpusConfig(**facts | changes)


def decoded(folder, split):
    tokenizer, rows = load_tokenizer(folder / "tokenizer"), Rows(folder, split)
    return [tokenizer.decode(ids.tolist()) for ids in rows.read(np.arange(len(rows)))]


def test_rows_hold_the_documents_of_their_split(corpus):
    texts = {"train": [], "held_out": []}
    for document in documents(corpus.text):
        split = "held_out" if corpora.held_out(document.name, 0.3) else "train"
        texts[split].append(" ".join(sentences_of(document)).lower())
    assert texts["train"] and texts["held_out"]
    for split, expected in texts.items():
        assert decoded(corpus.folder, split) == expected


def test_manifest_counts_what_is_there(corpus):
    manifest = read_manifest(corpus.folder)
    rows = Rows(corpus.folder, "train")
    tokens = np.concatenate(rows.read(np.arange(len(rows))))
    assert manifest["splits"]["train"]["tokens"] == len(tokens)
    assert manifest["splits"]["train"]["sentences"] == len(rows.index.sentence_lengths)
    assert rows.index.sentence_lengths.sum() == len(tokens)
    with open(corpus.folder / UNIGRAM, "rb") as file:
        counts = np.load(file)
    np.testing.assert_array_equal(counts, np.bincount(tokens, minlength=tiny.VOCAB))
    assert manifest["tokenizer"] == "sentencepiece"
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert manifest["special_tokens"] == {name: number for number, name in enumerate(names)}


def test_preparing_twice_gives_the_same_bytes(corpus, tmp_path):
    again = tmp_path / "again"
    prepare(config_of(corpus), tiny.VOCAB, again, quiet)
    files = sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert len(files) >= 8
    for name in files:
        assert (again / name).read_bytes() == (corpus.folder / name).read_bytes(), name


def test_a_long_document_becomes_several_rows(corpus, tmp_path):
    """Cut at its sentences; a sentence longer than a row is cut too."""
    text, words = tmp_path / "long.txt", tiny.sentences(600)
    text.write_text("\n".join([*words, " ".join(words).replace(".", "")]) + "\n\nOther.\n\nMore.")
    folder = str(corpus.folder)
    prepare(
        CorpusConfig(source=str(text), tokenizer=folder, held_out=0.7), 200, tmp_path / "p", quiet
    )
    for split in ("train", "held_out"):
        rows = Rows(tmp_path / "p", split)
        found = rows.read(np.arange(len(rows)))
        if len(found) > 2:
            break
    assert len(found) > 4 and 0 < min(map(len, found)) <= max(map(len, found)) <= ROW_TOKENS
    every = np.arange(len(rows))
    long = rows.index.document_of(every) == 1
    assert long.sum() > 4
    borders = rows.index.rows[np.arange(len(rows) + 1)].tolist()
    lengths = [rows.index.sentence_lengths[b:e] for b, e in pairwise(borders)]
    assert [sum(map(int, row)) for row in lengths] == list(map(len, found))
    assert max(map(max, lengths)) == ROW_TOKENS
    tokenizer = load_tokenizer(tmp_path / "p" / "tokenizer")
    expected = [i for ids in tokenizer.encode([*words, lines_of(text)[600]]) for i in ids]
    assert (
        np.concatenate([f for f, mine in zip(found, long, strict=True) if mine]).tolist()
        == expected
    )


def lines_of(path):
    return path.read_text().split("\n")


@pytest.mark.parametrize(
    "shortest, longest, sentence", [(100, 1000, 20), (20, 20, 10), (4, 30, 20)]
)
def test_short_and_long_rows_take_little_room(tmp_path, shortest, longest, sentence):
    """At most 2.5 bytes a token, of tokens that nothing can compress."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(shortest, longest + 1, 8_000_000 // (shortest + longest))
    rows = [rng.integers(0, 65536, n).astype("<u2") for n in sizes]
    tokens = sum(map(len, rows))
    lengths = [np.diff([*range(0, len(row), sentence), len(row)]) for row in rows]
    counts = np.array(list(map(len, lengths)))
    writer = SplitWriter(epath.Path(tmp_path), "train", np.dtype("<u2"))
    writer.add(rows, np.concatenate(lengths).astype(np.uint16), counts, np.arange(len(rows)))
    writer.close()
    assert tokens > 3_900_000  # a shard's end may be 64 KiB of nothing
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2.5 * tokens


def test_a_row_is_read_from_its_record(tmp_path, monkeypatch):
    """From one of its own or shared with others, in one of many shards, however few may be open
    at once; a document of several rows is one."""
    monkeypatch.setattr(records, "_RECORDS_A_SHARD", 3)
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 200, n).astype("<u2") for n in rng.integers(1, 600, 400)]
    lengths = [np.diff([*range(0, len(row), 50), len(row)]) for row in rows]
    counts = np.array(list(map(len, lengths)))
    documents = np.cumsum(rng.integers(0, 2, len(rows)))
    writer = SplitWriter(epath.Path(tmp_path), "train", np.dtype("<u2"))
    for part in (slice(0, 150), slice(150, 150), slice(150, 400)):
        found = lengths[part]
        all_lengths = np.concatenate([np.empty(0, int), *found])
        writer.add(rows[part], all_lengths, counts[part], documents[part])
    count = writer.close()
    sizes = {
        "tokens": sum(map(len, rows)), "sentences": int(counts.sum()), "rows": 400,
        "documents": len(np.unique(documents)), "records": count,
    }  # fmt: skip
    manifest = {
        "format": records.FORMAT, "vocab_size": 200, "dtype": "<u2", "splits": {"train": sizes},
        "tokenizer_sha256": "", "special_tokens": {}, "found": {},
        "shards": records.shard_sizes(epath.Path(tmp_path), {"train": count}),
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert count < 200 and len(manifest["shards"]) == -(-count // 3) > 30

    limits, found = resource.getrlimit(resource.RLIMIT_NOFILE), Rows(tmp_path, "train")
    opened = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 20, limits[1]))
    monkeypatch.setattr(records, "_most_open", lambda: 10)
    try:
        order = rng.permutation(400)
        for start in range(0, 400, 7):
            numbers = order[start : start + 7]
            for number, row in zip(numbers, found.read(numbers), strict=True):
                np.testing.assert_array_equal(row, rows[number])
        assert opened < len(os.listdir("/proc/self/fd")) <= opened + 10
        monkeypatch.setattr(records, "_most_open", lambda: 1000)
        with pytest.raises(UserError, match="Too many open files.*ulimit -n"):
            found.read(np.arange(400))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    expected = np.unique(documents, return_inverse=True)[1] + 1
    np.testing.assert_array_equal(found.index.document_of(np.arange(400)), expected)
    assert found.index.documents == expected[-1]


def test_the_cache_prepares_once(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = config_of(corpus)
    calls = []
    first = cached(config, tiny.VOCAB, lambda *told: calls.append(told))
    assert calls and cached(config, tiny.VOCAB, quiet) == first
    done, total = [(did, all_) for what, _, did, all_ in calls if what.startswith("writing")][-1]
    assert total and calls[-1][1] == total
    calls.clear()
    cached(config, tiny.VOCAB, lambda *told: calls.append(told))
    assert not calls
    # A run that was killed when all but this was done.
    left = first.parent / f".{first.name}.partial"
    (left / "done").mkdir(parents=True)
    assert cached(config, tiny.VOCAB, quiet) == first and not left.exists()
    other = config_of(corpus, held_out=0.4)
    assert cached(other, tiny.VOCAB, quiet) != first


def test_what_decides_the_tokenizer_decides_the_cache(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    changes = [
        {},
        {"tokenizer": "wordpiece"},
        {"lowercase": False},
        {"special_tokens": "<s> <pad> </s> <unk> ... <mask>"},
        {"tokenizer": str(corpus.folder)},
    ]
    folders = [cached(config_of(corpus, **c), tiny.VOCAB, quiet) for c in changes]
    assert len(set(folders)) == len(changes)
    special = read_manifest(folders[3])["special_tokens"]
    assert special == {"<pad>": 1, "<unk>": 3, "<s>": 0, "</s>": 2, "<mask>": tiny.VOCAB - 1}


@pytest.mark.parametrize("kind, size", [("wordpiece", 200), ("bpe", 400)])
def test_every_kind_of_tokenizer(corpus, tmp_path, kind, size):
    output = tmp_path / "prepared"
    config = config_of(corpus, tokenizer=kind)
    manifest = prepare(config, size, output, quiet)
    assert manifest["vocab_size"] == load_tokenizer(output / "tokenizer").vocab_size == size
    for split in ("train", "held_out"):
        assert decoded(output, split) == decoded(corpus.folder, split)
    prepare(config, size, tmp_path / "again", quiet)
    files = [path for path in output.rglob("*") if path.is_file()]
    assert len(files) >= 8
    for path in files:
        again = tmp_path / "again" / path.relative_to(output)
        assert again.read_bytes() == path.read_bytes(), path


def test_a_tokenizer_can_be_taken_as_it_is(corpus, tmp_path):
    """From its own folder, and from what has it in a folder tokenizer; its path does not count."""
    manifests = []
    for number, folder in enumerate([corpus.folder, corpus.folder / "tokenizer"]):
        config = config_of(corpus, tokenizer=str(folder), lowercase=bool(number))
        output = tmp_path / f"prepared{number}"
        manifests.append(prepare(config, tiny.VOCAB, output, quiet))
        assert decoded(output, "train") == decoded(corpus.folder, "train")
    assert manifests[0] == manifests[1]
    trained = read_manifest(corpus.folder)
    assert manifests[0]["tokenizer"] == trained["tokenizer_sha256"]
    assert manifests[0]["special_tokens"] == trained["special_tokens"]
    with pytest.raises(UserError, match="set model.vocab_size=200"):
        prepare(config, 300, tmp_path / "other", quiet)
    for wrong in ("byte-pairs", str(corpus.text)):
        with pytest.raises(UserError, match="corpus.tokenizer=.*wordpiece, sentencepiece, bpe"):
            prepare(config_of(corpus, tokenizer=wrong), tiny.VOCAB, tmp_path / "other", quiet)


def test_a_sentence_after_another_has_a_space_before_it(corpus, tmp_path):
    """To a tokenizer that puts none before a text, as RoBERTa's, only a document's first word is
    without one."""
    trained = train_tokenizer("bpe", tiny.sentences(400), 400, True, "<s> <pad> </s> <unk> <mask>")
    description = json.loads(trained.to_json())
    description["pre_tokenizer"]["add_prefix_space"] = False
    tokenizer = FastTokenizer(description)
    tokenizer.save(tmp_path / "roberta")
    prepare(config_of(corpus, tokenizer=str(tmp_path / "roberta")), 400, tmp_path / "out", quiet)
    rows = Rows(tmp_path / "out", "train")
    (first,) = rows.read(np.array([0]))
    ends = np.cumsum(rows.index.sentence_lengths[: rows.index.row_sentences[0]])
    begins = [tokenizer.piece(int(first[place]))[0] for place in [0, *ends[:-1]]]
    assert begins[0] != "Ġ" and set(begins[1:]) == {"Ġ"}


def test_an_interrupted_prepare_goes_on(corpus, tmp_path):
    def interrupt(what, documents, characters, total):
        if what == "tokenizing":
            raise KeyboardInterrupt

    output = tmp_path / "prepared"
    with pytest.raises(KeyboardInterrupt):
        prepare(config_of(corpus), tiny.VOCAB, output, interrupt)
    assert not output.exists()
    done = []
    prepare(config_of(corpus), tiny.VOCAB, output, lambda what, *_: done.append(what))
    assert "training the tokenizer" not in done
    assert_same_folders(output, corpus.folder)
    assert list(tmp_path.iterdir()) == [output]


def test_what_was_done_for_another_config_is_not_used(corpus, tmp_path):
    def interrupt(what, documents, characters, total):
        if what.startswith("writing"):
            raise KeyboardInterrupt

    output = tmp_path / "prepared"
    with pytest.raises(KeyboardInterrupt):
        prepare(config_of(corpus, lowercase=False), tiny.VOCAB, output, interrupt)
    prepare(config_of(corpus), tiny.VOCAB, output, quiet)
    assert_same_folders(output, corpus.folder)


def wait_for_another(config, other, output):
    """prepare `other` while `config` is being prepared; what the one who waits gets."""
    waits, found = threading.Event(), []

    def wait():
        try:
            found.append(prepare(other, tiny.VOCAB, output, lambda *_: waits.set()))
        except UserError as error:
            found.append(str(error))

    waiter = threading.Thread(target=wait)

    def while_it_works(what, documents, characters, total):
        if what.startswith("writing") and not waiter.ident:
            waiter.start()
            assert waits.wait(60)

    manifest = prepare(config, tiny.VOCAB, output, while_it_works)
    waiter.join(60)
    return manifest, *found


def test_who_waits_gets_the_work_of_another_if_it_is_the_same(corpus, tmp_path):
    manifest, same = wait_for_another(config_of(corpus), config_of(corpus), tmp_path / "same")
    assert same == manifest
    _, told = wait_for_another(
        config_of(corpus), config_of(corpus, lowercase=False), tmp_path / "other"
    )
    assert "exists already" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "same"]


def assert_same_folders(mine, theirs):
    files = {path.relative_to(mine) for path in mine.rglob("*") if path.is_file()}
    assert files == {path.relative_to(theirs) for path in theirs.rglob("*") if path.is_file()}
    for name in files:
        assert (mine / name).read_bytes() == (theirs / name).read_bytes(), name


def test_a_damaged_folder_is_named(corpus, tmp_path):
    folder = shutil.copytree(corpus.folder, tmp_path / "copy")
    np.save(folder / "train-row_sentences.npy", np.arange(3))
    with pytest.raises(UserError, match="damaged"):
        Rows(folder, "train")
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match="not a prepared corpus"):
        Rows(folder, "train")
    with pytest.raises(UserError, match="not a prepared corpus"):
        cached(CorpusConfig(prepared=str(folder)), tiny.VOCAB, quiet)


def test_a_shard_that_was_cut_off_is_named(corpus, tmp_path):
    folder = shutil.copytree(corpus.folder, tmp_path / "copy")
    (path,) = folder.glob("rows-train*")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match="damaged .*rows-train.* was cut off"):
        Rows(folder, "train")


def test_another_tokenizer_than_the_one_of_the_rows_is_named(corpus, tmp_path):
    folder = shutil.copytree(corpus.folder, tmp_path / "copy")
    other = train_tokenizer(
        "sentencepiece", tiny.sentences(500, 3), 200, True, "[PAD] [UNK] [CLS] [SEP] [MASK]"
    )
    other.save(folder / "tokenizer")
    with pytest.raises(UserError, match="made with another tokenizer"):
        cached(CorpusConfig(prepared=str(folder)), tiny.VOCAB, quiet)


def test_the_same_text_twice(tmp_path):
    """Counted, and with dedup removed: the second of the same split, and what is in both."""
    documents = ["\n".join(tiny.sentences(12, seed)) for seed in range(40)]
    names = [f"text.txt:{number}" for number in range(60)]
    split = [corpora.held_out(name, 0.3) for name in names]
    both = sum(split[number] != split[number + 40] for number in range(20))
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join([*documents, *(d.replace("\n", " ") for d in documents[:20])]))
    config = CorpusConfig(source=str(path), held_out=0.3, tokenizer="sentencepiece")
    found = prepare(config, tiny.VOCAB, tmp_path / "all", quiet)
    assert found["found"] == {
        "duplicate_documents": 20, "held_out_documents_in_training": both,
    }  # fmt: skip
    assert both and sum(s["documents"] for s in found["splits"].values()) == 60
    once = prepare(replace(config, dedup=True), tiny.VOCAB, tmp_path / "once", quiet)
    assert once["found"] == {"duplicate_documents": 20, "held_out_documents_in_training": 0}
    texts = {s: decoded(tmp_path / "once", s) for s in ("train", "held_out")}
    everything = texts["train"] + texts["held_out"]
    assert len(everything) == len(set(everything)) == 40
    # Read twice on purpose is not twice the same by chance.
    twice = prepare(
        replace(config, dedup=True, source=f"2x {path}"), tiny.VOCAB, tmp_path / "twice", quiet
    )
    trained = once["splits"]["train"]["documents"]
    assert twice["splits"]["train"]["documents"] == 2 * trained
    assert twice["splits"]["held_out"]["documents"] == 40 - trained


def test_files_of_one_name_in_two_members_are_two(corpus, tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        shutil.copy(corpus.text, tmp_path / folder / "t.txt")
    folder = str(corpus.folder)
    for source in ("{0}/a/t.txt + {0}/b/t.txt", "{0}/a/t.txt,{0}/b/t.txt"):
        config = config_of(corpus, source=source.format(tmp_path), dedup=True, tokenizer=folder)
        manifest = prepare(config, tiny.VOCAB, tmp_path / f"{len(source)}", quiet)
        assert manifest["found"]["duplicate_documents"] == 24


def test_duplicates_are_found_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "_AT_ONCE", 7)
    rng = np.random.default_rng(0)
    text = rng.integers(0, 60, 100)
    names, held = np.arange(100).astype(np.uint64), rng.random(100) < 0.3
    digests = np.stack([text, text * 3], axis=1).astype(np.uint64)

    def stretches():
        for start in range(0, 100, 30):
            part = slice(start, start + 30)
            yield duplicates.Texts(digests[part], names[part], held[part])

    found = duplicates.find_duplicates(stretches(), 100, tmp_path)  # each is read once
    expected = [text[n] in text[:n] for n in range(100)]
    assert found.again.tolist() == expected and any(expected)
    assert found.in_both_splits == sum(np.isin(text[held], text[~held]))


def test_tfds_reads_the_folder(corpus):
    """Without TensorFlow, as any of its datasets."""
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(str(corpus.folder))
    for split in ("train", "held_out"):
        rows = Rows(corpus.folder, split)
        source = builder.as_data_source(split=split)
        assert len(source) == builder.info.splits[split].num_examples > 0
        found = np.concatenate([source[number]["input_ids"] for number in range(len(source))])
        np.testing.assert_array_equal(found, np.concatenate(rows.read(np.arange(len(rows)))))


def test_a_vocabulary_of_another_size_is_named(corpus):
    with pytest.raises(UserError, match="set model.vocab_size=200"):
        cached(CorpusConfig(prepared=str(corpus.folder)), 512, quiet)


def test_an_output_that_is_there_is_kept(corpus):
    with pytest.raises(UserError, match="exists already"):
        prepare(CorpusConfig(source=str(corpus.text)), tiny.VOCAB, corpus.folder, quiet)


@pytest.mark.parametrize("text", ["", "\n\n\n", "One sentence is here.\n"])
def test_an_empty_corpus_is_refused(text, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(text)
    with pytest.raises(UserError):
        prepare(CorpusConfig(source=str(path)), tiny.VOCAB, tmp_path / "out", quiet)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["text.txt"]


@pytest.mark.parametrize("change", ["longer", "another"])
def test_a_source_that_changes_while_it_is_read_is_refused(corpus, tmp_path, monkeypatch, change):
    monkeypatch.setattr(parts, "CHUNK_CHARACTERS", 1500)
    text = tmp_path / "text.txt"
    shutil.copy(corpus.text, text)

    def changes(what, documents, characters, total):
        if what == "tokenizing" and documents:
            content = text.read_text() + "One more." if change == "longer" else text.read_text()
            text.write_text(content.replace("a", "b"))

    config = config_of(corpus, source=f"2x {text}", tokenizer=str(corpus.folder))
    with pytest.raises(UserError, match=r"text.txt: was changed while it was read"):
        prepare(config, tiny.VOCAB, tmp_path / "out", changes, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_a_worker_whose_parent_dies_while_it_speaks_ends_in_silence():
    mine, theirs = Pipe()
    os.write(mine.fileno(), struct.pack("!i", 100) + b"the beginning of 100 bytes")
    mine.close()
    serve(theirs)  # raises nothing


INDEX = ["lengths", "row_sentences", "begins", "record_sentences"]


@pytest.mark.parametrize("name", [*(f"train-{part}" for part in INDEX), "unigram"])
def test_a_damaged_index_is_refused_when_it_is_opened(corpus, tmp_path, name):
    """Any bit of its numbers; of its header those that say something."""
    folder = epath.Path(shutil.copytree(corpus.folder, tmp_path / "copy"))
    path = tmp_path / "copy" / f"{name}.npy"
    whole = path.read_bytes()
    for place in (3, 12, 20, 45, 60, 128, len(whole) // 2, len(whole) - 1):
        for bit in (1, 16, 128):
            damaged = bytearray(whole)
            damaged[place] ^= bit
            path.write_bytes(damaged)
            with pytest.raises(UserError, match="damaged"):
                token_counts(folder) if name == "unigram" else Rows(folder, "train")
                pytest.fail(f"byte {place}, bit {bit}")


@pytest.mark.parametrize(
    ("fact", "value"), [("dtype", "<u4"), ("dtype", "foo"), ("vocab_size", "200"), ("splits", [])]
)
def test_a_manifest_that_was_edited_is_refused(corpus, tmp_path, fact, value):
    folder = shutil.copytree(corpus.folder, tmp_path / "copy")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {fact: value}))
    with pytest.raises(UserError, match=f"manifest.json: {fact} was changed"):
        Rows(folder, "train")


def test_what_a_named_folder_makes_no_use_of_is_told(corpus):
    manifest = read_manifest(corpus.folder)
    config = CorpusConfig(prepared="it", source="nothere.txt", lowercase=False, held_out=0.3)
    told = passed_over(config, manifest)
    assert "it is read as it is, not with corpus.source=nothere.txt (it has " in told
    assert "corpus.lowercase=False (it has True)" in told
    assert "held_out" not in told and "tokenizer" not in told
    assert passed_over(config_of(corpus, prepared="it"), manifest) == ""
    assert passed_over(replace(config, prepared=""), manifest) == ""
