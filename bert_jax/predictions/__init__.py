"""What `python -m bert_jax.predict` is asked for: one file a task, and what they share."""
