"""The corpus of a study: prepared once, for all of its cells."""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from bert_jax.errors import UserError
from experiments.grid import Value
from experiments.plan import Arm, Plan


def corpus_of(plan: Plan, given: Mapping[str, Value], root: Path) -> str:
    """Where it is: the prepared folder that was named, or one below `root` that studies and scales
    with the same corpus share."""
    if named := str(given.get("corpus.prepared", "")):
        if "://" in named:
            raise UserError(f"--config.corpus.prepared={named}: name a folder of this machine")
        return str(Path(named).resolve())
    facts = json.dumps(_fields(plan.arm(plan.baseline)), sort_keys=True)
    return str(root / "corpora" / hashlib.sha256(facts.encode()).hexdigest()[:12])


def prepare_command(plan: Plan, corpus: str) -> list[str]:
    arm = plan.arm(plan.baseline)
    return [
        sys.executable, "-m", "bert_jax.prepare", f"--config={arm.config}", f"--output={corpus}",
        *(f"--config.{name}={value}" for name, value in _fields(arm).items()),
    ]  # fmt: skip


def _fields(arm: Arm) -> dict[str, Value]:
    """What a prepared folder is a function of, beside the preset."""
    return {
        name: value
        for name, value in arm.settings.items()
        if (name.startswith("corpus.") or name == "model.vocab_size") and name != "corpus.prepared"
    }
