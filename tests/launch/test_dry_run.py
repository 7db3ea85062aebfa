"""What would be executed, to the letter; and that no word of a user becomes more than a word."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from bert_jax.training.rendezvous import LOST_STATUS
from launch import command
from tests.launch.cases import CASES, GOLDEN, HOSTILE, launch


@pytest.mark.parametrize("name", CASES)
def test_golden(name):
    done = launch(*CASES[name])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (GOLDEN / f"{name}.txt").read_text()


def test_no_golden_file_is_left_over():
    assert {file.stem for file in GOLDEN.iterdir()} == set(CASES)


def test_local_gives_the_words_as_they_are():
    words = shlex.split((GOLDEN / "local-hostile.txt").read_text())
    assert words[0] == "env" and words[6:-3] == HOSTILE


def test_a_host_of_a_pod_gets_the_words_as_they_are(tmp_path):
    """Through the shell that ssh gives the string to."""
    printed = shlex.split((GOLDEN / "tpu-hostile.txt").read_text())
    string = next(word for word in printed if "remote.py start" in word)
    python3 = tmp_path / "python3"
    python3.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    python3.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", string.removeprefix("--command=")], env=environment, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    expected = ["bert_jax_code/launch/remote.py", "start", "--", *HOSTILE, "--cluster=auto"]
    assert json.loads(done.stdout) == expected
    assert os.listdir(tmp_path) == ["python3"]


@pytest.mark.parametrize(
    "status, restarts, queued", [(0, 0, False), (143, 0, True), (143, 100, False), (1, 0, False)]
)
def test_a_slurm_task_gets_the_words_as_they_are(tmp_path, status, restarts, queued):
    """The script is run by bash, with programs of Slurm that tell what they were called with."""
    for name, end in (("srun", status), ("scontrol", 0)):
        program = tmp_path / name
        program.write_text(
            f"#!{sys.executable}\nimport json, sys\n"
            f"json.dump(sys.argv[1:], open({str(tmp_path / name)!r} + '.json', 'w'))\n"
            f"sys.exit({end})\n"
        )
        program.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "12",
        "SLURM_RESTART_COUNT": str(restarts),
    }
    script = GOLDEN / "slurm-hostile.txt"
    done = subprocess.run(["bash", script], env=environment, cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")
    words = json.loads((tmp_path / "srun.json").read_text())
    assert words == ["--label", "--kill-on-bad-exit=0", *HOSTILE, "--cluster=auto"]
    assert (tmp_path / "scontrol.json").exists() == queued
    if queued:
        assert json.loads((tmp_path / "scontrol.json").read_text()) == ["requeue", "12"]


def test_what_slurm_reads_holds_no_word_of_the_command():
    """sbatch reads directives until the first line that is a command."""
    lines = (GOLDEN / "slurm-hostile.txt").read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    assert all(word not in "\n".join(lines[:first]) for word in ("wrap", "python", "rm -rf"))


def test_a_pod_of_kubernetes_gets_the_words_as_they_are():
    """Kubernetes puts in $(NAME) and reads $$ as $; it has no shell."""
    manifest = json.loads((GOLDEN / "kubernetes-hostile.txt").read_text())
    spec = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    words = spec["containers"][0]["command"]
    assert [word.replace("$$", "$") for word in words[:-3]] == HOSTILE
    assert all("$" not in word.replace("$$", "") for word in words[:-3])


def test_the_statuses_are_those_of_the_programs():
    assert command.LOST == LOST_STATUS


REFUSED = [
    (["local", "--processes=0", "--", "x"], "'0' is not a whole number of 1 or more"),
    (["local", "--processes=2"], "the command to start is missing"),
    (["local", "--proc=2", "--", "x"], "unrecognized arguments: --proc=2"),
    (["local", "x", "--", "x"], "unrecognized arguments: x"),
    (["local", "--", "/no/such/program"], "/no/such/program: cannot be started (No such file"),
    (["local", "--", "/bin/sh/x"], "/bin/sh/x: cannot be started (Not a directory)"),
    (["slurm", "--time=2", "--notice=120", "--", "x"], "the job has 120 seconds"),
    (["slurm", "--time=1:30", "--", "x"], "the job has 90 seconds"),
    (["slurm", "--time=0-1", "--notice=3600", "--", "x"], "the job has 3600 seconds"),
    (["slurm", "--time=1:00:00", "--notice=3600", "--", "x"], "the job has 3600 seconds"),
    (["slurm", "--name=a\n#SBATCH --wrap=id", "--", "x"], "--name="),
    (["slurm", "--log=a b", "--", "x"], "--log='a b'"),
    (["slurm", "--time=1h", "--", "x"], "--time='1h'"),
    (["slurm", "--time=-1", "--", "x"], "--time='-1'"),
    (["slurm", "--partition=a b", "--", "x"], "--partition"),
    (["slurm", "--account=$(id)", "--", "x"], "--account"),
    (["slurm", "--gpus-per-node=8", "--", "x"], "ask for as many tasks as GPUs"),
    (["tpu", "--dry-run", "up", "b", "--zone=us-west4-a"], "the command to start is missing"),
    (["tpu", "up", "Bert", "--zone=us-west4-a", "--", "x"], "NAME='Bert'"),
    (["tpu", "create", "bert;id", "--zone=us-west4-a"], "NAME='bert;id'"),
    (["tpu", "create", "b", "--zone=us-west4-a\n"], "--zone"),
    (["tpu", "create", "b"], "--zone=''"),
    (["tpu", "create", "b", "--zone=us-west4-a", "--type=v5e"], "--type='v5e'"),
    (["tpu", "create", "b", "--zone=us-west4-a", "--type=v9z-8"], "or give its --runtime"),
    (["tpu", "create", "b", "--zone=us-west4-a", "--project=-x"], "--project='-x'"),
    (["tpu", "create", "b", "--zone=us-west4-a", "--spot", "--reserved"], "exclude each other"),
    (["tpu", "logs", "b", "--zone=us-west4-a", "--", "x"], "logs takes no command"),
    (["tpu", "run", "b", "--zone=us-west4-a", "--code=a:b", "--dry-run", "--", "x"], "--code=a:b"),
    (["tpu", "fly", "b"], "invalid choice: 'fly'"),
    (["kubernetes", "b", "--gpus=1", "--image=a b", "--", "x"], "--image='a b'"),
    (["kubernetes", "b_c", "--gpus=1", "--image=a", "--", "x"], "NAME='b_c'"),
    (["kubernetes", "b", "--image=a", "--", "x"], "give --tpu=ACCELERATOR and --topology, or"),
    (["kubernetes", "b", "--image=a", "--tpu=tpu-v6e-slice", "--", "x"], "--topology=''"),
    (
        ["kubernetes", "b", "--image=a", "--tpu=tpu-x", "--topology=2x3", "--", "x"],
        "does not divide the 6 chips",
    ),
    (
        ["kubernetes", "b", "--image=a", "--gpus=1", "--slices=2", "--", "x"],
        "--slices and --topology are for --tpu",
    ),
]


@pytest.mark.parametrize("words, said", REFUSED)
def test_a_mistake_is_one_line(words, said):
    done = launch(*words)
    assert done.returncode == 2 and done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and said in lines[0], done.stderr


@pytest.mark.parametrize("name", ["local", "slurm", "tpu", "kubernetes"])
def test_help_teaches(name):
    done = launch(name, "--help")
    assert done.returncode == 0
    assert f"python -m launch.{name}" in done.stdout and "bert_jax.pretrain" in done.stdout


@pytest.mark.parametrize(
    "words, program",
    [
        (["slurm", "--", "x"], "sbatch"),
        (["tpu", "status", "b", "--zone=us-west4-a"], "gcloud"),
        (["kubernetes", "b", "--image=a", "--gpus=1", "--apply", "--", "x"], "kubectl"),
    ],
)
def test_a_program_that_is_not_there(words, program, tmp_path):
    done = launch(*words, env={**os.environ, "PATH": str(tmp_path)})
    assert (done.returncode, done.stderr) == (
        2, f"error: {program} is not installed here; install it, or use --dry-run\n",
    )  # fmt: skip
