"""Start a run on a Slurm cluster.

  python -m launch.slurm --nodes=4 --tasks-per-node=8 --gpus-per-node=8 --time=12:00:00 -- \\
      .venv/bin/python -m bert_jax.pretrain --config=configs/bert.py:base --workdir=/shared/base

The script it makes is submitted with sbatch; --dry-run prints it. --cluster=auto is put behind the
command: the processes find each other by what Slurm tells them. On GPUs a task has one GPU each.
Submit from a folder that all nodes see, and name a workdir there.

--notice seconds before the time limit, and at preemption, all tasks get SIGTERM: they save and end
with 143. The job is then put into the queue again, --retries times, and goes on from its
checkpoint. Stop one by hand in the same way, without the end of the job:
scancel --signal=TERM JOBID. Every line of the log begins with the number of its task.
"""

import argparse
import shlex

from launch.command import PREEMPTED, Mistake, Parser, at_least, call, checked, start

_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_NAMES = "[A-Za-z0-9][A-Za-z0-9._,-]{0,255}"
_TIME = "[0-9]{1,4}(-[0-9]{1,2}(:[0-9]{2}){0,2}|(:[0-9]{2}){0,2})"


def main(words: list[str]) -> int:
    options, command = _parse(words)
    script = batch_script(options, command)
    if options.dry_run:
        print(script, end="")
        return 0
    job = call(["sbatch", "--parsable"], stdin=script).strip().partition(";")[0]
    print(f"job {job}: its log is {options.log.replace('%j', job)}")
    print(f"stop it, saved: scancel --signal=TERM {job}    give it up: scancel {job}")
    return 0


def batch_script(options: argparse.Namespace, command: list[str]) -> str:
    """What sbatch gets. Raises Mistake where a value could be more than a value."""
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH --{name}={value}" for name, value in directives(options).items()),
        "#SBATCH --requeue",
        "",
        "export PYTHONUNBUFFERED=1",
        # One that has saved must not take down one that still saves: they end by themselves.
        "srun --label --kill-on-bad-exit=0 " + shlex.join([*command, "--cluster=auto"]),
        "status=$?",
        f'if [ "$status" -eq {PREEMPTED} ] && '
        f'[ "${{SLURM_RESTART_COUNT:-0}}" -lt {options.retries} ]; then',
        '    scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        'exit "$status"',
        "",
    ]
    return "\n".join(lines)


def directives(options: argparse.Namespace) -> dict[str, str]:
    """The #SBATCH lines, checked: no value holds a blank, a quote or a line break."""
    given: dict[str, str | None] = {
        "job-name": checked("--name", options.name, _NAME, "bert-base"),
        "nodes": str(options.nodes),
        "ntasks-per-node": str(options.tasks_per_node),
        "time": checked("--time", options.time, _TIME, "12:00:00 or 2-00:00:00"),
        "output": checked("--log", options.log, "[A-Za-z0-9._/%@+=-]{1,512}", "logs/%j.log"),
        "open-mode": "append",
        "signal": f"TERM@{options.notice}",
    }
    for option, pattern, example in (
        ("gpus-per-node", f"({_NAME}:)?[1-9][0-9]*", "8 or h100:8"),
        ("cpus-per-task", "[1-9][0-9]*", "16"),
        ("mem", "[0-9]+[KMGT]?", "200G"),
        ("partition", _NAMES, "gpu"),
        ("account", _NAME, "my-group"),
        ("qos", _NAME, "normal"),
        ("constraint", "[A-Za-z0-9][A-Za-z0-9._&|*-]{0,255}", "a100"),
    ):
        if value := getattr(options, option.replace("-", "_")):
            given[option] = checked(f"--{option}", value, pattern, example)
    if options.notice >= (limit := _seconds(options.time)):
        raise Mistake(
            f"--notice={options.notice}: the job has {limit} seconds (--time={options.time}) and "
            f"would be told to stop at once; give more time or less notice"
        )
    gpus = (options.gpus_per_node or "").rpartition(":")[2]
    if gpus and int(gpus) != options.tasks_per_node:
        raise Mistake(
            f"--tasks-per-node={options.tasks_per_node} --gpus-per-node={options.gpus_per_node}: "
            "JAX gives each task of a Slurm step one GPU; ask for as many tasks as GPUs"
        )
    return {name: value for name, value in given.items() if value is not None}


def _seconds(limit: str) -> int:
    """Of what sbatch takes: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:...]."""
    days, dash, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, minutes, seconds = 0, parts[0], (*parts, 0)[1]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _parse(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = Parser(__doc__ or "", "launch.slurm")
    parser.add_argument("--name", default="bert_jax", help="of the job (bert_jax)")
    parser.add_argument("--nodes", type=at_least(1), default=1, help="how many (1)")
    parser.add_argument(
        "--tasks-per-node", type=at_least(1), default=1, help="processes of a node (1)"
    )
    parser.add_argument("--time", default="24:00:00", help="limit (24:00:00)")
    parser.add_argument("--notice", type=at_least(1), default=120, help="seconds, see above (120)")
    parser.add_argument("--retries", type=at_least(0), default=100, help="after status 143 (100)")
    parser.add_argument("--log", default="slurm-%j.log", help="appended to (slurm-%%j.log)")
    for name in ("gpus-per-node", "cpus-per-task", "mem", "partition", "account", "qos"):
        parser.add_argument(f"--{name}", help="as sbatch has it")
    parser.add_argument("--constraint", help="as sbatch has it")
    parser.add_argument("--dry-run", action="store_true", help="print the script alone")
    return parser.split(words, needed=True)


if __name__ == "__main__":
    start(main)
