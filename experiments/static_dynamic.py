"""Are masks to be drawn anew in every epoch? RoBERTa, Liu et al. 2019, table 1."""

from configs.common import MINUTES
from experiments.grid import Cell, Grid
from experiments.study import BERT_BASE, MLM_LOSS, PROBES, Paper, Scale, Study, proxies


def cells(scale: Scale) -> Grid:
    """The paper has 10 copies over 40 epochs, so that each mask is seen 4 times."""
    copies = 1 if scale.proxy else 10
    return [Cell("static", {"data.static_copies": copies}), Cell("dynamic")]


STUDY = Study(
    name="static_dynamic",
    question="Are masks that are drawn anew in every epoch better than masks drawn once?",
    cells=cells,
    baseline="static",
    metrics=(MLM_LOSS, *PROBES),
    papers=(
        Paper(
            source="Liu et al. 2019, table 1",
            scale="BERT-base, medians of 5 seeds",
            columns=("SQuAD 2.0 F1", "MNLI-m", "SST-2"),
            rows={"static": (78.3, 84.3, 92.5), "dynamic": (78.7, 84.0, 92.9)},
            judged="SQuAD 2.0 F1",
        ),
    ),
    family="roberta",
    # Little text, for several epochs of it: in the first, static and dynamic are one thing.
    scales=proxies(cpu={"corpus.held_out": 0.85}, recipe=MINUTES, steps=(24, 1400, 6000))
    | {"paper": BERT_BASE},
    notes=(
        "At proxy scale there is one copy of static masks; at scale cpu most of the corpus is held "
        "out, so that training passes over the rest several times. At scale gpu the number of "
        "epochs is that of the corpus that is given: take one that is small.",
    ),
)  # fmt: skip
