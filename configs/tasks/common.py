"""The recipe of fine-tuning that the papers share (Devlin et al. 2018, A.3): AdamW, three epochs of
batches of 32, a tenth of the steps to warm up and then a linear decay to 0."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs.common import differing


def recipe(task: Mapping[str, Any], differences: Mapping[str, Any]) -> ConfigDict:
    """The recipe for a task; fields named `part.field` differ."""
    config = ConfigDict(
        dict(
            seed=0,
            pretrained=True,
            epochs=3,
            batch_size=32,
            accumulation=1,
            warmup=0.1,
            dropout=0.1,
            dtype="float32",
            patience=0,
            deterministic=False,
            log_every=10,
            task=dict(
                kind="classify",
                data="",
                train="train.jsonl",
                dev="dev.jsonl",
                texts="sentence",
                label="label",
                header="",
                word=0,
                tag=-1,
                labels="",
                class_weights="",
                quoted=True,
                scheme="bio",
                metrics="accuracy",
                max_length=128,
                lengths="32 64 128 256 512",
                stride=128,
                max_answer_length=30,
                unanswerable=True,
            ),
            optimizer=dict(
                name="adamw",
                learning_rate=3e-5,
                beta1=0.9,
                beta2=0.999,
                epsilon=1e-6,
                weight_decay=0.01,
                clip_norm=1.0,
                bias_correction=True,
            ),
            adapt=dict(kind="", rank=8, alpha=8.0, targets="query value", size=64),
            depth=dict(decay=1.0, frozen_layers=0, unfreeze_epochs=0.0),
            mesh=dict(data=-1, fsdp=1, tensor=1, slices=1),
        )
    )
    mine = {f"task.{name}": value for name, value in task.items()}
    return differing(config, mine | dict(differences))
