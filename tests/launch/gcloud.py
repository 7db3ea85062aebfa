"""As much of gcloud as launch.tpu calls: queued resources as files below $FAKE_TPU, and hosts as
folders there. What is copied to a host is copied into its folder, and what it is to execute goes to
a shell, as ssh would have it. Every call is noted in `calls`; where `refused` is, no pod is had."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(os.environ["FAKE_TPU"])
words = sys.argv[1:]
options = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
names = [word for word in words if not word.startswith("--")]
with (ROOT / "calls").open("a") as calls:
    calls.write(json.dumps(words) + "\n")
assert names[:2] == ["compute", "tpus"] and options["zone"] == "us-west4-a", words
group, verb, *rest = names[2:]


def hosts(node: str) -> list[Path]:
    return sorted((ROOT / "nodes").glob(f"{node}/w-*"))


def state(name: str) -> str:
    file = ROOT / "queued" / name
    return file.read_text() if file.exists() else ""


if (group, verb) == ("queued-resources", "create"):
    (name,) = rest
    assert not state(name), f"{name} is there"
    prefix, count = options.get("node-prefix"), int(options.get("node-count", 0))
    nodes = [f"{prefix}-{i}" for i in range(count)] if prefix else [options["node-id"]]
    for node in nodes:
        home = ROOT / "nodes" / node / "w-0"
        # As if the requirements of the code, none at all, were installed already.
        (home / "bert_jax_run" / "python").mkdir(parents=True)
        mark = hashlib.sha256(b"tpu").hexdigest()
        (home / "bert_jax_run" / "python" / "installed").write_text(mark)
    (ROOT / "queued").mkdir(exist_ok=True)
    (ROOT / "queued" / name).write_text("WAITING_FOR_RESOURCES")
elif (group, verb) == ("queued-resources", "list"):
    name = options["filter"].removeprefix("name~/").removesuffix("$")
    if now := state(name):
        print(now)
    if now == "WAITING_FOR_RESOURCES":
        refused = (ROOT / "refused").exists()
        (ROOT / "queued" / name).write_text("FAILED" if refused else "ACTIVE")
    if now == "SUSPENDING":
        (ROOT / "queued" / name).write_text("SUSPENDED")
elif (group, verb) == ("queued-resources", "delete"):
    (name,) = rest
    assert state(name) not in ("", "SUSPENDING") and "force" in options
    (ROOT / "queued" / name).unlink()
    for node in (ROOT / "nodes").glob(f"{name}*"):
        shutil.rmtree(node)
elif (group, verb) == ("tpu-vm", "scp"):
    source, (node, _, target) = rest[0], rest[1].partition(":")
    for home in hosts(node):
        shutil.copy(source, home / target)
elif (group, verb) == ("tpu-vm", "ssh"):
    (node,) = rest
    running = [
        subprocess.Popen(
            ["sh", "-c", options["command"]], cwd=home, env={**os.environ, "HOME": str(home)},
            start_new_session=True,
        )
        for home in hosts(node)
    ]  # fmt: skip

    def broken(*_: object) -> None:
        """As when a connection ends: so does what was started through it."""
        for one in running:
            if one.poll() is None:
                os.killpg(one.pid, signal.SIGKILL)
        sys.exit(255)

    signal.signal(signal.SIGTERM, broken)
    if not running:
        sys.exit(255)
    while any(one.poll() is None for one in running):
        if not hosts(node):  # taken away
            broken()
        time.sleep(0.05)
    sys.exit(max(one.returncode for one in running))
else:
    sys.exit(f"ERROR: {words}")
