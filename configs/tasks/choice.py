"""Which of several texts goes on: SWAG (Zellers et al. 2018), and any file of its columns.

  python -m bert_jax.finetune --config=configs/tasks/choice.py:swag --data=DIR --init=MODEL \\
      --workdir=runs/swag

The recipe is that of Devlin et al. 2018, 4.4.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.common import preset
from configs.tasks.common import recipe

PRESETS: dict[str, dict[str, Any]] = {
    "swag": {
        "kind": "choose",
        "train": "train.csv",
        "dev": "val.csv",
        "texts": "startphrase ending0 ending1 ending2 ending3",
    }
}


def get_config(name: str = "swag") -> ConfigDict:
    return recipe(preset(PRESETS, name), {"optimizer.learning_rate": 2e-5, "batch_size": 16})
