"""The commands of launch.tpu: a Cloud TPU pod, and what is done with it, as argument lists.

gcloud takes what is to be run on the hosts as one string, which a shell reads there: it is built
by shlex.join alone, from the words of one command.
"""

import argparse
import re
import shlex
from dataclasses import dataclass

from launch.command import Mistake, checked

# The vendor's table, by the beginning of the type: docs.cloud.google.com/tpu/docs/runtimes
_RUNTIMES = {
    "v6e-": "v2-alpha-tpuv6e",
    "v5p-": "v2-alpha-tpuv5",
    "v5litepod-": "v2-alpha-tpuv5-lite",
    "v4-": "tpu-ubuntu2204-base",
    "v3-": "tpu-ubuntu2204-base",
    "v2-": "tpu-ubuntu2204-base",
}
_NAME = "[a-z]([a-z0-9-]{0,48}[a-z0-9])?"
_CODE, _ARCHIVE = "bert_jax_code", "bert_jax_code.tar.gz"  # in the home folder of each host


@dataclass(frozen=True)
class Pod:
    """A queued resource of one slice or several."""

    name: str
    zone: str
    project: str
    accelerator: str
    runtime: str
    slices: int
    spot: bool
    reserved: bool
    internal: bool

    @property
    def nodes(self) -> list[str]:
        if self.slices == 1:
            return [self.name]
        return [f"{self.name}-{number}" for number in range(self.slices)]

    def create(self) -> list[str]:
        several = [f"--node-count={self.slices}", f"--node-prefix={self.name}"]
        return [
            *self._gcloud("queued-resources", "create"),
            self.name,
            f"--accelerator-type={self.accelerator}",
            f"--runtime-version={self.runtime}",
            *([f"--node-id={self.name}"] if self.slices == 1 else several),
            *(["--spot"] if self.spot else []),
            *(["--reserved"] if self.reserved else []),
            *(["--internal-ips"] if self.internal else []),
            "--async",
        ]

    def state(self) -> list[str]:
        """Prints a word, as ACTIVE, or nothing where there is no such resource."""
        mine = f"--filter=name~/{self.name}$"
        return [*self._gcloud("queued-resources", "list"), mine, "--format=value(state.state)"]

    def delete(self) -> list[str]:
        return [*self._gcloud("queued-resources", "delete"), self.name, "--force"]

    def copy(self, archive: str, node: str) -> list[str]:
        return [
            *self._gcloud("tpu-vm", "scp"), archive, f"{node}:{_ARCHIVE}", *self._on_all(),
        ]  # fmt: skip

    def unpack(self, node: str) -> list[str]:
        return self.ssh(
            node, ["tar", "--extract", f"--one-top-level={_CODE}", f"--file={_ARCHIVE}"]
        )

    def remote(self, node: str, verb: str, *words: str) -> list[str]:
        """A verb of remote.py on all hosts of a slice."""
        label = [f"--label={node}"] if self.slices > 1 else []
        return self.ssh(node, ["python3", f"{_CODE}/launch/remote.py", verb, *label, *words])

    def ssh(self, node: str, words: list[str]) -> list[str]:
        return [
            *self._gcloud("tpu-vm", "ssh"), node, *self._on_all(), f"--command={shlex.join(words)}",
        ]  # fmt: skip

    def _on_all(self) -> list[str]:
        return ["--worker=all", *(["--internal-ip"] if self.internal else [])]

    def _gcloud(self, *verb: str) -> list[str]:
        project = [f"--project={self.project}"] if self.project else []
        return ["gcloud", "compute", "tpus", *verb, f"--zone={self.zone}", *project, "--quiet"]


def archive(code: str, name: str) -> tuple[str, list[str]]:
    """Where the code is packed, and how: what is committed, as ignored files are not to travel."""
    if code.startswith("-") or ":" in code:  # to scp, an option or another machine
        raise Mistake(f"--code={code}: give a path that begins with no - and has no : in it")
    path = f".cache/launch-{name}.tar.gz"
    return f"{code}/{path}", ["git", "-C", code, "archive", f"--output={path}", "HEAD"]


def checked_pod(options: argparse.Namespace) -> Pod:
    """Raises Mistake where a name is none that Google Cloud knows."""
    name = checked("NAME", options.name, _NAME, "bert-base: lower case, digits and -")
    zone = checked("--zone", options.zone or "", "[a-z]+-[a-z]+[0-9]-[a-z]", "us-west4-a")
    project = options.project and checked(
        "--project", options.project, "([a-z0-9.-]{1,60}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]", "my-lab"
    )
    kind = checked("--type", options.type, "v[0-9][a-z]{0,8}-[1-9][0-9]{0,4}", "v5litepod-16")
    runtime = options.runtime or next(
        (text for start, text in _RUNTIMES.items() if kind.startswith(start)), ""
    )
    if not runtime:
        raise Mistake(f"--type={kind}: known are {', '.join(_RUNTIMES)}; or give its --runtime")
    if options.reserved and options.spot:
        raise Mistake("--spot and --reserved exclude each other; give one, or neither")
    if not re.fullmatch(_NAME, f"{name}-{options.slices}"):
        raise Mistake(f"NAME={name!r}: too long for the names of {options.slices} slices")
    return Pod(
        name, zone, project or "", kind,
        checked("--runtime", runtime, "[a-z0-9][a-z0-9.-]{0,60}", "v2-alpha-tpuv6e"),
        options.slices, options.spot, options.reserved, options.internal_ip,
    )  # fmt: skip
