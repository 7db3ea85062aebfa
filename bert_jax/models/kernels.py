"""Attention itself: softmax(QKᵀ/√H)V between the tokens of one document.

Every kernel takes segment ids and says by name what it does not take. Only cuDNN's, which knows no
such ids, makes a mask of them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as splash,
    splash_attention_mask as splash_masks,
)
from jaxtyping import Array, Bool, Float, Int, Key

from bert_jax.errors import UserError
from bert_jax.models.config import EncoderConfig
from bert_jax.models.dropout import drop, kept, scaled_by

_BLOCK, _LARGEST_BLOCK = 128, 512  # of a splash kernel, in tokens
_AMPERE = 8  # the compute capability that cuDNN's attention begins with


def einsum_attention(
    query: Float[Array, "B S N H"],
    key: Float[Array, "B S N H"],
    value: Float[Array, "B S N H"],
    segment_ids: Int[Array, "B S"],
    dropout_rate: float,
    dropout_keys: Key[Array, "B"] | None,
) -> Float[Array, "B S N H"]:
    """The reference (Vaswani et al. 2017, 3.2.1). A token attends to those of equal segment id.

    Padding (segment 0) attends to padding: what it gives is never read, and no row of the
    softmax is empty. Scores and softmax are float32.
    """
    scores = jnp.einsum("bqnh,bknh->bnqk", query, key, preferred_element_type=jnp.float32)
    scores = jnp.where(
        _same(segment_ids), scores / math.sqrt(query.shape[-1]), jnp.finfo(jnp.float32).min
    )
    weights, rate = _softmax(scores, value.dtype), scaled_by(value.dtype, dropout_rate)
    return _mix(weights, kept(weights.shape, rate, dropout_keys), value, rate)


# The weights without dropout, and what it leaves, are stored; with dropout they are made again.
@partial(jax.checkpoint, prevent_cse=False, static_argnums=3)
def _mix(
    weights: Float[Array, "B N S S"],
    keep: Bool[Array, "B N S S"] | None,
    value: Float[Array, "B S N H"],
    rate: float,
) -> Float[Array, "B S N H"]:
    return jnp.einsum("bnqk,bknh->bqnh", drop(weights, rate, keep), value)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _softmax(scores: Float[Array, "B N S S"], dtype: jnp.dtype) -> Float[Array, "B N S S"]:
    """In float32, rounded to `dtype`. For the backward pass only the rounded weights are stored:
    in float32 they would be as large as all else that a layer stores."""
    return jax.nn.softmax(scores, axis=-1).astype(dtype)


def _softmax_forward(scores, dtype):
    weights = _softmax(scores, dtype)
    return weights, weights


def _softmax_backward(dtype, weights, gradient):
    product = weights.astype(jnp.float32) * gradient.astype(jnp.float32)
    return (product - weights * jnp.sum(product, axis=-1, keepdims=True),)


_softmax.defvjp(_softmax_forward, _softmax_backward)


def _same(segment_ids: Int[Array, "B S"]) -> Bool[Array, "B 1 S S"]:
    return segment_ids[:, None, :, None] == segment_ids[:, None, None, :]


def cudnn_attention(
    query: Float[Array, "B S N H"],
    key: Float[Array, "B S N H"],
    value: Float[Array, "B S N H"],
    segment_ids: Int[Array, "B S"],
    dropout_rate: float,
    dropout_keys: Key[Array, "B"] | None,
) -> Float[Array, "B S N H"]:
    """cuDNN's flash attention, through JAX. It knows no segment ids: which tokens see each other
    goes in as a mask, [B, 1, S, S] of the compute dtype, common to all heads."""
    attend = partial(jax.nn.dot_product_attention, implementation="cudnn")

    def local(query, key, value, segment_ids):
        return attend(query, key, value, mask=_same(segment_ids))

    return _each_device(local, query, key, value, segment_ids)


def splash_attention(
    query: Float[Array, "B S N H"],
    key: Float[Array, "B S N H"],
    value: Float[Array, "B S N H"],
    segment_ids: Int[Array, "B S"],
    dropout_rate: float,
    dropout_keys: Key[Array, "B"] | None,
    interpret: bool = False,
) -> Float[Array, "B S N H"]:
    """JAX's Pallas kernel for TPUs: scores never leave the chip's own memory. `interpret`: its
    operations one by one, on any platform."""

    def local(query, key, value, segment_ids):
        attend = _splash_kernel(query.shape[1], query.shape[2], interpret)

        def a_row(q, k, v, ids):
            q, k, v = (jnp.swapaxes(x, 0, 1) for x in (q / math.sqrt(q.shape[-1]), k, v))
            return jnp.swapaxes(attend(q, k, v, splash.SegmentIds(ids, ids)), 0, 1)

        return jax.vmap(a_row)(query, key, value, segment_ids)

    return _each_device(local, query, key, value, segment_ids)


def _splash_kernel(length: int, heads: int, interpret: bool) -> Callable[..., Array]:
    """Blocks as large as divide the length: fewer turns of the kernel, each with more to do."""
    block = max(n for n in range(_BLOCK, _LARGEST_BLOCK + 1, _BLOCK) if length % n == 0)
    sizes = splash.BlockSizes(
        block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block,
        use_fused_bwd_kernel=True,
    )  # fmt: skip
    mask = splash_masks.MultiHeadMask([splash_masks.FullMask((length, length))] * heads)
    return splash.make_splash_mha(
        mask, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret
    )


def _each_device(local: Callable[..., Array], query: Array, *others: Array) -> Array:
    """`local` on the rows and heads that each device of the mesh has: kernels see no mesh."""
    spec = jax.typeof(query).sharding.spec
    return jax.shard_map(local, out_specs=spec, check_vma=False)(query, *others)


@dataclass(frozen=True)
class Kernel:
    """`refuses`: what of a config and a length it does not take; '' where it takes all of it."""

    attend: Callable[..., Array]
    platform: str  # as `platform_of` has it; '' for any
    refuses: Callable[[EncoderConfig, int], str]


def _without_dropout(config: EncoderConfig) -> str:
    if config.attention_dropout:
        return (
            f"has no attention dropout, and model.attention_dropout={config.attention_dropout}: "
            f"set it to 0"
        )
    return ""


def _cudnn_refuses(config: EncoderConfig, length: int) -> str:
    if config.dtype != "bfloat16":
        return f"computes in bfloat16, and model.dtype={config.dtype}"
    if config.head_size > 128 or config.head_size % 8:
        return f"takes heads of a multiple of 8 up to 128, and these are of {config.head_size}"
    if length % 2:
        return f"takes rows of even length, and these are of {length}"
    return _without_dropout(config)


def _splash_refuses(config: EncoderConfig, length: int) -> str:
    if length % _BLOCK:
        return f"takes rows of a multiple of {_BLOCK} tokens, and these are of {length}"
    return _without_dropout(config)


KERNELS = {
    "einsum": Kernel(einsum_attention, "", lambda config, length: ""),
    "cudnn": Kernel(cudnn_attention, "gpu", _cudnn_refuses),
    "splash": Kernel(splash_attention, "tpu", _splash_refuses),
}


def platform_of(device: Any) -> str:
    """'cpu', 'tpu', or 'gpu' where cuDNN's attention runs: on CUDA from Ampere on. Other GPUs go by
    their compute capability, 'gpu of 7.0' or 'gpu of gfx90a'."""
    capability = getattr(device, "compute_capability", None)
    if device.platform != "gpu" or capability is None:
        return str(device.platform)
    major = str(capability).partition(".")[0]
    return "gpu" if major.isdecimal() and int(major) >= _AMPERE else f"gpu of {capability}"


def resolve(
    config: EncoderConfig, platform: str, lengths: Sequence[int],
    others: Sequence[EncoderConfig] = (),
) -> tuple[EncoderConfig, str]:  # fmt: skip
    """The config with a kernel in the place of 'auto', and for that a line which says why this one.

    `platform`: as `platform_of` has it; `lengths`: those of all rows to come; `others`: encoders
    that run on the same kernel (a generator). Raises UserError for a kernel asked for by name that
    cannot compute them.
    """
    if config.attention != "auto":
        if reason := _refused(config.attention, (config, *others), platform, lengths):
            raise UserError(
                f"model.attention={config.attention}: it {reason}; or set model.attention=auto"
            )
        return config, ""
    taken, why = "einsum", f"there is no kernel for a {platform}"
    for name in (name for name, one in KERNELS.items() if one.platform == platform):
        reason = _refused(name, (config, *others), platform, lengths)
        taken, why = ("einsum", f"{name} {reason}") if reason else (name, "it takes all rows")
    return replace(config, attention=taken), f"attention: {taken}, as {why}"


def _refused(
    name: str, configs: Sequence[EncoderConfig], platform: str, lengths: Sequence[int]
) -> str:
    """Why a kernel cannot compute rows of these lengths; '' where it can."""
    kernel = KERNELS[name]
    if kernel.platform not in ("", platform):
        return f"runs on a {kernel.platform}, and this is a {platform}"
    reasons = (kernel.refuses(config, length) for config in configs for length in lengths)
    return next(filter(None, reasons), "")
