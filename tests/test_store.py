"""Folders in gs://: what a store has not is made good, and what goes wrong is one line."""

import http.server
import json
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from bert_jax import config as configs
from bert_jax.data.fetch import fetched
from bert_jax.data.prepare import cached
from bert_jax.data.records import MANIFEST, Rows
from bert_jax.data.tokenizers import load_tokenizer
from bert_jax.errors import UserError
from bert_jax.files import append_line, lock
from bert_jax.store import local_copy, objects, reach, upload
from bert_jax.training.metrics import MetricsWriter, read_metrics
from tests import tiny
from tests.test_programs import refused, start

STEPS = [f"--config.train.{s}" for s in ("steps=4", "save_every=2", "eval_every=4")]


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def prepared(corpus, bucket):
    """The corpus as it is in the store."""
    folder = reach(f"{bucket}/prepared")
    upload(corpus.folder, folder, MANIFEST, quiet)
    return corpus._replace(folder=folder)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bert_jax"


@pytest.fixture
def workdir(bucket, request):
    return there(bucket, request)


def there(bucket, request):
    """A folder of this test's own."""
    return reach(f"{bucket}/{request.node.name.translate(str.maketrans('[]', '--'))}")


def contents(folder):
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {os.fspath(p.relative_to(folder)): p.read_bytes() for p in paths}


def steps(workdir):
    return [record["step"] for record in read_metrics(workdir)]


def write(workdir, begin, end, sync=()):
    writer = MetricsWriter(workdir, [r for r in read_metrics(workdir) if r["step"] <= begin])
    for step in range(begin + 1, end + 1):
        writer.write({"step": step, "loss": 1 / step, "mfu": None})
        if step in sync:
            writer.sync()
    return writer


def test_metrics_are_there_when_they_are_synced(workdir):
    write(workdir, 0, 5, sync=(2, 4))
    assert [r["loss"] for r in read_metrics(workdir)] == [1 / s for s in range(1, 5)]
    segments = [name for name in objects(workdir) if name.startswith("metrics/")]
    assert segments == ["metrics/0000000002.jsonl", "metrics/0000000004.jsonl"]


@pytest.mark.parametrize("restored", [0, 2, 3, 4])
def test_a_restart_cuts_segments(workdir, restored):
    write(workdir, 0, 4, sync=(2, 4))
    writer = write(workdir, restored, 6, sync=(6,))
    assert steps(workdir) == [1, 2, 3, 4, 5, 6]
    writer.close()
    assert steps(workdir) == [1, 2, 3, 4, 5, 6]
    events = [name for name in objects(workdir) if name != "metrics.jsonl"]
    assert len(events) == 1 and (workdir / events[0]).read_bytes().count(b"loss") == 6


def test_killed_while_metrics_are_put_together(workdir, monkeypatch):
    """Between the writing of metrics.jsonl and the end of the segments, at any object."""
    write(workdir, 0, 6, sync=(2, 4, 6))
    before = {name: (workdir / name).read_bytes() for name in objects(workdir)}
    kind = type(workdir)
    unlink = kind.unlink
    for alive, last in enumerate((6, 4, 3)):
        left = alive

        def dying(path, *_):
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            unlink(path)

        for name, content in before.items():
            (workdir / name).write_bytes(content)
        monkeypatch.setattr(kind, "unlink", dying)
        with pytest.raises(KeyboardInterrupt):
            MetricsWriter(workdir, read_metrics(workdir)[:3])
        monkeypatch.setattr(kind, "unlink", unlink)
        assert steps(workdir) == list(range(1, last + 1))  # a beginning, without a gap
        write(workdir, 3, 4).close()
        assert steps(workdir) == [1, 2, 3, 4]


def test_the_process_that_starts_last_has_the_workdir(workdir, capsys):
    first = lock(workdir)
    first.check()
    assert capsys.readouterr().out == ""
    second = lock(workdir)
    assert f"process {os.getpid()} on " in capsys.readouterr().out
    second.check()
    with pytest.raises(UserError, match="has begun to train here since"):
        first.check()
    first.close()
    second.check()
    second.close()
    assert objects(workdir) == {}


def test_a_line_more(workdir):
    for line in ("one", "two"):
        append_line(workdir / "lines", line)
    assert (workdir / "lines").read_text() == "one\ntwo\n"


def test_a_corpus_is_fetched_once(corpus, prepared, cache):
    told = []
    folder = fetched(prepared.folder, lambda *numbers: told.append(numbers))
    whole = sum(map(len, contents(corpus.folder).values()))
    assert told[-1][1] == told[-1][3] == whole - (corpus.folder / MANIFEST).stat().st_size
    assert contents(folder) == contents(corpus.folder)
    told.clear()
    assert fetched(prepared.folder, lambda *numbers: told.append(numbers)) == folder
    assert told == [] and [path.name for path in cache.iterdir()] == [folder.name]


def test_a_fetch_goes_on_where_it_was_killed(corpus, prepared, cache):
    folder = fetched(prepared.folder, quiet)
    partial = folder.with_name(f".{folder.name}.partial")
    folder.rename(partial)
    (partial / MANIFEST).unlink()
    kept, cut, changed = partial / "train-lengths.npy", partial / "unigram.npy", partial / "a.tmp"
    before = kept.stat().st_mtime_ns
    cut.write_bytes(cut.read_bytes()[:-1])
    changed.touch()
    flipped = partial / "tokenizer" / "tokenizer.model"
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"?")
    assert fetched(prepared.folder, quiet) == folder
    assert (folder / kept.name).stat().st_mtime_ns == before
    assert contents(folder) == contents(corpus.folder) | {"a.tmp": b""}
    assert len(Rows(folder, "train")) == len(Rows(corpus.folder, "train"))


@pytest.mark.parametrize("missing", ["manifest.json", "rows-train.array_record-00000-of-00001"])
def test_half_a_corpus_is_refused(prepared, bucket, cache, missing, request):
    folder = there(bucket, request)
    upload(prepared_copy(cache, prepared, missing), folder, "unigram.npy", quiet)
    with pytest.raises(UserError, match="not a prepared corpus|is not whole"):
        fetched(folder, quiet)


def prepared_copy(cache, prepared, missing):
    copy = fetched(prepared.folder, quiet).rename(cache / "copy")
    (copy / missing).unlink()
    return copy


def test_prepare_into_a_store(tmp_path, bucket, cache):
    text = tiny.write_text(tmp_path / "text.txt")
    arguments = ["--config=configs/bert.py:tiny", f"--config.corpus.source={text}", *tiny.OVERRIDES]
    output = f"{bucket}/from-prepare"
    done = start("prepare", *arguments, f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert f"MB of text prepared in {output}" in done.stdout
    start("prepare", *arguments, f"--output={tmp_path / 'local'}")
    assert contents(fetched(reach(output), quiet)) == contents(tmp_path / "local")
    refused(start("prepare", *arguments, f"--output={output}"), "exists already")
    shown = start("prepare", f"--inspect={output}", "--n=1", *arguments)
    assert "masked" in shown.stdout, shown.stderr


def test_use_a_run_in_a_store(prepared, bucket, tmp_path, cache):
    """predict, convert, --init and corpus.tokenizer, from there and to there."""
    run, model = f"{bucket}/run", f"{bucket}/model"
    done = pretrain_there(run, prepared)
    assert done.returncode == 0, done.stderr
    config = configs.load(reach(run))
    assert config.corpus.prepared == f"{bucket}/prepared"
    with pytest.raises(UserError, match="begun with seed=0"):
        configs.check_goes_on(replace(config, seed=1), reach(run), 0)
    assert (reach(run) / "curve.png").read_bytes()[1:4] == b"PNG"
    done = start("convert", f"--model={run}", f"--output={model}")
    assert done.returncode == 0, done.stderr
    refused(start("convert", f"--model={run}", f"--output={model}"), "exists already")
    answers = [
        start("predict", "fill-mask", f"--model={name}", "the [MASK] on table.").stdout
        for name in (run, model)
    ]
    assert answers[0] == answers[1] and len(json.loads(answers[0])["masks"][0]) == 5

    done = pretrain_there(f"{bucket}/more", prepared, f"--init={model}")
    assert f"begins from {model}" in done.stdout, done.stderr
    tokenizer = load_tokenizer(reach(model))
    text = tiny.write_text(tmp_path / "text.txt")
    config = tiny.CorpusConfig(source=str(text), held_out=0.3, tokenizer=run)
    assert load_tokenizer(cached(config, tiny.VOCAB, quiet) / "tokenizer").vocab_size == (
        tokenizer.vocab_size
    )


def pretrain_there(workdir, corpus, *arguments):
    return start(
        "pretrain", "--config=configs/bert.py:tiny", f"--workdir={workdir}",
        f"--config.corpus.prepared={corpus.folder}", "--config.model.dtype=float32",
        *tiny.OVERRIDES, *STEPS, *arguments,
    )  # fmt: skip


def test_what_is_wrong_with_a_model_names_the_store(bucket, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    folder = reach(f"{bucket}/pickled")
    upload(tmp_path, folder, "config.json", quiet)
    done = start("predict", "fill-mask", f"--model={folder}", "a [MASK]")
    refused(done, f"{folder}: its weights are a pickle")
    with local_copy(folder) as local:
        assert (local / "pytorch_model.bin").stat().st_size == 0  # nothing of it is fetched


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gs://nobody/run", "there is no bucket nobody"),
        ("gs://bucket", "gs://BUCKET/FOLDER"),
        ("gs:///run", "gs://BUCKET/FOLDER"),
        ("gs://bucket/a*", "gs://BUCKET/FOLDER"),
        ("s3://bucket/run", "gs://BUCKET/FOLDER"),
    ],
)
def test_bad_names(name, said, bucket):
    with pytest.raises(UserError, match=said):
        reach(name)


def test_programs_name_what_is_not_there(bucket, corpus):
    arguments = ["--config=configs/bert.py:tiny", *tiny.OVERRIDES]
    refused(start("pretrain", *arguments, "--workdir=gs://nobody/run"), "no bucket nobody")
    refused(start("predict", "fill-mask", f"--model={bucket}/none", "x"), f"{bucket}/none: no such")
    refused(
        start("prepare", *arguments, "--output=x", f"--config.corpus.source={bucket}/*.txt.gz"),
        "texts are read from this machine",
    )
    refused(
        start("pretrain", *arguments, "--workdir=x", f"--config.corpus.prepared={bucket}/none"),
        f"{bucket}/none: not a prepared corpus",
    )


def test_no_network(bucket, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    done = start("predict", "fill-mask", "--model=gs://bucket/run", "x", timeout=30)
    refused(done, "gs://bucket/run: the store at 127.0.0.1:1 cannot be reached")


def test_no_credentials(bucket, monkeypatch):
    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(401)
            self.end_headers()
            self.wfile.write(b'{"error": {"code": 401, "message": "Anonymous caller"}}')

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
        done = start("predict", "fill-mask", "--model=gs://bucket/run", "x", timeout=60)
        server.shutdown()
    refused(done, "the store refused (Anonymous caller", "gcloud auth")


def test_no_gcsfs(bucket, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match="pip install -r requirements-gcs.txt"):
        reach(f"{bucket}/never-reached")


def test_a_tilde_that_the_shell_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert reach("~/prepared/one") == tmp_path / "prepared" / "one"
