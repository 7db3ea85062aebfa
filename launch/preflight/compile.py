"""The train step of a run, compiled for devices that are not here."""

import importlib.util
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding

from bert_jax.config import RunConfig
from bert_jax.data.config import DataConfig
from bert_jax.errors import UserError
from bert_jax.models.kernels import platform_of, resolve
from bert_jax.models.sharding import RULES
from bert_jax.objectives import build_objective, encoders_of
from bert_jax.training.flops import Pass, train_flops
from bert_jax.training.mesh import build_mesh, check_divides
from bert_jax.training.optim import build_optimizer
from bert_jax.training.step import init_state, make_train_step

GIB = 2**30
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}


@dataclass(frozen=True)
class Fit:
    """Of a compiled step, or of one that was refused as too large: then the program is None. Bytes
    are of one device; the parts of what is needed are known only where there is a program."""

    needed: float
    available: float
    program: str | None
    state: float = 0.0  # parameters, optimiser and batch
    work: float = 0.0  # activations, gradients and the program itself
    reason: str = ""

    @property
    def fits(self) -> bool:
        return self.program is not None and self.needed <= self.available


def load_devices(topology: str, slices: int) -> list[Any]:
    """The devices of so many slices, none of which is here. Raises UserError without libtpu."""
    if importlib.util.find_spec("libtpu") is None and not os.environ.get("TPU_LIBRARY_PATH"):
        raise UserError(
            "libtpu is not installed, and with it the compiler for TPUs: pip install -r "
            "requirements-tpu.txt (a TPU is not needed)"
        )
    # Programs that only compile do not contend for a TPU: several may load libtpu at once.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # It asks the cloud for what it would run on, or complains that it cannot, and keeps a log.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_LOG_DIR", "disabled")
    several = {"num_slices": slices} if slices > 1 else {}
    return topologies.get_topology_desc(topology, platform="tpu", **several).devices


class Step:
    """The train step of `config` on a mesh of `devices`, to be compiled for any batch."""

    def __init__(self, config: RunConfig, devices: list[Any]):
        batches = [phase.data.batch_size for phase in config.phases]
        self._objective = build_objective(config.objective, config.model, config.generator)
        encoders = encoders_of(self._objective, config.model)
        model, _ = resolve(config.model, platform_of(devices[0]), config.lengths, encoders)
        self.config = config = replace(config, model=model)
        self.mesh: Mesh = build_mesh(config.mesh, config.data.batch_size, batches, devices)
        for one in self._passes(config.data):
            check_divides(self.mesh, one.config)
        tx = build_optimizer(config.optimizer, config.train.steps, self._objective.frozen)
        with jax.set_mesh(self.mesh):
            self._state = jax.eval_shape(
                lambda: init_state(self._objective, config.model, tx, config.seed)
            )
            self._step: Any = make_train_step(
                self._objective, config.model, tx, config.seed, config.train.accumulation
            )

    @property
    def rows(self) -> int:
        """Every batch is a multiple of this."""
        devices = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        return devices * self.config.train.accumulation

    def flops(self, data: DataConfig) -> int:
        """Of one step, on all devices, by the convention of the MFU that training logs."""
        return train_flops(self._passes(data), data.sequence_length) * data.batch_size

    def attention_flops(self, data: DataConfig) -> int:
        """Of QKᵀ and of weights times V in a step, on all devices: two products forward, and five
        backward in a kernel, which computes the scores again; under remat two more."""
        S = data.sequence_length
        tokens = S * data.batch_size
        trained = 7 if self.config.model.remat == "none" else 9
        return sum(
            one.config.num_layers * 2 * S * one.config.hidden_size * tokens
            * (trained if one.trained else 2)
            for one in self._passes(data)
        )  # fmt: skip

    def batch(self, data: DataConfig) -> dict[str, jax.ShapeDtypeStruct]:
        """The fields that the step reads, as the loader makes them."""
        B, S, K = data.batch_size, data.sequence_length, data.max_predictions
        a_token = ("input_ids", "token_type_ids", "segment_ids", "position_ids")
        shapes = dict.fromkeys(a_token, (B, S))
        shapes |= {f"mlm_{name}": (B, K) for name in ("positions", "labels", "weights")}
        fields = self._objective.fields + (("position_ids",) if data.packing else ())
        return {
            name: jax.ShapeDtypeStruct(
                shape := shapes.get(name, (B,)),
                jnp.float32 if name.endswith("weights") else jnp.int32,
                sharding=NamedSharding(self.mesh, RULES.batch(len(shape))),
            )
            for name in fields
        }

    def lower(self, data: DataConfig) -> Any:
        """Traced, and not yet compiled."""
        with jax.set_mesh(self.mesh):
            return self._step.lower(self._state, self.batch(data))

    def compile(self, data: DataConfig, available: float, quick: bool = False) -> Fit:
        """`available`: a device's bytes. A program that needs more is an answer; whatever else
        the compiler refuses is raised. `quick`: hardly optimised, in a fraction of the time; it
        needs as much memory, or somewhat more."""
        try:
            with uncached("O0" if quick else "UNKNOWN"):
                compiled = self.lower(data).compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return too_large(str(error), available)
        memory = compiled.memory_analysis()
        # At its peak, which the compiler compares with what there is: the sum of all temporaries
        # can be far more, as some take the place of others.
        needed = memory.peak_memory_in_bytes + memory.generated_code_size_in_bytes
        state = memory.argument_size_in_bytes
        return Fit(needed, available, compiled.as_text(), state, needed - state)

    def _passes(self, data: DataConfig) -> list[Pass]:
        length, slots = data.sequence_length, data.max_predictions
        return [Pass(*one) for one in self._objective.passes(self.config.model, length, slots)]


@contextmanager
def uncached(level: str = "UNKNOWN") -> Iterator[None]:
    """Compiling at a level of optimisation (UNKNOWN: the usual one), and keeping no program on
    disk: one for devices that are not here cannot be read back."""
    seconds = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_optimization_level", level)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", math.inf)
    try:
        yield
    finally:
        jax.config.update("jax_optimization_level", "UNKNOWN")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)


def too_large(message: str, available: float) -> Fit:
    """What the compiler's RESOURCE_EXHAUSTED says, as far as it has numbers. 0 bytes are needed
    where it has none."""
    found = re.search(r"Used ([\d.]+)([KMGTP])i?B? of|\(([\d.]+)([KMGTP])i?B?\) exceeds", message)
    number, unit = (found[1] or found[3], found[2] or found[4]) if found else ("0", "K")
    reason = message.strip().splitlines()[0]
    return Fit(float(number) * _UNITS[unit], available, None, reason=reason)
