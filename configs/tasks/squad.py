"""SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016 and 2018): where in a context the answer to a question
stands. The recipe is that of Devlin et al. 2018, 4.2 and 4.3, and the released code's.

  python -m bert_jax.finetune --config=configs/tasks/squad.py:v2 --data=DIR --init=MODEL \\
      --workdir=runs/squad2

DIR has train.json and dev.json in the form in which SQuAD is published.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.common import preset
from configs.tasks.common import recipe

FILES = {"kind": "answer", "train": "train.json", "dev": "dev.json", "max_length": 384}
PRESETS: dict[str, dict[str, Any]] = {
    "v1": FILES | {"unanswerable": False},
    "v2": FILES | {"unanswerable": True},
}


def get_config(name: str = "v2") -> ConfigDict:
    return recipe(preset(PRESETS, name), {"optimizer.learning_rate": 5e-5, "epochs": 2})
