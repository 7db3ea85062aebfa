"""Real processes of prepare, killed and starved: in the end there is what one run writes."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests import tiny
from tests.data.test_prepare import assert_same_folders

ROOT = Path(__file__).parents[2]


def command(corpus, output, workers=1, kind="never", count=1, held_out=0.3):
    return [
        sys.executable, "-m", "tests.data.killed_prepare", str(corpus.text), str(output),
        str(workers), kind, str(count), str(held_out),
    ]  # fmt: skip


def run(*arguments, held_out=0.3, **kwargs):
    return subprocess.run(
        command(*arguments, held_out=held_out),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        **kwargs,
    )


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_change_nothing(corpus, tmp_path, workers):
    done = run(corpus, tmp_path / "prepared", workers)
    assert done.returncode == 0, done.stderr
    assert_same_folders(tmp_path / "prepared", corpus.folder)
    assert [path.name for path in tmp_path.iterdir()] == ["prepared"]


def test_killed_again_and_again(corpus, tmp_path):
    """While it samples, trains, tokenizes (with other numbers of workers) and writes."""
    output = tmp_path / "prepared"
    moments = [
        (1, "sampling", 10), (1, "training", 9), (1, "tokenizing", 1), (2, "tokenizing", 5),
        (3, "tokenizing", 8), (2, "writing", 1), (1, "writing", 6),
    ]  # fmt: skip
    for moment in moments:
        done = run(corpus, output, *moment)
        assert done.returncode == -signal.SIGKILL, (moment, done.stderr)
        assert not output.exists()
        orphans = list(map(int, done.stdout.split()))
        assert bool(orphans) == (moment[0] > 1 and moment[1] == "tokenizing")
        deadline = time.monotonic() + 60
        while any(map(running, orphans)):
            assert time.monotonic() < deadline, "a worker outlived its parent"
            time.sleep(0.05)
    assert run(corpus, output, 2).returncode == 0
    assert_same_folders(output, corpus.folder)
    assert list(tmp_path.iterdir()) == [output]


def running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_worker_that_outlives_its_parent_writes_into_no_other_work(corpus, tmp_path):
    """Stopped with its chunk before it, and woken when another config was begun meanwhile."""
    output, alone = tmp_path / "prepared", tmp_path / "alone"
    script = """
import os, signal, sys, psutil
from bert_jax.data import parts, workers
send = workers._send
def deadly(connection, message):
    (child,) = psutil.Process().children()
    child.suspend()
    send(connection, message)
    if isinstance(message, parts.Chunk):
        print(child.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
workers._send = deadly
sys.argv[0] = "killed"
import tests.data.killed_prepare
"""
    killed = subprocess.Popen(
        [sys.executable, "-c", script, *command(corpus, output, 2)[3:]],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    orphan = psutil.Process(int(killed.stdout.readline()))
    assert killed.wait(60) == -signal.SIGKILL
    try:
        other = subprocess.Popen(
            command(corpus, output, held_out=0.2), stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert other.stdout.readline().startswith("waiting")
        assert other.poll() is None and orphan.status() == psutil.STATUS_STOPPED
    finally:
        orphan.resume()
    assert other.wait(60) == 0 and not running(orphan.pid)
    assert run(corpus, alone, held_out=0.2).returncode == 0
    assert_same_folders(output, alone)


def test_a_worker_that_is_killed_is_told(corpus, tmp_path):
    script = """
import sys, psutil
from bert_jax.data import parts, workers
send = workers._send
def deadly(connection, message):
    for child in psutil.Process().children():
        child.kill()
        child.wait()
    send(connection, message)
workers._send = deadly
sys.argv[0] = "killed"
import tests.data.killed_prepare
"""
    arguments = command(corpus, tmp_path / "prepared", 2)[3:]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1 and "a worker process was killed" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert run(corpus, tmp_path / "prepared", 2).returncode == 0
    assert_same_folders(tmp_path / "prepared", corpus.folder)


def test_two_at_once_do_the_work_once(corpus, tmp_path):
    arguments = command(corpus, tmp_path / "prepared")
    both = [subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(2)]
    told = [process.communicate()[1].decode() for process in both]
    assert sorted(process.returncode for process in both) in ([0, 0], [0, 1]), told
    assert all("exists already" in words for words in told if words), told
    assert_same_folders(tmp_path / "prepared", corpus.folder)


@pytest.mark.parametrize("kilobytes", [1, 16, 40])
def test_a_full_disk(tmp_path, kilobytes):
    """No file may grow beyond so much: the tokenizer, a part or the rows cannot be written."""
    output, text = tmp_path / "prepared", tiny.write_text(tmp_path / "text.txt", 60)
    arguments = [
        sys.executable, "-m", "bert_jax.prepare", "--config=configs/bert.py:tiny",
        f"--output={output}", f"--config.corpus.source={text}", "--workers=1",
        *tiny.OVERRIDES, "--config.corpus.tokenizer=wordpiece",
    ]  # fmt: skip

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes << 10, kilobytes << 10))

    def start(**kwargs):
        return subprocess.run(
            arguments, capture_output=True, text=True, cwd=ROOT, timeout=300,
            # Where files are kept short Python would cache half a module.
            env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONDONTWRITEBYTECODE": "1"}, **kwargs,
        )  # fmt: skip

    done = start(preexec_fn=small_disk)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and "make room" in line
    assert not output.exists()
    assert start().returncode == 0
    assert (output / "manifest.json").exists()
