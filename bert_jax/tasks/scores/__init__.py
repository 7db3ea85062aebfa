"""The scores of fine-tuned models, as their papers define them. NumPy alone.

Everywhere what is right comes before what was predicted. A score is always a number: where its
formula divides by zero, its docstring says what stands there. Scores are fractions, those of
SQuAD percentages: each as it is published.
"""

from collections.abc import Callable

import numpy as np

from bert_jax.tasks.scores.classes import (
    accuracy,
    f1,
    macro_f1,
    matthews,
    pearson,
    spearman,
)

# From the name in a config to the score of labels [B] and predictions [B]; more is better in all.
# GLUE (Wang et al. 2018, arXiv:1804.07461, table 1) has matthews for CoLA, pearson and spearman for
# STS-B, accuracy and f1 for MRPC and QQP, accuracy for the others.
METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
