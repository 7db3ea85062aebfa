"""What a run tells of itself: its corpus at the start, its held-out scores at the end."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from bert_jax.data.draws import Purpose, key, permute
from bert_jax.data.examples import Examples
from bert_jax.data.loader import PhasedBatches
from bert_jax.data.masking import overflow_share
from bert_jax.data.phases import Phase
from bert_jax.data.unigram import detector_losses
from bert_jax.store import Folder
from bert_jax.training.metrics import read_metrics
from bert_jax.training.rates import Rates


def corpus(folder: object, manifest: dict, held_out: Examples) -> str:
    splits = manifest["splits"]
    documents = sum(split["documents"] for split in splits.values())
    return (
        f"corpus: {manifest['characters'] / 1e6:.2f} MB in {documents} documents ({folder})\n"
        f"  train: {splits['train']['tokens']} tokens\n"
        f"  held out: {splits['held_out']['tokens']} tokens, {len(held_out)} examples "
        f"({held_out.one_sentence} of one sentence)"
    )


def phases(run: Sequence[Phase], batches: PhasedBatches, examples: Mapping[int, Examples]) -> str:
    """What each phase reads, a line each."""
    lines = []
    for phase, (begin, end) in zip(run, batches.epochs, strict=True):
        sizes, mine = phase.data, examples[phase.data.sequence_length]
        lost = overflow_share(sizes)
        lines.append(
            f"steps {phase.begin + 1} to {phase.begin + phase.steps}: {sizes.batch_size} rows of "
            f"{sizes.sequence_length}, K {sizes.max_predictions}; epoch {begin:.2f} to {end:.2f} "
            f"of {len(mine)} examples ({mine.one_sentence} of one sentence); {_filled(mine)}"
            + (f"; K leaves {lost:.1%} of the chosen tokens of a full row unmasked" if lost else "")
        )
    return "\n".join(lines)


def _filled(examples: Examples) -> str:
    """How much of a row is tokens, by a sample of the examples."""
    numbers = permute(np.arange(min(len(examples), 512)), len(examples), key(0, Purpose.ORDER, 0))
    keys = key(0, 0, numbers)
    segments = examples.batch(numbers, keys)["segment_ids"]
    full, documents = np.mean(segments > 0), np.mean(np.max(segments, axis=1))
    filled = f"{full:.1%} of a row is tokens"
    if documents > 1:
        filled += f", {full / documents:.1%} with one document a row"
    left_out, tokens = examples.left_out(numbers, keys)
    if left_out:
        filled += f"; of the tokens of its segments {left_out / tokens:.1%} are cut off to fit it"
    if examples.cut_sentences:
        filled += f"; {examples.cut_sentences} sentences are too long for it and stand in parts"
    return filled


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


def held_out(seed: int, workdir: Folder) -> str:
    """The last held-out scores, in sentences."""
    last = read_metrics(workdir)[-1]
    lines = [f"held out after {last['step']} steps, seed {seed}:"]
    if "eval_loss" in last and last["eval_loss"] is None:
        return f"{lines[0]} no finite loss"
    if "eval_mlm_loss" in last:
        loss, unigram = last["eval_mlm_loss"], last["eval_unigram_loss"]
        lines.append(
            f"  MLM loss {loss:.4f} nats on {last['eval_mlm_weight']:.0f} masked tokens; "
            f"{abs(unigram - loss):.4f} {'under' if loss <= unigram else 'over'} the unigram "
            f"model's {unigram:.4f}"
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


def pace(rates: Rates, left: int, spikes: Sequence[tuple[int, float, float]]) -> str:
    """Where this start's time went, how long `left` steps take at its speed, and which losses
    stood out."""
    whole, steps, seconds = rates.totals()
    shares = rates.shares()
    others = ", ".join(f"{name} {share:.1%}" for name, share in shares.items() if name != "steps")
    lines = [f"goodput {shares['steps']:.1%} of {_time(whole)} in steps; {others}"]
    if steps:
        speed = steps / seconds
        lines.append(f"{speed:.3g} steps a second; {left} steps take {_time(left / speed)}")
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        peak, limit = stats["peak_bytes_in_use"], stats.get("bytes_limit", 0)
        lines.append(f"peak memory of a device {peak / 2**30:.2f} of {limit / 2**30:.2f} GiB")
    if spikes:
        found = ", ".join(
            f"{step} ({loss:.3f}, {usual:.3f} before)" for step, loss, usual in spikes
        )
        lines.append(f"spikes of the loss at steps {found}")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    """'3 d 4 h', '5 min 2 s', '1.3 s'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    for unit, size, smaller, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} {seconds % size // small:.0f} {smaller}"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
