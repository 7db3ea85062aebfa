"""What should a row be? RoBERTa, Liu et al. 2019, table 2: pairs with NSP, or plain sentences."""

from experiments.grid import Cell, Grid, Value
from experiments.study import BERT_BASE, MLM_LOSS, PROBES, Paper, Scale, Study, proxies

NSP: dict[str, Value] = {
    "objective.nsp": 1.0, "data.pairs": "nsp", "model.pooler": True, "model.type_vocab_size": 2,
}  # fmt: skip


def cells(_: Scale) -> Grid:
    return [
        Cell("segment pair, NSP", NSP | {"data.format": "segment-pair"}),
        Cell("sentence pair, NSP", NSP | {"data.format": "sentence-pair"}),
        Cell("full sentences", {"data.format": "full-sentences"}),
        Cell("doc sentences", {"data.format": "doc-sentences"}),
    ]


STUDY = Study(
    name="input_format",
    question="Pairs of segments or of sentences with NSP, or plain text without it?",
    cells=cells,
    baseline="segment pair, NSP",
    metrics=(*PROBES, MLM_LOSS),
    papers=(
        Paper(
            source="Liu et al. 2019, table 2",
            scale="BERT-base, 1M steps of 256",
            columns=("SQuAD 1.1", "SQuAD 2.0", "MNLI-m", "SST-2", "RACE"),
            rows={
                "segment pair, NSP": (90.4, 78.7, 84.0, 92.9, 64.2),
                "sentence pair, NSP": (88.7, 76.2, 82.9, 92.1, 63.0),
                "full sentences": (90.4, 79.1, 84.7, 92.5, 64.8),
                "doc sentences": (90.6, 79.7, 84.7, 92.7, 65.6),
            },
            judged="MNLI-m",
        ),
    ),
    family="roberta",
    budgets=("tokens",),
    scales=proxies(smoke=("segment pair, NSP", "full sentences"), steps=(24, 1000, 5000))
    | {"paper": BERT_BASE},
    notes=(
        "The verdict is by a question that no cell trains on; whether B follows A is what the two "
        "with NSP train on.",
        "In the probe a pair has two [SEP] between A and B, as RoBERTa's have; plain sentences "
        "were never seen so.",
        "Each format cuts the same documents into other rows, so MLM losses are of other rows too.",
        "Real tokens are equal; the paper makes them so by larger batches of doc sentences, this "
        "study by more steps.",
    ),
)  # fmt: skip
