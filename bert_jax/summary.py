"""What a run tells of itself: its corpus at the start, its held-out scores at the end."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bert_jax.data.examples import Examples
from bert_jax.data.unigram import detector_losses
from bert_jax.training.metrics import read_metrics


def corpus(folder: object, manifest: dict, examples: Examples, held_out: Examples) -> str:
    splits = manifest["splits"]
    documents = sum(split["documents"] for split in splits.values())
    return (
        f"corpus: {manifest['characters'] / 1e6:.2f} MB in {documents} documents ({folder})\n"
        f"  train: {splits['train']['tokens']} tokens, {len(examples)} examples "
        f"({examples.one_sentence} of one sentence)\n"
        f"  held out: {splits['held_out']['tokens']} tokens, {len(held_out)} examples "
        f"({held_out.one_sentence} of one sentence)"
    )


def baselines(
    unigram: float, tallies: Mapping[str, np.ndarray], counts: np.ndarray
) -> dict[str, float]:
    """The losses of predictors that read no context: of masked tokens and, where the objective
    tallied them, of replaced ones."""
    found = {"eval_unigram_loss": unigram}
    for name in [name.removesuffix("_seen") for name in tallies if name.endswith("_seen")]:
        constant, frequency = detector_losses(
            tallies[f"{name}_seen"], tallies[f"{name}_seen_replaced"], counts
        )
        found |= {f"eval_{name}_constant_loss": constant, f"eval_{name}_frequency_loss": frequency}
    return found


def held_out(seed: int, workdir: Path) -> str:
    """The last held-out scores, in sentences."""
    last = read_metrics(workdir)[-1]
    lines = [f"held out after {last['step']} steps, seed {seed}:"]
    if "eval_mlm_loss" in last:
        loss, unigram = last["eval_mlm_loss"], last["eval_unigram_loss"]
        lines.append(
            f"  MLM loss {loss:.4f} nats on {last['eval_mlm_weight']:.0f} masked tokens; "
            f"{unigram - loss:.4f} under the unigram model's {unigram:.4f}"
        )
    for name in ("rtd", "rtd_masked"):
        if f"eval_{name}_loss" in last:
            found = {key: last[f"eval_{name}_{key}"] for key in _DETECTED}
            lines.append(
                "  RTD loss {loss:.4f} nats on {weight:.0f} tokens, {replaced:.1%} replaced; "
                "a constant answer {constant_loss:.4f}, by token frequency {frequency_loss:.4f}\n"
                "  replaced tokens found {recall:.1%}, of those said to be replaced "
                "{precision:.1%} are".format(**found)
            )
    for name in ("nsp", "sop"):
        if f"eval_{name}_loss" in last:
            lines.append(
                f"  {name.upper()} accuracy {last[f'eval_{name}_accuracy']:.4f} on "
                f"{last[f'eval_{name}_weight']:.0f} pairs, lower 95% bound "
                f"{last[f'eval_{name}_accuracy_lower95']:.4f}; chance 0.5"
            )
    return "\n".join(lines)


_DETECTED = (
    "loss", "weight", "replaced", "constant_loss", "frequency_loss", "recall", "precision",
)  # fmt: skip
