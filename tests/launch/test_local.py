"""launch.local with real processes: small Python programs, and one run that sums over devices."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from launch.local import End, verdict
from tests.launch.cases import HOSTILE, ROOT, launch

# What each process does, by its number: --coordinator=..., --processes=..., --process=I come last.
ME = "import json, os, signal, sys, time; me = int(sys.argv[-1].partition('=')[2]); "


def local(program, *options):
    return launch("local", *options, "--", sys.executable, "-c", ME + program)


def test_words_and_environment_arrive_as_they_are():
    names = ["JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES", "JAX_CPU_COLLECTIVES_IMPLEMENTATION"]
    program = (
        f"import json, os, sys; print(json.dumps([sys.argv[1:], [os.environ[n] for n in {names}]]))"
    )
    words = [sys.executable, "-c", program, *HOSTILE]
    done = launch("local", "--processes=2", "--devices=3", "--", *words)
    assert done.returncode == 0, done.stderr
    heard = dict(line.split("] ", 1) for line in done.stdout.splitlines())
    ports = set()
    for number in (0, 1):
        words, environment = json.loads(heard[f"[{number}"])
        assert words[:-3] == HOSTILE
        assert words[-2:] == ["--processes=2", f"--process={number}"]
        assert environment == ["cpu", "3", "gloo"]
        ports.add(words[-3])
    assert len(ports) == 1 and ports.pop().startswith("--coordinator=127.0.0.1:")


def test_lines_keep_their_order_and_tell_their_process():
    done = local(
        "sys.stdout.write(''.join(f'{i}\\n' for i in range(5000)))\n"
        "sys.stderr.write('half'); sys.stderr.flush(); time.sleep(0.1)\n"
        "sys.stderr.write(' a line\\rover\\n\\nno end')",
        "--processes=3",
    )
    assert done.returncode == 0
    for number in range(3):
        mine = [
            line.removeprefix(f"[{number}] ")
            for line in done.stdout.splitlines()
            if line.startswith(f"[{number}] ")
        ]
        assert mine == [*map(str, range(5000)), "half a line", "over", "no end"]
    assert len(done.stdout.splitlines()) == 3 * 5003


@pytest.mark.parametrize(
    "program, status, said",
    [
        ("sys.exit(3 * (me == 1))", 3, "process 1 failed first, with status 3"),
        (
            "time.sleep(99 * (me != 1)); os.kill(os.getpid(), 9)",
            137,
            "process 1 was killed by S",
        ),
        ("sys.exit(7) if me == 2 else time.sleep(99)", 7, "process 2 failed first, with status 7"),
        ("time.sleep(me); sys.exit(75 if me < 2 else 1)", 1, "process 2 failed first, with status"),
        ("sys.exit(143)", 143, "all processes were told to stop and have saved"),
        ("sys.exit(143 * (me == 1))", 1, "some ended their work and [1] with 143"),
    ],
)
def test_the_status_of_the_run(program, status, said):
    began = time.monotonic()
    done = local(program, "--processes=3", "--grace=3")
    assert done.returncode == status and said in done.stderr
    assert time.monotonic() - began < 10


def test_the_rest_gets_sigterm_and_then_sigkill():
    done = local(
        "signal.signal(15, lambda *_: print('heard it'))\n"
        "if me == 0: time.sleep(0.5); sys.exit(4)\n"
        "for _ in range(99): time.sleep(1)",
        "--processes=2", "--grace=1",
    )  # fmt: skip
    assert done.returncode == 4 and done.stdout == "[1] heard it\n"


def test_143_alone_is_tried_again(tmp_path):
    program = f"open({str(tmp_path)!r} + f'/{{me}}', 'a').write('x'); sys.exit(%s)"
    assert local(program % "143", "--processes=2", "--retries=2").returncode == 143
    assert [(tmp_path / str(number)).read_text() for number in (0, 1)] == ["xxx", "xxx"]
    assert local(program % "1", "--processes=2", "--retries=2").returncode == 1
    assert len((tmp_path / "0").read_text()) == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_goes_to_all_and_ends_the_retries(number):
    program = (
        "signal.signal(15, lambda *_: sys.exit(143)); signal.signal(2, lambda *_: sys.exit(143))\n"
        "print('ready'); time.sleep(60)"
    )
    words = [sys.executable, "-m", "launch.local", "--processes=3", "--retries=5", "--"]
    run = subprocess.Popen(
        [*words, sys.executable, "-c", ME + program],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert sorted(run.stdout.readline() for _ in range(3)) == [f"[{n}] ready\n" for n in range(3)]
    run.send_signal(number)
    errors = run.communicate(timeout=30)[1]
    assert run.returncode == 143 and "again" not in errors


def test_the_second_signal_kills():
    program = "signal.signal(15, lambda *_: print('no')); print('ready')\nwhile 1: time.sleep(1)"
    run = subprocess.Popen(
        [sys.executable, "-m", "launch.local", "--", sys.executable, "-c", ME + program],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert {run.stdout.readline() for _ in range(2)} == {"[0] ready\n", "[1] ready\n"}
    run.send_signal(signal.SIGTERM)
    assert {run.stdout.readline() for _ in range(2)} == {"[0] no\n", "[1] no\n"}
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=30)
    assert run.returncode == 137


def test_verdict_names_the_cause_and_not_who_noticed():
    ends = [End(0, 75), End(2, 75), End(1, -9)]
    assert verdict(ends) == (137, "process 1 was killed by SIGKILL, and with it the run ended")
    assert verdict([End(0, 75), End(1, 75)])[0] == 75
    assert verdict([End(0, 143), End(1, 1)])[0] == 1
    assert verdict([End(0, 0), End(1, 0)]) == (0, "")


def test_processes_of_a_run_meet_and_sum():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = launch(
        "local", "--processes=2", "--devices=3", "--",
        sys.executable, "-m", "tests.training.ring", "--rounds=3", env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for number in (0, 1):
        assert f"[{number}] process {number} of 2 sums 6" in lines
        assert f"[{number}] done" in lines
