"""Pretraining of encoder-only transformers in JAX: one program for a CPU, a GPU or a TPU mesh."""

__version__ = "0.1.0"
