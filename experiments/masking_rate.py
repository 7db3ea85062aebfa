"""How much should be masked? Wettig et al. 2023, Should You Mask 15% in Masked Language Modeling?

python -m experiments.run masking_rate --scale=smoke && python -m experiments.report masking_rate
"""

from experiments.grid import Cell, Grid
from experiments.study import (
    EFFICIENT_LARGE,
    MASK_ONLY,
    MLM_LOSS,
    PROBES,
    WETTIG,
    Paper,
    Scale,
    Study,
    masked,
    proxies,
)

RATES = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)


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
            **WETTIG,
            rows={
                "15%": (84.2, 90.9, 87.8, 93.3),
                "20%": (84.1, 91.3, 87.9, 92.7),
                "30%": (84.2, 91.6, 88.0, 93.0),
                "40%": (84.5, 91.6, 88.1, 92.8),
                "50%": (84.1, 91.1, 88.1, 92.7),
                "60%": (83.2, 90.7, 87.8, 92.6),
                "80%": (80.8, 87.9, 87.1, 90.5),
            },
        ),
    ),
    scales=proxies(smoke=("15%", "40%", "80%"))
    | {"paper": EFFICIENT_LARGE},
    family="roberta",
    notes=(
        "Every rate reads the same rows in the same order under a seed; a rate of 40% predicts "
        "more tokens of each.",
        "Evaluation masks 15% at 80/10/10 for all, so the training of no cell but that of 15% has "
        "the rate it is judged at, and none has the random tokens.",
    ),
)  # fmt: skip
