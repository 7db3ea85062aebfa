"""Pretraining of encoder-only transformers in JAX: one CPU, one GPU or a TPU pod, one program."""

__version__ = "0.1.0"
