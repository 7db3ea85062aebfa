"""Large batches, with the learning rate raised: RoBERTa, Liu et al. 2019, table 3."""

from experiments.grid import Cell, Grid
from experiments.study import MLM_LOSS, PROBES, Paper, Scale, Study, proxies

NAMES = ("batch 1×", "batch 8×", "batch 32×")  # the paper's 256, 2,000 and 8,000


def cells(scale: Scale) -> Grid:
    batches = (32, 256, 1024) if scale.proxy else (256, 2048, 8192)
    rates = (1.5e-3, 3e-3, 4e-3) if scale.proxy else (1e-4, 7e-4, 1e-3)
    return [
        Cell(name, {"data.batch_size": batch, "optimizer.learning_rate": rate})
        for name, batch, rate in zip(NAMES, batches, rates, strict=True)
    ]


STUDY = Study(
    name="batch_size",
    question="For as many passes over the text, are larger batches with higher rates better?",
    cells=cells,
    baseline=NAMES[0],
    metrics=(MLM_LOSS, *PROBES),
    papers=(
        Paper(
            source="Liu et al. 2019, table 3",
            scale="BERT-base; 256 × 1M, 2K × 125K and 8K × 31K steps",
            columns=("perplexity", "MNLI-m", "SST-2"),
            rows={
                NAMES[0]: (3.99, 84.7, 92.7),
                NAMES[1]: (3.68, 85.2, 92.9),
                NAMES[2]: (3.77, 84.6, 92.8),
            },
            judged="perplexity",
            lower=True,
            least=0.05,
        ),
    ),
    family="roberta",
    budgets=("tokens",),
    scales=proxies(smoke=NAMES[:2], steps=(48, 2400, 16_000))
    | {
        "paper": Scale(
            "base", "BERT-base", {"train.steps": 1_000_000, "optimizer.warmup_steps": 24_000},
            steps=0, topology="v5e:16x16",
        )
    },
    notes=("Tokens are equal, so a batch 8 times as large takes an eighth of the steps.",),
)  # fmt: skip
