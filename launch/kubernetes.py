"""Start a run on Kubernetes: a JobSet, for GKE's TPUs or for GPUs anywhere.

  python -m launch.kubernetes bert-base --image=IMAGE --tpu=tpu-v6e-slice --topology=4x4 -- \\
      python -m bert_jax.pretrain --config=configs/bert.py:base --workdir=gs://BUCKET/base
  python -m launch.kubernetes bert-base --image=IMAGE --gpus=8 --hosts=4 -- python -m ...

It prints the manifest, in JSON, which kubectl takes as it takes YAML; --apply gives it to kubectl.
The cluster needs JobSet (0.6 or newer) and Kubernetes 1.31 or newer. The IMAGE holds bert_jax and
its requirements, and its working folder is the code. On TPUs --cluster=auto is put behind the
command, on GPUs the address of the first pod and the number of each: a pod is a process, and has
all GPUs of its host.

A run that ends with 143 (it got SIGTERM, and has saved), or whose pod Kubernetes takes away, is
started again as a whole, --retries times, and goes on from its checkpoint. A pod that ends with any
other status ends the run; 75 alone says no more than that another pod is gone.
"""

import argparse
import json
import math
from typing import Any

from launch.command import LOST, PREEMPTED, Mistake, Parser, at_least, call, checked, start

_LABEL = "[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
_PORT = 8476  # of process 0, in its own pod: no other program is there
_CONTAINER = "bert-jax"


def main(words: list[str]) -> int:
    options, command = _parse(words)
    text = json.dumps(manifest(options, command), indent=2)
    if not options.apply or options.dry_run:
        print(text)
        return 0
    print(call(["kubectl", "apply", "--filename=-"], stdin=text), end="")
    mine = f"--selector=jobset.sigs.k8s.io/jobset-name={options.name}"
    print(
        f"kubectl logs --namespace={options.namespace} {mine} --prefix --follow "
        f"--max-log-requests={math.prod(_pods(options))}"
    )
    return 0


def manifest(options: argparse.Namespace, command: list[str]) -> dict[str, Any]:
    """The JobSet. Raises Mistake where a value is not what the API takes."""
    name = checked("NAME", options.name, "[a-z]([a-z0-9-]{0,38}[a-z0-9])?", "bert-base")
    slices, hosts = _pods(options)
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": checked("--namespace", options.namespace, _LABEL, "default"),
    }
    if options.tpu:  # a slice gets a node pool of its own
        key = "alpha.jobset.sigs.k8s.io/exclusive-topology"
        metadata["annotations"] = {key: "cloud.google.com/gke-nodepool"}
    job = {
        "parallelism": hosts,
        "completions": hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,  # one pod that fails is a job that fails: no pod is replaced alone
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "Count",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": _CONTAINER,
                        "operator": "NotIn",
                        "values": sorted([LOST, PREEMPTED]),
                    },
                },
            ]
        },
        "template": {"spec": _pod(options, command, name, hosts)},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "failurePolicy": {
                "maxRestarts": options.retries,
                # What no rule names restarts the set: a job whose backoffLimit was exceeded.
                "rules": [
                    {
                        "name": "failed",
                        "action": "FailJobSet",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "replicatedJobs": [
                {"name": "slice", "replicas": slices, "template": {"spec": job}},
            ],
        },
    }


def _pod(options: argparse.Namespace, command: list[str], name: str, hosts: int) -> dict[str, Any]:
    """The pod of one host."""
    index = "JOB_COMPLETION_INDEX"
    annotation = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    container: dict[str, Any] = {
        "name": _CONTAINER,
        "image": checked("--image", options.image or "", "[A-Za-z0-9][A-Za-z0-9._/:@-]{0,400}",
                         "registry/bert_jax:1"),
        # No shell. Kubernetes itself puts in $(NAME), and reads $$ as $.
        "command": [word.replace("$", "$$") for word in command],
        "env": [
            {"name": "PYTHONUNBUFFERED", "value": "1"},
            {"name": index, "valueFrom": {"fieldRef": {"fieldPath": annotation}}},
        ],
    }  # fmt: skip
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": options.grace,
        "containers": [container],
    }
    selector = {}
    if options.tpu:
        container["command"].append("--cluster=auto")
        selector["cloud.google.com/gke-tpu-accelerator"] = options.tpu
        selector["cloud.google.com/gke-tpu-topology"] = options.topology
        resources = {"google.com/tpu": options.chips_per_host}
    else:
        container["command"] += [
            f"--coordinator={name}-slice-0-0.{name}:{_PORT}",
            f"--processes={hosts}",
            f"--process=$({index})",
        ]
        resources = {"nvidia.com/gpu": options.gpus}
        if options.gpu_type:
            kind = checked("--gpu-type", options.gpu_type, _LABEL, "nvidia-h100-80gb")
            selector["cloud.google.com/gke-accelerator"] = kind
        # NCCL's, where the 64 MB that a container has are too few.
        container["volumeMounts"] = [{"name": "shm", "mountPath": "/dev/shm"}]
        pod["volumes"] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    container["resources"] = {"requests": resources, "limits": resources}
    if options.spot:
        selector["cloud.google.com/gke-spot"] = "true"
        pod["tolerations"] = [
            {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true",
             "effect": "NoSchedule"},
        ]  # fmt: skip
    if options.service_account:
        account = checked("--service-account", options.service_account, _LABEL, "trainer")
        pod["serviceAccountName"] = account
    if selector:
        pod["nodeSelector"] = selector
    return pod


def _pods(options: argparse.Namespace) -> tuple[int, int]:
    """Slices, and hosts of each."""
    if bool(options.tpu) == bool(options.gpus):
        raise Mistake("give --tpu=ACCELERATOR and --topology, or --gpus=N and --hosts")
    if options.gpus:
        if options.slices > 1 or options.topology:
            raise Mistake("--slices and --topology are for --tpu; give --hosts for GPUs")
        return 1, options.hosts
    if options.hosts > 1:
        raise Mistake("--hosts is for --gpus; on TPUs the --topology says how many there are")
    checked("--tpu", options.tpu, "tpu[0-9a-z-]{1,40}", "tpu-v5-lite-podslice")
    topology = checked(
        "--topology", options.topology or "", "[1-9][0-9]{0,2}(x[1-9][0-9]{0,2}){1,2}", "4x4"
    )
    chips = math.prod(map(int, topology.split("x")))
    if chips % options.chips_per_host:
        raise Mistake(
            f"--chips-per-host={options.chips_per_host} does not divide the {chips} chips of "
            f"--topology={topology}; see the machine type of the node pool"
        )
    return options.slices, chips // options.chips_per_host


def _parse(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = Parser(__doc__ or "", "launch.kubernetes")
    parser.add_argument("name", metavar="NAME", help="of the JobSet")
    parser.add_argument("--image", help="with bert_jax in it")
    parser.add_argument("--namespace", default="default", help="(default)")
    parser.add_argument("--tpu", help="GKE's label of the accelerator, as tpu-v6e-slice")
    parser.add_argument("--topology", help="of a slice, as 4x4")
    parser.add_argument("--chips-per-host", type=at_least(1), default=4, help="(4)")
    parser.add_argument("--slices", type=at_least(1), default=1, help="how many (1)")
    parser.add_argument("--gpus", type=at_least(1), help="of a host")
    parser.add_argument("--gpu-type", help="GKE's label, as nvidia-h100-80gb")
    parser.add_argument("--hosts", type=at_least(1), default=1, help="with GPUs, how many (1)")
    parser.add_argument("--spot", action="store_true", help="nodes that may be taken away")
    parser.add_argument("--service-account", help="that may read and write the workdir")
    parser.add_argument("--retries", type=at_least(0), default=100, help="see above (100)")
    parser.add_argument(
        "--grace", type=at_least(1), default=120, help="seconds from SIGTERM to SIGKILL (120)"
    )
    parser.add_argument("--apply", action="store_true", help="give it to kubectl")
    parser.add_argument("--dry-run", action="store_true", help="print, whatever else is said")
    return parser.split(words)


if __name__ == "__main__":
    start(main)
