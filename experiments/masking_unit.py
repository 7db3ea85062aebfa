"""What is masked together: tokens, whole words, spans (Joshi et al. 2020) or n-grams (Lan et al.
2020)?"""

from experiments.grid import Cell, Grid
from experiments.study import BERT_BASE, MLM_LOSS, PROBES, Scale, Study, proxies


def cells(_: Scale) -> Grid:
    return [
        Cell("token", {"data.mask_units": "token"}),
        Cell("whole word", {"data.mask_units": "whole-word"}),
        Cell("span", {"data.mask_units": "span"}),
        Cell("n-gram", {"data.mask_units": "ngram"}),
    ]


STUDY = Study(
    name="masking_unit",
    question="Should single tokens be masked, whole words, spans or n-grams?",
    cells=cells,
    baseline="token",
    metrics=(*PROBES, MLM_LOSS),
    papers=(),
    family="roberta",
    scales=proxies(smoke=("token", "span"), steps=(24, 1200, 5000))
    | {"paper": BERT_BASE},
    notes=(
        "Held-out MLM loss is of single masked tokens, and favours the cell that trains on them.",
        "No table of one paper has these four under one recipe.",
    ),
)  # fmt: skip
