"""Text to batches, in the order of the files: corpora, sentences, tokenizers, prepare, records,
examples, masking, loader. On NumPy; jax is never imported here (grain, in loader, brings it)."""
