"""Shapes in signatures are checked while tests run, eight CPU devices are simulated, and
compiled programs are kept between runs."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

# libtpu is here to compile alone; the programs that tests start inherit this.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiled without LLVM's optimisation: most of the time of these tests is compilation. The numbers
# are those of the same operations in the same order.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
CACHE = os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".cache" / "jax")
)
jax.config.update("jax_compilation_cache_dir", CACHE)
# All of them: so compiled they take less than the second from which on JAX would keep them.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # of the programs that tests start
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

install_import_hook("bert_jax", "beartype.beartype")  # for all that is imported from here on

from tests import tiny  # noqa: E402

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would the programs
# that they start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    config.addinivalue_line("markers", "tree_mode: run once more with NNX's tree mode on")


@pytest.fixture(scope="session", autouse=True)
def mesh():
    """One device; a test of several sets a mesh of its own."""
    one = jax.make_mesh((1, 1, 1), ("data", "fsdp", "tensor"), devices=jax.devices()[:1])
    with jax.set_mesh(one):
        yield one


@pytest.fixture(scope="session")
def bucket(tmp_path_factory):
    """gs://bucket on a server of this machine, for this process and those that it starts. It
    knows neither users nor preconditions, and lists a bucket whole to tensorstore."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [
            sys.executable, "-m", "gcp_storage_emulator", "start", f"--port={port}",
            "--host=127.0.0.1", "--in-memory", "--default-bucket=bucket", "--quiet",
        ],
        cwd=tmp_path_factory.mktemp("server"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.environ["STORAGE_EMULATOR_HOST"] = f"http://127.0.0.1:{port}"  # read by gcsfs
    os.environ["TENSORSTORE_GCS_HTTP_URL"] = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield "gs://bucket"
    finally:
        server.kill()
        server.wait()
        del os.environ["STORAGE_EMULATOR_HOST"], os.environ["TENSORSTORE_GCS_HTTP_URL"]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A prepared corpus of a few documents, and its text file."""
    return tiny.prepare(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def labelled(tmp_path_factory):
    """The files of small tasks of each kind."""
    from tests import finetuning

    return finetuning.make_data(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """A Hugging Face folder of a tiny encoder that nobody trained."""
    from tests import finetuning

    return finetuning.make_model(tmp_path_factory.mktemp("encoder") / "hf")


@pytest.fixture(scope="session")
def fine_tuned(tmp_path_factory, labelled, encoder, mesh):
    """Of a task of finetuning.TASKS the workdir, fine-tuned when it is first asked for."""
    from bert_jax.finetune import finetune
    from tests import finetuning

    folder = tmp_path_factory.mktemp("fine_tuned")

    def workdir(name):
        if not (folder / name).exists():
            config = finetuning.config_of(labelled, task=finetuning.TASKS[name])
            # What it says is not for the test that happens to be the first to ask for it.
            nowhere = io.StringIO()
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                finetune(config, encoder, folder / name, mesh)
        return folder / name

    return workdir
