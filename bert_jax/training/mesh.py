"""The devices as a mesh of three axes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jax.sharding import AxisType, Mesh

from bert_jax.errors import UserError
from bert_jax.models.config import EncoderConfig

AXES = ("data", "fsdp", "tensor")


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis. data and fsdp divide the batch, fsdp and tensor the parameters.
    No result depends on these beyond the order in which sums are rounded."""

    data: int = -1  # -1: the devices that the other axes leave
    fsdp: int = 1
    tensor: int = 1


def build_mesh(config: MeshConfig, batch_size: int, phases: Sequence[int] = ()) -> Mesh:
    """All devices, explicitly sharded. `phases`: the batches of each phase. Raises UserError
    where sizes do not divide."""
    count = jax.device_count()
    shape = [config.data, config.fsdp, config.tensor]
    if any(size < 1 and size != -1 for size in shape) or shape.count(-1) > 1:
        raise UserError(f"mesh: sizes are 1 or more, and at most one is -1; got {_text(shape)}")
    if -1 in shape:
        others = math.prod(size for size in shape if size != -1)
        shape[shape.index(-1)] = count // others
    if math.prod(shape) != count or 0 in shape:
        raise UserError(
            f"mesh: {_text(shape)} does not make up the {count} devices at hand; set mesh.data, "
            f"mesh.fsdp and mesh.tensor so that their product is {count}"
        )
    shards = shape[0] * shape[1]
    batches = [("data.batch_size", batch_size), *(("data.phases: a batch", n) for n in phases)]
    for name, size in batches:
        if size % shards:
            raise UserError(
                f"{name}={size} is not divisible by the {shards} devices of mesh.data times "
                f"mesh.fsdp; choose a multiple of {shards}"
            )
    return jax.make_mesh(tuple(shape), AXES, axis_types=(AxisType.Explicit,) * len(AXES))


def check_divides(mesh: Mesh, config: EncoderConfig) -> None:
    """Raises UserError where a size of the encoder cannot be cut as the mesh asks."""
    for axis, names in (
        ("tensor", ("num_heads", "intermediate_size", "padded_vocab_size")),
        ("fsdp", ("hidden_size", "embedding_width")),
    ):
        for name in names:
            size, parts = getattr(config, name), mesh.shape[axis]
            if size % parts:
                raise UserError(
                    f"mesh.{axis}={parts} does not divide the {name} {size} of an encoder of "
                    f"hidden_size {config.hidden_size}; choose a mesh.{axis} that does"
                )


def one_device() -> Mesh:
    """A mesh of the first device alone: for programs that need no more."""
    return jax.make_mesh((1, 1, 1), AXES, (AxisType.Explicit,) * 3, devices=jax.devices()[:1])


def _text(shape: list[int]) -> str:
    return " × ".join(f"{name}={size}" for name, size in zip(AXES, shape, strict=True))
