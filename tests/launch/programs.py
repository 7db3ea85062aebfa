"""Small programs whose cost is known, compiled for TPUs that are not here.

`python -m tests.launch.programs` writes their text to tests/launch/hlo/, for tests that read what a
compiler wrote without one.
"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.sharding import NamedSharding, PartitionSpec as P

from bert_jax.training.mesh import MeshConfig, build_mesh
from launch.preflight.compile import load_devices, uncached

FOLDER = Path(__file__).parent / "hlo"
SIZE = 512


def mesh_of(config: MeshConfig, slice_: str = "v5e:2x2"):
    devices = load_devices(slice_, config.slices)
    return build_mesh(config, len(devices), devices=devices)


def compiled(function, mesh, *arrays) -> str:
    """`arrays`: (shape, dtype, spec) of each argument."""
    with jax.set_mesh(mesh), uncached():
        arguments = [
            jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
            for shape, dtype, spec in arrays
        ]
        return jax.jit(function).lower(*arguments).compile().as_text()


def scan(turns: int) -> str:
    """`turns` products of 512 × 512 by 512 × 512, one after the other, on each device."""

    def all_turns(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=turns)[0]

    square = ((SIZE, SIZE), jnp.bfloat16, P())
    return compiled(all_turns, mesh_of(MeshConfig()), square, square)


def branches() -> str:
    """A product if a number is positive, else nothing."""

    def either(yes, x):
        return jax.lax.cond(yes > 0, lambda x: jnp.tanh(x @ x), lambda x: x, x)

    square = ((SIZE, SIZE), jnp.bfloat16, P())
    return compiled(either, mesh_of(MeshConfig()), ((), jnp.int32, P()), square)


def gradient(config: MeshConfig, weight: P) -> str:
    """The gradient of one matrix, 512 × 1024 float32, by 64 rows a device."""

    def loss(w, x):
        wide = jnp.einsum("bd,df->bf", x, w, out_sharding=P(("data", "fsdp"), None))
        return jnp.sum(jnp.tanh(wide))

    mesh = mesh_of(config)
    rows = ((64 * mesh.size, SIZE), jnp.float32, P(("data", "fsdp"), None))
    return compiled(jax.grad(loss), mesh, ((SIZE, 2 * SIZE), jnp.float32, weight), rows)


def kernel(turns: int, says: bool) -> str:
    """A Pallas kernel, `turns` times; `says`: it tells its own FLOPs and bytes."""
    told = pl.CostEstimate(flops=3_000_000, bytes_accessed=2_000_000, transcendentals=0)

    def double(x_ref, out_ref):
        out_ref[...] = 2 * x_ref[...]

    def all_turns(x):
        call = pl.pallas_call(
            double, jax.ShapeDtypeStruct(x.shape, x.dtype), cost_estimate=told if says else None
        )
        over_all = jax.shard_map(call, in_specs=P(), out_specs=P(), check_vma=False)
        return jax.lax.scan(lambda x, _: (over_all(x), None), x, length=turns)[0]

    return compiled(all_turns, mesh_of(MeshConfig()), ((SIZE, SIZE), jnp.float32, P()))


PROGRAMS = {
    "scan": partial(scan, 7),
    "branches": branches,
    "data": partial(gradient, MeshConfig(), P()),
    "fsdp": partial(gradient, MeshConfig(fsdp=4), P("fsdp")),
    "slices": partial(gradient, MeshConfig(slices=2), P()),
    "kernel": partial(kernel, 3, True),
}

if __name__ == "__main__":
    for name, make in PROGRAMS.items():
        text = make().replace(f"{Path.cwd()}/", "")  # the same wherever it was written
        (FOLDER / f"{name}.txt").write_text(text)
