"""The devices as a mesh of three axes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jax.experimental import mesh_utils
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
    slices: int = 1  # TPU slices that the data axis is laid over, slice by slice; a part of data


def build_mesh(
    config: MeshConfig,
    batch_size: int = 0,
    phases: Sequence[int] = (),
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """The devices (None: all), explicitly sharded. `batch_size`, `phases`: the run's and each
    phase's batches, 0 for one that the caller checks. Raises UserError where sizes do not divide,
    or slices are not those of the devices."""
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    shape = [config.data, config.fsdp, config.tensor]
    if any(size < 1 and size != -1 for size in shape) or shape.count(-1) > 1:
        raise UserError(f"mesh: sizes are 1 or more, and at most one is -1; got {_text(shape)}")
    given = _text(shape)
    if -1 in shape:
        others = math.prod(size for size in shape if size != -1)
        shape[shape.index(-1)] = count // others
    if math.prod(shape) != count or 0 in shape:
        raise UserError(
            f"mesh: {given} does not make up the {count} devices at hand; set mesh.data, "
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
    # Split: an axis of the mesh may lie along a part of an axis of the torus.
    if config.slices == 1 and _slices(devices) == 1:
        places = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    else:
        by_process = _by_process(config.slices, shape[0], devices)
        places = mesh_utils.create_hybrid_device_mesh(
            (shape[0] // config.slices, *shape[1:]), (config.slices, 1, 1), devices,
            process_is_granule=by_process, allow_split_physical_axes=True,
        )  # fmt: skip
    return Mesh(places, AXES, axis_types=(AxisType.Explicit,) * len(AXES))


def _by_process(slices: int, data: int, devices: Sequence[jax.Device]) -> bool:
    """Whether processes stand in for slices: where a platform knows no slices (CPU), each process
    is one. Raises UserError where the devices do not come in that many."""
    if slices < 1 or data % slices:
        raise UserError(
            f"mesh.slices={slices} does not divide mesh.data={data}: each slice holds an equal "
            f"part of the data axis; choose a mesh.slices that divides it"
        )
    found = _slices(devices)
    processes = len({device.process_index for device in devices})
    if slices == found:
        return False
    if found == 1 and slices == processes:
        return True
    raise UserError(
        f"mesh.slices={slices}, but the {len(devices)} devices at hand are of {found} slice(s) "
        f"and {processes} process(es); set mesh.slices={found}"
    )


def _slices(devices: Sequence[jax.Device]) -> int:
    """How many TPU slices, joined by no more than the data centre's network, they are of; 1 on
    other platforms, whatever they call a slice."""
    if devices[0].platform != "tpu":
        return 1
    return len({getattr(device, "slice_index", 0) for device in devices})


def check_batch(mesh: Mesh, size: int, accumulation: int, field: str) -> None:
    """Raises UserError where a batch cannot be cut as mesh and accumulation, the `field` of that
    name, ask."""
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    if size % (devices * accumulation):
        raise UserError(
            f"a batch of {size} is not divisible by {field}={accumulation} times the {devices} "
            f"devices of mesh.data times mesh.fsdp; choose a batch size that is a multiple of "
            f"{devices * accumulation}"
        )


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
