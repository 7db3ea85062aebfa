"""GLUE (Wang et al. 2018, table 1): nine tasks of one sentence or two, with their metrics.

  python -m bert_jax.finetune --config=configs/tasks/glue.py:sst2 --data=DIR \\
      --init=MODEL --workdir=runs/sst2

DIR has train.jsonl and dev.jsonl with the columns that are named here, those of the data sets'
releases on TFDS and the Hugging Face Hub; --config.task.train=tfds:glue/sst2#train and
--config.task.dev=tfds:glue/sst2#validation read TFDS's own.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.common import preset
from configs.tasks.common import recipe

TWO = {"texts": "sentence1 sentence2"}
PRESETS: dict[str, dict[str, Any]] = {
    "cola": {"metrics": "matthews accuracy"},
    "sst2": {"metrics": "accuracy"},
    "mrpc": TWO | {"metrics": "f1 accuracy"},
    "stsb": TWO | {"kind": "regress", "metrics": "spearman pearson"},
    "qqp": {"texts": "question1 question2", "metrics": "f1 accuracy"},
    "mnli": {"texts": "premise hypothesis", "metrics": "accuracy"},
    "qnli": {"texts": "question sentence", "metrics": "accuracy"},
    "rte": TWO | {"metrics": "accuracy"},
    "wnli": TWO | {"metrics": "accuracy"},
}


def get_config(name: str = "sst2") -> ConfigDict:
    return recipe(preset(PRESETS, name), {})
