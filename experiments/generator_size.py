"""How large should ELECTRA's generator be, and what should it share? Clark et al. 2020, figure 3
and section 3.2."""

from experiments.grid import Cell, Grid, chain, product
from experiments.study import PROBES, Paper, Scale, Study, proxies


def cells(_: Scale) -> Grid:
    tied = [Cell("tables tied", {"generator.tie": "embeddings"})]
    widths = [
        Cell("1/4", {"generator.width": 0.25}),
        Cell("1/2", {"generator.width": 0.5}),
        Cell("1", {"generator.width": 1.0}),
    ]
    return chain(
        product(widths, tied),
        [
            Cell("1, nothing tied", {"generator.width": 1.0, "generator.tie": "none"}),
            Cell("1, all tied", {"generator.width": 1.0, "generator.tie": "all"}),
        ],
    )


STUDY = Study(
    name="generator_size",
    question="How wide should the generator be beside its discriminator, and what should the two "
    "have in common?",
    cells=cells,
    baseline="1, tables tied",
    metrics=PROBES,
    papers=(
        Paper(
            source="Clark et al. 2020, section 3.2",
            scale="generator and discriminator of equal size, 500,000 steps, GLUE",
            columns=("GLUE",),
            rows={
                "1, nothing tied": (83.6,),
                "1, tables tied": (84.3,),
                "1, all tied": (84.4,),
            },
            judged="GLUE",
        ),
    ),
    family="electra",
    scales=proxies(
        recipe={"model.embedding_size": 0},
        smoke=("1/4, tables tied", "1, tables tied"), steps=(24, 900, 5000),
    )
    | {"paper": Scale("base", "ELECTRA-base", topology="v5e:4x4")},
    notes=(
        "Steps are equal, so a wider generator costs more FLOPs. Figure 3 has no numbers in print; "
        "its best generators are a quarter to a half as wide as the discriminator.",
    ),
)  # fmt: skip
