"""What may layers share, and how narrow may tables be? ALBERT, Lan et al. 2020, tables 3 and 4."""

from configs.common import MINUTES
from experiments.grid import Cell, Grid, product
from experiments.study import MLM_LOSS, PROBES, Paper, Scale, Study, proxies


def cells(scale: Scale) -> Grid:
    narrow = 32 if scale.proxy else 128
    return product(
        [Cell("E=H", {"model.embedding_size": 0}), Cell("E<H", {"model.embedding_size": narrow})],
        [
            Cell("not shared", {"model.share": "none"}),
            Cell("attention", {"model.share": "attention"}),
            Cell("feed-forward", {"model.share": "feedforward"}),
            Cell("all", {"model.share": "all"}),
        ],
    )


STUDY = Study(
    name="sharing",
    question="What does it cost when layers share parameters, and when tables are narrower than "
    "the layers?",
    cells=cells,
    baseline="E=H, not shared",
    metrics=(MLM_LOSS, *PROBES),
    papers=(
        Paper(
            source="Lan et al. 2020, tables 3 and 4",
            scale="ALBERT-base, H = 768; E = 768 and E = 128",
            columns=("average",),
            rows={
                "E=H, not shared": (82.3,),
                "E=H, attention": (81.6,),
                "E=H, feed-forward": (79.5,),
                "E=H, all": (79.8,),
                "E<H, not shared": (81.6,),
                "E<H, attention": (81.7,),
                "E<H, feed-forward": (80.2,),
                "E<H, all": (80.1,),
            },
            judged="average",
        ),
    ),
    family="albert",
    scales=proxies(
        smoke=("E=H, not shared", "E<H, all"), steps=(24, 1000, 5000),
        recipe={**MINUTES, "data.mask_units": "token"},
    )
    | {"paper": Scale("base", "ALBERT-base", topology="v5e:16x16")},
    notes=(
        "At proxy scale there are 2 or 4 layers, so little is shared where 12 of the paper's "
        "layers are; E < H is 32 of 128 or of 256.",
        "The paper's average for E = 128 without sharing is 81.7 in its table 3, 81.6 in table 4.",
    ),
)  # fmt: skip
