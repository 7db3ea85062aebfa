"""Names in text: CoNLL-2003 (Tjong Kim Sang and De Meulder 2003) and WNUT-17 (Derczynski et al.
2017), tagged BIO; any file of their form by --config.task.train and --config.task.dev.

  python -m bert_jax.finetune --config=configs/tasks/ner.py:wnut17 --data=DIR --init=MODEL \\
      --workdir=runs/wnut17

DIR has train.txt and dev.txt: a word and, last, its tag in a line, a blank line after a sentence.
The recipe is that of Devlin et al. 2018, 5.3.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.common import preset
from configs.tasks.common import recipe

FILES = {"kind": "tag", "train": "train.txt", "dev": "dev.txt"}
PRESETS: dict[str, dict[str, Any]] = {"conll2003": FILES, "wnut17": FILES}


def get_config(name: str = "wnut17") -> ConfigDict:
    return recipe(preset(PRESETS, name), {"optimizer.learning_rate": 5e-5})
