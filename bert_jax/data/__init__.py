"""Text to batches, in the order of the files: corpora, sentences, tokenizers, prepare, records,
examples, masking, loader. NumPy only; jax is never imported here (grain, in loader, aside)."""
