"""Does a sentence-level loss help? ALBERT, Lan et al. 2020, table 5: none, NSP, SOP."""

from configs.common import MINUTES
from experiments.grid import Cell, Grid
from experiments.study import MLM_LOSS, PROBES, Metric, Paper, Scale, Study, proxies


def cells(_: Scale) -> Grid:
    return [
        Cell("none", {"objective.sop": 0.0, "data.pairs": "none"}),
        Cell("NSP", {"objective.sop": 0.0, "objective.nsp": 1.0, "data.pairs": "nsp"}),
        Cell("SOP", {"objective.sop": 1.0, "data.pairs": "sop"}),
    ]


STUDY = Study(
    name="sentence_loss",
    question="Does learning how two segments follow each other help an encoder: next sentence "
    "prediction, sentence order prediction, or neither?",
    cells=cells,
    baseline="none",
    metrics=(
        *PROBES,
        MLM_LOSS,
        Metric("eval_nsp_accuracy", "held-out NSP accuracy of its own head"),
        Metric("eval_sop_accuracy", "held-out SOP accuracy of its own head"),
    ),
    papers=(
        Paper(
            source="Lan et al. 2020, table 5",
            scale="ALBERT-base, 125,000 steps of 4,096",
            columns=("MLM", "NSP", "SOP", "MNLI", "SST-2", "RACE", "average"),
            rows={
                "none": (54.9, 52.4, 53.3, 81.5, 89.9, 61.7, 79.0),
                "NSP": (54.5, 90.5, 52.0, 81.6, 91.1, 62.3, 79.2),
                "SOP": (54.0, 78.9, 86.5, 82.0, 90.3, 64.0, 80.1),
            },
            judged="average",
        ),
    ),
    family="albert",
    scales=proxies(
        # Layers of their own and no narrow tables: what is shared learns too little in minutes.
        recipe={**MINUTES, "model.share": "none", "model.embedding_size": 0,
                "data.mask_units": "token"},
        steps=(24, 1400, 6000),
    )
    | {"paper": Scale("base", "ALBERT-base", topology="v5e:16x16")},
    notes=(
        "The verdict is by a question that none of the three trains on. Whether B follows A is "
        "what NSP trains on, which of two came first what SOP does: a cell is good at its own, and "
        "that says little of the encoder.",
        "MLM losses are each on rows of the cell's own kind: half of NSP's second segments are of "
        "another document, half of SOP's pairs are swapped. They are no measure of one thing.",
        "At proxy scale the encoder is BERT's, with layers of their own; the paper's is ALBERT's.",
        "The average is over SQuAD 1.1 and 2.0, MNLI, SST-2 and RACE.",
    ),
)  # fmt: skip
