"""What a run will need on a TPU pod, from the real compiler, on a machine without a TPU."""
