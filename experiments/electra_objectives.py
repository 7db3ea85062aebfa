"""Where does ELECTRA's gain come from? Clark et al. 2020, table 5."""

from experiments.grid import Cell, Grid
from experiments.study import PROBES, Paper, Scale, Study, proxies


def cells(scale: Scale) -> Grid:
    weight = 10.0 if scale.proxy else 50.0
    return [
        Cell("BERT", {"objective.rtd": 0.0}),
        Cell("ELECTRA 15%", {"objective.rtd": 0.0, "objective.rtd_masked": weight}),
        Cell("Replace MLM", {"objective.rtd": 0.0, "objective.replace_mlm": 1.0}),
        Cell("All-Tokens MLM", {"objective.rtd": 0.0, "objective.all_tokens_mlm": 1.0}),
        Cell("ELECTRA", {"objective.rtd": weight}),
    ]


RECIPE = {"model.embedding_size": 0, "generator.width": 0.25, "generator.tie": "embeddings"}
STUDY = Study(
    name="electra_objectives",
    question="Is it the loss over all tokens, the missing [MASK], or the task, that makes replaced "
    "token detection work?",
    cells=cells,
    baseline="BERT",
    metrics=PROBES,
    papers=(
        Paper(
            source="Clark et al. 2020, table 5",
            scale="base size, GLUE, development sets, medians of 10 fine-tunings",
            columns=("GLUE",),
            rows={
                "BERT": (82.2,),
                "ELECTRA 15%": (82.4,),
                "Replace MLM": (82.4,),
                "All-Tokens MLM": (84.3,),
                "ELECTRA": (85.0,),
            },
            judged="GLUE",
        ),
    ),
    family="electra",
    scales=proxies(recipe=RECIPE, smoke=("BERT", "ELECTRA"), steps=(24, 900, 5000))
    | {"paper": Scale("base", "ELECTRA-base", topology="v5e:4x4")},
    notes=(
        "BERT is here an encoder trained on MLM by itself; the others have a generator of a "
        "quarter of their width beside them, whose FLOPs are not taken off their steps.",
        "Of what these cells train on, finding replaced tokens is the nearest to whether words are "
        "in their order.",
        "An MLM loss of these cells is the generator's or on other inputs, so none is compared.",
    ),
)
