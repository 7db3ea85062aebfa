"""BERT, RoBERTa, ALBERT and ELECTRA at equal FLOPs, at equal tokens and at equal wall time."""

from typing import Any

from configs.common import MINUTES
from experiments.grid import Cell, Grid
from experiments.study import MLM_LOSS, PROBES, Paper, Scale, Study, proxies


def cells(scale: Scale) -> Grid:
    """Each as its file in configs/ has it: at proxy scale its preset for minutes."""
    own: dict[str, Any] = {}
    if scale.proxy:
        own = {name: value for name, value in MINUTES.items() if name not in scale.settings}
    return [
        Cell("BERT", own, family="bert"),
        Cell("RoBERTa", family="roberta"),
        Cell("ALBERT", family="albert"),
        Cell("ELECTRA", family="electra"),
    ]


# What the presets for minutes differ in beside their sizes stays theirs.
_OWN = ("data.mask_rate", "data.max_predictions", "optimizer.", "model.hidden_dropout")
SIZES = {name: value for name, value in MINUTES.items() if not name.startswith(_OWN)}

STUDY = Study(
    name="variants",
    question="Which of BERT, RoBERTa, ALBERT and ELECTRA gives the better encoder for the same "
    "FLOPs, the same tokens and the same time?",
    cells=cells,
    baseline="BERT",
    metrics=(*PROBES, MLM_LOSS),
    papers=(
        Paper(
            source="Clark et al. 2020, table 1",
            scale="small models of about equal FLOPs, GLUE, development sets",
            columns=("GLUE",),
            rows={"BERT": (75.1,), "ELECTRA": (79.9,)},
            judged="GLUE",
        ),
        Paper(
            source="Lan et al. 2020, table 2",
            scale="base models, equal steps; ALBERT with 12M parameters, BERT with 108M",
            columns=("MNLI", "SST-2", "RACE", "average"),
            rows={"BERT": (84.5, 92.8, 68.2, 82.3), "ALBERT": (81.6, 90.3, 64.0, 80.1)},
            judged="average",
        ),
        Paper(
            source="Liu et al. 2019, table 2 (segment pairs with NSP against full sentences)",
            scale="base models, 1M steps of 256",
            columns=("MNLI", "SST-2", "RACE"),
            rows={"BERT": (84.0, 92.9, 64.2), "RoBERTa": (84.7, 92.5, 64.8)},
            judged="MNLI",
        ),
    ),
    budgets=("flops", "tokens", "time"),
    scales=proxies(recipe=SIZES, smoke=("BERT", "ELECTRA"), steps=(24, 1000, 4000))
    | {"paper": Scale("base", "the base models of the papers", topology="v5e:16x16")},
    notes=(
        "The baseline's steps say how large each budget is; the others take the steps that use it "
        "up. FLOPs are those of matrix products, a generator's among them.",
        "At proxy scale each is its preset for minutes, so ELECTRA has a generator of its own "
        "width, all weights tied, and masks 15%, the others 30%; the tables of ALBERT and ELECTRA "
        "are half as wide as their layers.",
        "Beside MLM BERT trains on whether B follows A, ALBERT on which of two came first: these "
        "questions are secondary. Of what cells train on, finding replaced tokens, which is "
        "ELECTRA's, is the nearest to whether words are in their order.",
        "RoBERTa's pairs have two [SEP] between A and B, which it trained without: it was never "
        "shown a pair.",
        "ELECTRA's MLM is its generator's, and stands in no comparison. RoBERTa reads full "
        "sentences, so that its MLM loss is of other rows than that of the pairs of the others.",
    ),
)
