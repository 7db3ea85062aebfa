"""What the launchers print with --dry-run, as it stands in golden/. Written anew, to be read before
it is committed, by python -m tests.launch.cases."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"

PRETRAIN = ["python", "-m", "bert_jax.pretrain", "--config=configs/bert.py:base"]
# What must arrive as it is, whatever shell, file or API it goes through.
HOSTILE = [
    "python", "-c", "two words", "", "'", '"', "it's \"so\"", "; rm -rf ~", "$(touch /tmp/x)",
    "`id`", "${HOME}", "$$", "a\nb\n#SBATCH --wrap=x\n", "\t", "näïve ☃", "--", "--help", "-x",
    "*", "~", "\\", "%j", "!!", "&& false", "|", ">x", "a=b",
]  # fmt: skip

_TPU = ["bert-base", "--zone=us-west4-a", "--dry-run"]
_POD = [*_TPU, "--spot", "--slices=2", "--project=my-lab-1", "--type=v6e-16"]
_GKE = ["bert-base", "--image=us-docker.pkg.dev/my-lab/images/bert_jax:1", "--dry-run"]

CASES: dict[str, list[str]] = {
    "local": ["local", "--processes=3", "--devices=2", "--dry-run", "--", *PRETRAIN],
    "local-hostile": ["local", "--processes=1", "--dry-run", "--", *HOSTILE],
    "slurm": ["slurm", "--nodes=2", "--dry-run", "--", *PRETRAIN],
    "slurm-gpus": [
        "slurm", "--nodes=4", "--tasks-per-node=8", "--gpus-per-node=h100:8", "--partition=gpu,big",
        "--account=lab", "--qos=high", "--mem=200G", "--cpus-per-task=12", "--time=2-00:00:00",
        "--constraint=h100&nvlink", "--notice=300", "--retries=7", "--log=logs/%x-%j.log",
        "--name=bert-base", "--dry-run", "--", *PRETRAIN,
    ],
    "slurm-hostile": ["slurm", "--dry-run", "--", *HOSTILE],
    **{
        f"tpu-{verb}": ["tpu", verb, *_TPU, "--", *PRETRAIN] for verb in ("up", "run", "recover")
    },
    **{
        f"tpu-{verb}": ["tpu", verb, *_TPU]
        for verb in ("create", "logs", "status", "stop", "delete")
    },
    "tpu-slices": ["tpu", "up", *_POD, "--keep", "--", *PRETRAIN],
    "tpu-reserved": [
        "tpu", "create", *_TPU, "--reserved", "--internal-ip", "--runtime=v2-alpha-tpuv5-new",
        "--type=v5p-128",
    ],
    "tpu-hostile": ["tpu", "run", *_TPU, "--", *HOSTILE],
    "kubernetes-tpu": [
        "kubernetes", *_GKE, "--tpu=tpu-v5-lite-podslice", "--topology=4x4", "--", *PRETRAIN,
    ],
    "kubernetes-slices": [
        "kubernetes", *_GKE, "--tpu=tpu-v6e-slice", "--topology=4x4", "--slices=2", "--spot",
        "--namespace=train", "--service-account=trainer", "--retries=5", "--grace=60", "--apply",
        "--", *PRETRAIN,
    ],
    "kubernetes-gpu": [
        "kubernetes", *_GKE, "--gpus=8", "--hosts=4", "--gpu-type=nvidia-h100-80gb", "--",
        *PRETRAIN,
    ],
    "kubernetes-hostile": ["kubernetes", *_GKE, "--gpus=1", "--", *HOSTILE],
}  # fmt: skip


def launch(*words: str, **kwargs) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"launch.{words[0]}", *words[1:]],
        cwd=ROOT, capture_output=True, text=True, timeout=120, **kwargs,
    )  # fmt: skip


if __name__ == "__main__":
    for name, words in CASES.items():
        done = launch(*words)
        assert done.returncode == 0, done.stderr
        (GOLDEN / f"{name}.txt").write_text(done.stdout)
