"""Which device is where on the mesh: over slices, and over processes that stand in for them."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from bert_jax.errors import UserError
from bert_jax.training.mesh import MeshConfig, build_mesh
from launch.preflight.compile import load_devices

ROOT = Path(__file__).parents[2]


def test_the_data_axis_goes_from_slice_to_slice():
    devices = load_devices("v5e:2x2", slices=2)
    mesh = build_mesh(MeshConfig(fsdp=2, slices=2), 8, devices=devices)
    assert mesh.shape == {"data": 4, "fsdp": 2, "tensor": 1}
    assert np.vectorize(lambda device: device.slice_index)(mesh.devices)[..., 0].tolist() == [
        [0, 0], [0, 0], [1, 1], [1, 1],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("slices", "config", "said"),
    [
        (2, MeshConfig(), "mesh.slices=1, but the 8 devices at hand are of 2 slice"),
        (1, MeshConfig(slices=2), "are of 1 slice.* set mesh.slices=1"),
        (2, MeshConfig(data=1, fsdp=8, slices=2), "mesh.slices=2 does not divide mesh.data=1"),
        (2, MeshConfig(slices=0), "mesh.slices=0 does not divide"),
    ],
)
def test_slices_that_are_not_there_are_told(slices, config, said):
    devices = load_devices("v5e:2x2", slices)
    with pytest.raises(UserError, match=said):
        build_mesh(config, 8, devices=devices)


def test_one_process_of_cpu_devices_is_one_slice():
    with pytest.raises(UserError, match="mesh.slices=2, but the 8 devices"):
        build_mesh(MeshConfig(slices=2), 8)
    assert list(build_mesh(MeshConfig(), 8).devices.flat) == jax.devices()


def test_an_axis_may_lie_along_a_part_of_the_torus():
    devices = load_devices("v6e:4x4", slices=1)
    assert build_mesh(MeshConfig(fsdp=2, tensor=4), 4, devices=devices).shape["data"] == 2


PROCESS = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from bert_jax.training.mesh import MeshConfig, build_mesh
mesh = build_mesh(MeshConfig(slices=2), 4)
sharding = NamedSharding(mesh, P("data"))
array = jax.make_array_from_callback((4,), sharding, lambda i: np.arange(4.0)[i])
total = jax.jit(lambda x: x.sum(), out_shardings=NamedSharding(mesh, P()))(array)
places = [device.process_index for device in mesh.devices.flat]
print(json.dumps([places, float(total.addressable_shards[0].data)]))
"""


def test_processes_stand_in_for_slices_where_there_are_none():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, address, str(process)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )
        for process in range(2)
    ]  # fmt: skip
    for process in both:
        out, _ = process.communicate(timeout=120)
        # Before its own line stands what the processes' connection has to say.
        assert json.loads(out.splitlines()[-1]) == [[0, 0, 1, 1], 6.0]
