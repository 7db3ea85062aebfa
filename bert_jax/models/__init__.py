"""Encoders and their heads as flax.nnx modules. Knows jax and flax alone.

One alphabet for every shape: B batch, S sequence, D hidden, N heads, H head size,
F feed-forward, V vocabulary (padded), K predictions, L layers, E width of the tables, P positions,
T segment types.
"""
