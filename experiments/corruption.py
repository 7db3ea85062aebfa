"""What becomes of a chosen token: always [MASK], or 80/10/10? Wettig et al. 2023."""

from experiments.grid import Cell, Grid, product
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


def cells(scale: Scale) -> Grid:
    return product(
        [
            Cell("80/10/10", {"data.mask_token_share": 0.8, "data.random_token_share": 0.1}),
            Cell("mask only", MASK_ONLY),
        ],
        [Cell("15%", masked(0.15, scale)), Cell("40%", masked(0.4, scale))],
    )


STUDY = Study(
    name="corruption",
    question="Is it better to mask every chosen token than to keep some and replace some?",
    cells=cells,
    baseline="80/10/10, 15%",
    metrics=(*PROBES, MLM_LOSS),
    papers=(
        Paper(
            **WETTIG,
            rows={
                "80/10/10, 15%": (83.7, 90.4, 87.8, 93.2),
                "mask only, 15%": (84.2, 90.9, 87.8, 93.3),
                "80/10/10, 40%": (84.3, 91.2, 87.9, 93.0),
                "mask only, 40%": (84.5, 91.6, 88.1, 92.8),
            },
        ),
    ),
    family="roberta",
    scales=proxies(smoke=("80/10/10, 15%", "mask only, 15%"), steps=(24, 1200, 5000))
    | {"paper": EFFICIENT_LARGE},
    notes=(
        "Held-out MLM loss is taken at 80/10/10, on which mask-only cells were not trained: it "
        "favours the other cells. The frozen encoder reads whole text and favours none.",
    ),
)  # fmt: skip
