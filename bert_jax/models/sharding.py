"""Which mesh axis holds which letter of which tensor: one table for parameters and activations.

A field's name is a tensor's role followed by its letters; its value has one entry a letter.
The batch lives on data and fsdp together, so that fsdp shards parameters without idling.
"""

from dataclasses import dataclass

from flax import nnx
from jax.sharding import PartitionSpec as P

BATCH = ("data", "fsdp")


@dataclass(frozen=True)
class ShardingRules:
    """Parameters name their role (`parameter`); activations are asked for by field."""

    # Parameters. C: the three of query, key, value. E: the output letter of a kernel.
    embedding_vd: P = P("tensor", "fsdp")
    table_pd: P = P(None, None)
    qkv_kernel_dcnh: P = P("fsdp", None, "tensor", None)
    qkv_bias_cnh: P = P(None, "tensor", None)
    out_kernel_nhd: P = P("tensor", None, "fsdp")
    up_kernel_df: P = P("fsdp", "tensor")
    up_bias_f: P = P("tensor")
    down_kernel_fd: P = P("tensor", "fsdp")
    kernel_de: P = P("fsdp", None)
    vector_d: P = P(None)
    vocab_bias_v: P = P("tensor")
    # Of adapters. R: the rank of an update, or the width of a bottleneck.
    adapter_kernel_dr: P = P("fsdp", None)
    adapter_kernel_rd: P = P(None, "fsdp")
    adapter_kernel_nhr: P = P("tensor", None, None)
    adapter_kernel_rnh: P = P(None, "tensor", None)
    adapter_kernel_fr: P = P("tensor", None)
    adapter_kernel_rf: P = P(None, "tensor")

    # Activations.
    hidden_bsd: P = P(BATCH, None, None)
    qkv_cbsnh: P = P(None, BATCH, None, "tensor", None)
    heads_bsnh: P = P(BATCH, None, "tensor", None)
    wide_bsf: P = P(BATCH, None, "tensor")
    low_bsr: P = P(BATCH, None, None)
    logits_bkv: P = P(BATCH, None, "tensor")
    whole_logits_bkv: P = P(BATCH, None, None)

    def parameter(self, variable: nnx.Variable) -> P:
        """The spec of a parameter by its role; leading axes that its letters lack (layers) are
        never sharded."""
        spec = getattr(self, variable.get_metadata("role"))
        return P(*(None,) * (variable.get_value().ndim - len(spec)), *spec)

    def batch(self, ndim: int) -> P:
        """The spec of a batch field: rows over data and fsdp, the rest whole."""
        return P(BATCH, *(None,) * (ndim - 1))


RULES = ShardingRules()


def is_variable(node: object) -> bool:
    """For walks over a state that stop at parameters, where their role can be read."""
    return isinstance(node, nnx.Variable)
