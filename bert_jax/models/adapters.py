"""What is trained in place of a model's kernels: low-rank updates of them, or small layers between
them. The model itself stays as it is."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from bert_jax.errors import UserError
from bert_jax.models.config import EncoderConfig
from bert_jax.models.initializers import normal, zeros
from bert_jax.models.sharding import RULES

Path = tuple[Any, ...]


@dataclass(frozen=True)
class Target:
    """A kernel that has an update, by the letters of models/sharding.py."""

    part: str  # of a block
    kernel: str
    ins: str
    outs: str
    out_sharding: P
    place: int | None = None  # on the axis C, where query, key and value are one kernel


TARGETS = {
    "query": Target("attention", "qkv_kernel", "d", "nh", RULES.heads_bsnh, 0),
    "key": Target("attention", "qkv_kernel", "d", "nh", RULES.heads_bsnh, 1),
    "value": Target("attention", "qkv_kernel", "d", "nh", RULES.heads_bsnh, 2),
    "out": Target("attention", "out_kernel", "nh", "d", RULES.hidden_bsd),
    "up": Target("feedforward", "up_kernel", "d", "f", RULES.wide_bsf),
    "down": Target("feedforward", "down_kernel", "f", "d", RULES.hidden_bsd),
}


@dataclass(frozen=True)
class AdaptConfig:
    """Whether all of a model is fine-tuned or adapters alone, and which."""

    kind: str = ""  # '': all of it; lora (Hu et al. 2021); bottleneck (Houlsby et al. 2019)
    rank: int = 8  # of lora: r in 4.1; 8 is that of RoBERTa's runs (table 9)
    alpha: float = 8.0  # of lora: α in 4.1; an update counts α/r
    targets: str = "query value"  # of lora: the kernels with an update (4.2, 7.1)
    size: int = 64  # of bottleneck: m in 2.1

    def __post_init__(self):
        if self.kind not in _TRAINED:
            choices = ", ".join(kind for kind in _TRAINED if kind)
            raise UserError(f"adapt.kind={self.kind!r}: must be one of {choices}, or '' for none")
        for name in ("rank", "size"):
            if getattr(self, name) < 1:
                raise UserError(f"adapt.{name}={getattr(self, name)}: must be 1 or more")
        if not 0 < self.alpha < math.inf:
            raise UserError(f"adapt.alpha={self.alpha}: must be above 0")
        names = self.targets.split()
        if not names or not set(names) <= TARGETS.keys():
            raise UserError(
                f"adapt.targets={self.targets!r}: must be some of {' '.join(TARGETS)}, parted by "
                f"blanks"
            )

    @property
    def updated(self) -> tuple[str, ...]:
        """The targets that have an update."""
        return tuple(n for n in TARGETS if self.kind == "lora" and n in self.targets.split())

    def check_fits(self, config: EncoderConfig) -> None:
        """Raises UserError where the adapters would be wider than what they stand for."""
        name, width = {"lora": ("rank", self.rank), "bottleneck": ("size", self.size)}.get(
            self.kind, ("", 0)
        )
        if width > config.hidden_size:
            raise UserError(
                f"adapt.{name}={width}: must be at most the model's hidden_size, "
                f"{config.hidden_size}"
            )


class LowRank(nnx.Module):
    """W·x + (α/r)·B·A·x (Hu et al. 2021, 4.1). B begins as 0, so that nothing changes yet, and A as
    every kernel: at D = 768 the deviation of the released code's, 1/√(3D), is 0.02 as well."""

    def __init__(self, name: str, config: EncoderConfig, rngs: nnx.Rngs, adapt: AdaptConfig):
        target = TARGETS[name]
        sizes = {
            "d": config.hidden_size, "n": config.num_heads, "h": config.head_size,
            "f": config.intermediate_size, "r": adapt.rank,
        }  # fmt: skip
        into, out_of = target.ins + "r", "r" + target.outs
        shape_a, shape_b = (tuple(map(sizes.__getitem__, letters)) for letters in (into, out_of))
        self.a = normal(config, rngs, f"adapter_kernel_{into}", shape_a)
        self.b = zeros(f"adapter_kernel_{out_of}", shape_b)
        self.into = f"bs{target.ins},{into}->bsr"
        self.out_of = f"bsr,{out_of}->bs{target.outs}"
        self.out_sharding = target.out_sharding
        self.scale = adapt.alpha / adapt.rank

    def __call__(
        self, x: Float[Array, "B S *ins"], product: Float[Array, "B S *outs"]
    ) -> Float[Array, "B S *outs"]:
        """`product`: W·x, to which the bias may have been added."""
        a, b = self.a[...].astype(x.dtype), self.b[...].astype(x.dtype)
        low = self.scale * jnp.einsum(self.into, x, a, out_sharding=RULES.low_bsr)
        return product + jnp.einsum(self.out_of, low, b, out_sharding=self.out_sharding)


class Bottleneck(nnx.Module):
    """x + W₂·gelu(W₁x + b₁) + b₂ with a narrow middle (Houlsby et al. 2019, 2.1): at the start
    nearly x. Deviation and GELU are the released code's."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs, adapt: AdaptConfig):
        D, R = config.hidden_size, adapt.size
        near = replace(config, initializer_stddev=1e-3)
        self.down_kernel = normal(near, rngs, "adapter_kernel_dr", (D, R))
        self.down_bias = zeros("vector_d", (R,))
        self.up_kernel = normal(near, rngs, "adapter_kernel_rd", (R, D))
        self.up_bias = zeros("vector_d", (D,))

    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        low = jnp.einsum(
            "bsd,dr->bsr", x, self.down_kernel[...].astype(x.dtype), out_sharding=RULES.low_bsr
        )
        low = jax.nn.gelu(low + self.down_bias[...].astype(x.dtype), approximate=True)
        high = jnp.einsum(
            "bsr,rd->bsd", low, self.up_kernel[...].astype(x.dtype), out_sharding=RULES.hidden_bsd
        )
        return x + high + self.up_bias[...].astype(x.dtype)


def update_of(
    name: str, config: EncoderConfig, rngs: nnx.Rngs, adapt: AdaptConfig
) -> Callable[[Array, Array], Array]:
    """What makes of x and W·x what goes on, for the target of that name."""
    return LowRank(name, config, rngs, adapt) if name in adapt.updated else _product_alone


def adapter_of(
    config: EncoderConfig, rngs: nnx.Rngs, adapt: AdaptConfig
) -> Callable[[Array], Array]:
    """What a sublayer's output goes through before it is added to what went into it."""
    return _AFTER[adapt.kind](config, rngs, adapt)


def _product_alone(x: Array, product: Array) -> Array:
    return product


def _as_it_is(x: Array) -> Array:
    return x


_AFTER: dict[str, Callable[..., Callable[[Array], Array]]] = {
    "": lambda *_: _as_it_is,
    "lora": lambda *_: _as_it_is,
    "bottleneck": Bottleneck,
}


def is_adapter(path: Path) -> bool:
    """Whether the parameter of that path is one that a model alone does not have."""
    return any(str(name).endswith(("_update", "_adapter")) for name in path)


def _is_norm(path: Path) -> bool:
    return any(str(name).endswith("norm") for name in path)


# Of the encoder, by kind. With bottlenecks the norms learn too (Houlsby et al. 2019, 2.1).
_TRAINED: dict[str, Callable[[Path], bool]] = {
    "": lambda path: True,
    "lora": is_adapter,
    "bottleneck": lambda path: is_adapter(path) or _is_norm(path),
}


PLAIN = AdaptConfig()


def split(
    parameters: nnx.State, adapt: AdaptConfig, new_pooler: bool
) -> tuple[nnx.State, nnx.State]:
    """What is trained, and what stays. Heads are trained, and the pooler where it is new: else it
    stays, as in the code released for Houlsby et al. 2019."""

    def trained(path: Path, variable: nnx.Variable) -> bool:
        pooler = new_pooler and path[:2] == ("encoder", "pooler")
        return path[0] == "heads" or pooler or _TRAINED[adapt.kind](path)

    learned, rest = nnx.split_state(parameters, trained, ...)
    return learned, rest


def merge(parameters: nnx.State, adapt: AdaptConfig) -> nnx.State:
    """Parameters without updates that compute the same: W + (α/r)·B·A as the kernel."""
    flat = dict(nnx.to_flat_state(parameters))
    for name in adapt.updated:
        target = TARGETS[name]
        part = ("encoder", "layers", target.part)
        a, b = (flat.pop((*part, f"{name}_update", which)).get_value() for which in "ab")
        delta = _product(a, b, target) * (adapt.alpha / adapt.rank)
        kernel = flat[(*part, target.kernel)]
        flat[(*part, target.kernel)] = kernel.replace(kernel.get_value() + delta)
    return nnx.from_flat_state(flat)


def _product(a: Array, b: Array, target: Target) -> Array:
    """B·A in the shape of the kernel, whose first axis may be that of layers."""
    ins, outs, exact = target.ins, target.outs, jax.lax.Precision.HIGHEST
    if target.place is None:
        return jnp.einsum(f"...{ins}r,...r{outs}->...{ins}{outs}", a, b, precision=exact)
    # It counts in its own share of the kernel alone.
    own = (jnp.arange(3) == target.place).astype(a.dtype)
    return jnp.einsum(f"...{ins}r,...r{outs},c->...{ins}c{outs}", a, b, own, precision=exact)
