"""Real processes meet, work together, and end together."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bert_jax.errors import UserError
from bert_jax.training.distributed import initialize
from bert_jax.training.rendezvous import LOST_STATUS

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def port():
    """Kept from all other programs while the test runs: bound, and not listening."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


@pytest.fixture
def begin():
    """Starts a module of tests/training; whatever is left of it is killed."""
    begun = []

    def begin(module, *arguments):
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        begun.append(
            subprocess.Popen(
                [sys.executable, "-m", f"tests.training.{module}", *map(str, arguments)],
                env=environment,
                cwd=ROOT,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )  # fmt: skip
        )
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def said(process, timeout=30):
    """Status and what it wrote to stderr."""
    errors = process.communicate(timeout=timeout)[1]
    return process.returncode, errors


def test_those_who_did_not_come_are_named_to_all_who_did(begin, port):
    there = [begin("meeting", port, 5, number, 2, "stay") for number in (0, 3)]
    for process in there:
        status, errors = said(process)
        assert status == 2
        assert errors.startswith("process 1, 2 and 4 of 5 did not come within 2 s"), errors
        assert "process 3 (host " in errors and len(errors.splitlines()) == 1


def test_a_process_that_came_and_died_is_missing_again(begin, port):
    gone = begin("meeting", port, 3, 2, 30, "stay")
    root = begin("meeting", port, 3, 0, 4, "stay")
    time.sleep(1.5)
    gone.kill()
    again = begin("meeting", port, 3, 2, 30, "stay")
    status, errors = said(root)
    assert status == 2 and "process 1 of 3 did not come" in errors
    assert f"There: process 2 (host {socket.gethostname()}, pid {again.pid})" in errors


def test_no_process_0(begin, port):
    status, errors = said(begin("meeting", port, 2, 1, 1, "stay"))
    assert status == 2
    assert f"process 0, the coordinator, was not found at 127.0.0.1:{port} within 1 s" in errors


def test_two_of_one_number(begin, port):
    there = [begin("meeting", port, 4, number, 20, "stay") for number in (0, 2, 2)]
    pids = sorted(process.pid for process in there[1:])
    for process in there:
        status, errors = said(process)
        assert status == 2 and "two processes have number 2" in errors
        assert sorted(map(int, re.findall(r"pid (\d+)", errors))) == pids


def test_two_processes_0_on_one_machine(begin, port):
    first = begin("meeting", port, 2, 0, 20, "stay")
    for _ in range(100):
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                break
        time.sleep(0.1)
    status, errors = said(begin("meeting", port, 2, 0, 20, "stay"))
    assert status == 2 and "process 0 cannot listen there (Address already in use)" in errors
    assert first.poll() is None


def test_counts_that_differ(begin, port):
    there = [begin("meeting", port, 3, 0, 20, "stay"), begin("meeting", port, 4, 1, 20, "stay")]
    for process in there:
        status, errors = said(process)
        assert status == 2 and "counts 4 processes and process 0 counts 3" in errors


def test_a_stranger_at_the_port_does_no_harm(begin, port):
    root = begin("meeting", port, 2, 0, 20, "leave")
    for words in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 9000, b'{"hello": "bert_jax"}\n', b"[1]\n"):
        for _ in range(50):
            try:
                with socket.create_connection(("127.0.0.1", port)) as stranger:
                    stranger.sendall(words)
                    stranger.settimeout(5)
                    assert stranger.recv(10) == b""
                break
            except ConnectionResetError:
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        else:
            pytest.fail("process 0 never listened")
    assert said(begin("meeting", port, 2, 1, 20, "leave"))[0] == 0
    assert said(root)[0] == 0


@pytest.mark.parametrize("victim", [0, 2])
def test_the_death_of_one_ends_the_others_at_once(begin, port, victim):
    there = [
        begin("meeting", port, 3, number, 20, "die" if number == victim else "stay")
        for number in range(3)
    ]
    assert [process.stdout.readline() for process in there] == ["met\n"] * 3
    began = time.monotonic()
    there[victim].stdin.write("\n")
    there[victim].stdin.flush()
    for number, process in enumerate(there):
        status, errors = said(process)
        if number != victim:
            assert status == LOST_STATUS
            assert re.fullmatch(rf"error: process {victim} \(.*\n", errors), errors
    assert time.monotonic() - began < 5


def test_one_may_end_before_another(begin, port):
    there = [begin("meeting", port, 3, number, 20, "leave") for number in range(2)]
    last = begin("meeting", port, 3, 2, 20, "stay")
    assert [said(process) for process in there] == [(0, ""), (0, "")]
    time.sleep(0.5)
    assert last.poll() is None


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("none", "a:1", 0, -1), "give all three"),
        (("none", "", 2, 0), "give all three"),
        (("none", "a:1", 2, 2), "from 0 to one less"),
        (("none", "a b:1", 2, 0), "HOST:PORT"),
        (("none", "a:0", 2, 0), "HOST:PORT"),
        (("none", "a", 2, 0), "HOST:PORT"),
        (("some", "", 0, -1), "none or auto"),
        (("auto", "", 0, -1), "no TPU metadata, Slurm step, MPI or Kubernetes job"),
    ],
)
def test_wrong_words(arguments, words):
    with pytest.raises(UserError, match=words):
        initialize(*arguments, 1)


def test_alone_nothing_is_done():
    initialize("none", "", 0, -1, 1)


def ring(begin, port, *arguments, processes=2):
    there = [
        begin(
            "ring", f"--coordinator=127.0.0.1:{port}", f"--processes={processes}",
            f"--process={number}", *arguments,
        )
        for number in range(processes)
    ]  # fmt: skip
    for number, process in enumerate(there):
        for line in process.stdout:
            if "sums" in line:
                assert line == f"process {number} of {processes} sums {processes}\n"
                break
        else:
            pytest.fail(process.stderr.read())
    return there


@pytest.mark.parametrize("victim", [0, 1])
def test_kill_9_in_a_loop_of_collectives(begin, port, victim):
    there = ring(begin, port, processes=3)
    began = time.monotonic()
    there[victim].send_signal(signal.SIGKILL)
    for number, process in enumerate(there):
        status, errors = said(process, 60)
        if number != victim and victim:
            assert status == LOST_STATUS
            assert errors.startswith("error: process 1 (host "), errors
            assert len(errors.splitlines()) == 1, errors
        elif number != victim:  # JAX's own client notices too, and may be the first to end it
            assert status in (LOST_STATUS, -signal.SIGABRT)
            assert status == -signal.SIGABRT or "error: process 0 (127.0.0.1" in errors
    assert time.monotonic() - began < 20


def test_one_that_hangs_is_noticed_by_its_heartbeat(begin, port):
    there = ring(begin, port, "--hang=1:20", "--heartbeat=6")
    status, errors = said(there[0])
    assert status == -signal.SIGABRT and "stopped sending heartbeats" in errors


@pytest.mark.parametrize("victim", [0, 1])
def test_an_exception_in_one_ends_all(begin, port, victim):
    there = ring(begin, port, f"--fail={victim}:20")
    status, errors = said(there[victim])
    assert status == 1 and errors.endswith(f"ArithmeticError: made to fail in process {victim}\n")
    status, errors = said(there[1 - victim])
    assert status == LOST_STATUS and len(errors.splitlines()) == 1, errors
    assert errors.startswith(f"error: process {victim} (host ")


@pytest.mark.parametrize(
    "arguments, status", [(["--rounds=9", "--linger=2"], 0), (["--leave=9"], 143)]
)
def test_an_end_in_order(begin, port, arguments, status):
    for process in ring(begin, port, *arguments):
        assert said(process) == (status, "")


def test_pretrain_touches_no_backend_before_the_processes_have_met():
    """JAX refuses to connect processes afterwards. It is started as one of two, alone."""
    program = (
        "import sys; from bert_jax import cli, pretrain\n"
        "from jax._src import xla_bridge\n"
        "sys.argv[1:] = ['--config=configs/bert.py:tiny', '--workdir=/nowhere', "
        "'--coordinator=127.0.0.1:1', '--processes=2', '--process=1', '--startup_timeout=1']\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "cli.run(pretrain.main, '')"
    )
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: process 0, the coordinator, was not found"), done.stderr
