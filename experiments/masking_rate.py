"""How much should be masked? Wettig et al. 2023, Should You Mask 15% in Masked Language Modeling?

python -m experiments.run masking_rate --scale=smoke && python -m experiments.report masking_rate
"""

from experiments.grid import Cell, Grid
from experiments.study import MLM_LOSS, PROBES, Paper, Scale, Study, masked, proxies

RATES = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
# Theirs, without its 10% and with its 70%: chosen tokens all become [MASK].
MASK_ONLY = {"data.mask_token_share": 1.0, "data.random_token_share": 0.0}


def cells(scale: Scale) -> Grid:
    return [Cell(f"{rate:.0%}", MASK_ONLY | masked(rate, scale)) for rate in RATES]


STUDY = Study(
    name="masking_rate",
    question="Which share of the tokens should be masked, from 10 to 80 in 100?",
    cells=cells,
    baseline="15%",
    metrics=(MLM_LOSS, *PROBES),
    papers=(
        Paper(
            source="Wettig et al. 2023 (README of its code, DinkyTrain)",
            scale="BERT-large, an efficient pre-norm recipe, fine-tuned; development sets",
            columns=("MNLI", "QNLI", "QQP", "SST-2"),
            rows={
                "15%": (84.2, 90.9, 87.8, 93.3),
                "20%": (84.1, 91.3, 87.9, 92.7),
                "30%": (84.2, 91.6, 88.0, 93.0),
                "40%": (84.5, 91.6, 88.1, 92.8),
                "50%": (84.1, 91.1, 88.1, 92.7),
                "60%": (83.2, 90.7, 87.8, 92.6),
                "80%": (80.8, 87.9, 87.1, 90.5),
            },
            judged="MNLI",
        ),
    ),
    scales=proxies(smoke=("15%", "40%", "80%"))
    | {
        "paper": Scale(
            "large", "RoBERTa-large at length 128, 23,000 steps of 4,096 (Izsak et al. 2021)",
            {"data.sequence_length": 128, "data.batch_size": 4096, "train.steps": 23_000,
             "optimizer.warmup_steps": 1400},
            topology="v5e:8x8",
        )
    },
    family="roberta",
    notes=(
        "Every rate reads the same rows in the same order under a seed; a rate of 40% predicts "
        "more tokens of each.",
        "Evaluation masks 15% at 80/10/10 for all, so the training of no cell but that of 15% has "
        "the rate it is judged at, and none has the random tokens.",
    ),
)  # fmt: skip
