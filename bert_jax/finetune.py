"""Fine-tune an encoder on labelled data, and score it after every epoch.

  python -m bert_jax.finetune --config=configs/tasks/glue.py:sst2 --data=data/sst2 \\
      --init=runs/base --workdir=runs/sst2 --seeds=5

MODEL (--init) is a workdir of bert_jax.pretrain or a Hugging Face folder. --data is the folder of
the files that task.train and task.dev name; any field can be set, as --config.epochs=4. With
--seeds=N the task is trained N times, from config.seed on, in WORKDIR/seed-K, and the spread is
told: of small tasks one seed says little. On SIGTERM it saves the step that it is at and leaves
with status 143; the same command again goes on from there or, killed in another way, after the last
epoch that was finished, to the same numbers (on a GPU with --config.deterministic=True). The
workdir then holds config.json, model.json, tokenizer/, checkpoints/, metrics.jsonl, and scores.json
and predictions.jsonl of the best epoch.
With --config.adapt.kind=lora or bottleneck all of MODEL stays as it is: adapters and the head are
what is trained, and what the checkpoints hold. --check reads the data, says what is in it, and
ends.
"""

import json
import math
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import jax
import optax
from absl import flags
from flax import nnx
from jax.sharding import Mesh

from bert_jax import beginning, cli, finetuned, pretrained, progress
from bert_jax.data.labelled.batches import LabelledBatches
from bert_jax.data.labelled.labels import LabelSet
from bert_jax.data.loader import read
from bert_jax.errors import Preempted, UserError
from bert_jax.files import lock, write_whole
from bert_jax.kinds import KINDS, label_set, row_format
from bert_jax.models.adapters import AdaptConfig, split
from bert_jax.models.config import DTYPES, EncoderConfig
from bert_jax.store import Folder, absolute, reach
from bert_jax.task import TaskConfig
from bert_jax.tasks.base import FineTuning
from bert_jax.tasks.scores.spread import Spread, over_seeds
from bert_jax.training.checkpoint import Checkpoints
from bert_jax.training.depth import DepthConfig, scale_by_depth
from bert_jax.training.feed import Feed
from bert_jax.training.flops import Pass, train_flops
from bert_jax.training.mesh import MeshConfig, build_mesh, check_batch, check_divides
from bert_jax.training.metrics import LaggedMetrics, MetricsWriter, read_metrics
from bert_jax.training.optim import OptimizerConfig, build_optimizer
from bert_jax.training.preempt import Preemption
from bert_jax.training.rates import Rates
from bert_jax.training.step import begin_state, init_parameters, make_train_step

_MAX_SKIPPED = 10


@dataclass(frozen=True)
class FinetuneConfig:
    """How an encoder is fine-tuned. Section numbers are Devlin et al. 2018."""

    seed: int = 0  # of the head, the order and dropout
    pretrained: bool = True  # False: --init gives sizes and tokenizer alone, as a baseline
    task: TaskConfig = field(default_factory=TaskConfig)
    epochs: int = 3  # A.3: 2 to 4
    batch_size: int = 32  # A.3
    accumulation: int = 1  # parts that a batch goes through in, to the same update
    warmup: float = 0.1  # of all steps (released code); then the rate falls to 0
    dropout: float = 0.1  # A.3, everywhere
    dtype: str = "float32"
    patience: int = 0  # epochs without a better score, after which it ends; 0: never
    deterministic: bool = False  # the same bits each time on a GPU too, at some cost
    log_every: int = 10
    # A.3: 5e-5, 3e-5 or 2e-5
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def __post_init__(self):
        for name in ("epochs", "batch_size", "accumulation", "log_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be 1 or more")
        if self.patience < 0:
            raise UserError(f"patience={self.patience}: must be 0, for never, or more")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"seed={self.seed}: must be from 0 to {2**31 - 1}")
        if self.dtype not in DTYPES:
            raise UserError(f"dtype={self.dtype!r}: must be one of {', '.join(DTYPES)}")
        for name in ("warmup", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be in [0, 1)")
        if self.batch_size % self.accumulation:
            raise UserError(
                f"batch_size={self.batch_size} is not divisible by accumulation={self.accumulation}"
            )
        if self.adapt.kind and not self.pretrained:
            raise UserError(
                f"adapt.kind={self.adapt.kind}: adapts a pretrained model; leave out "
                f"pretrained=False, or the adapters"
            )


def main() -> None:
    values = flags.FLAGS
    if values.cluster != "none" or values.coordinator or values.processes or values.process >= 0:
        raise UserError(
            "--cluster, --coordinator, --processes, --process: fine-tuning is one process on the "
            "devices of one host; start it there without a launcher"
        )
    config = cli.read_config(FinetuneConfig)
    if values.data:
        config = replace(config, task=replace(config.task, data=values.data))
    if values.check:
        return check(config.task)
    workdir, init = reach(cli.required("workdir")), cli.required("init")
    if config.deterministic:
        cli.make_deterministic()
    preemption = Preemption()
    mesh = build_mesh(config.mesh)
    check_batch(mesh, config.batch_size, config.accumulation, "accumulation")
    with jax.set_mesh(mesh):
        if values.seeds == 1:
            tell(config.task, [finetune(config, init, workdir, mesh, preemption)])
            return
        found = []
        for seed in range(config.seed, config.seed + values.seeds):
            print(f"seed {seed}")
            folder = workdir / f"seed-{seed}"
            found.append(finetune(replace(config, seed=seed), init, folder, mesh, preemption))
        spreads = {name: asdict(spread) for name, spread in tell(config.task, found).items()}
        told = {"scores": spreads, "seeds": found}
        write_whole(workdir / finetuned.SCORES, json.dumps(told, indent=2) + "\n")


def check(task: TaskConfig) -> None:
    """Raises UserError where the task's files cannot be read, as training would."""
    *both, labels = read_records(task)
    files = zip(both, (task.train, task.dev), strict=True)
    told = ", ".join(f"{len(records)} records in {name}" for records, name in files)
    print(told + (f"; labels {' '.join(labels.names)}" if labels else ""))


def read_records(task: TaskConfig) -> tuple[list, list, LabelSet | None]:
    """Those to train on, those to score, and the labels of the first."""
    kind = KINDS[task.kind]
    train, dev = (list(kind.read(task, task.file(name))) for name in (task.train, task.dev))
    return train, dev, label_set(task, train)


def finetune(
    config: FinetuneConfig, init: str, workdir: Folder, mesh: Mesh,
    preemption: Preemption | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train to the last epoch, from the newest checkpoint of the workdir if it has one, else from
    the MODEL `init`. Returns the scores of the best epoch, with its `epoch` and `step`.

    Raises Preempted where `preemption` told it to stop before the end.
    """
    began, task, kind = time.monotonic(), config.task, KINDS[config.task.kind]

    # The model that it begins from, and what is labelled.
    source = pretrained.load(init)
    tokenizer = source.tokenizer
    train_records, records, labels = read_records(task)
    form = row_format(task, source.config)
    train = kind.examples(task, train_records, tokenizer, form, labels)
    dev = kind.examples(task, records, tokenizer, form, labels)
    print(f"to train: {train.told()}; to score: {dev.told()} (rows of {task.max_length})")
    if labels:
        print(f"labels {' '.join(labels.names)}")

    # What is learned, and how.
    objective = FineTuning(kind.learned(task, labels), adapt=config.adapt)
    model = replace(
        source.config, num_labels=kind.width(labels), pooler=objective.task.pooled,
        hidden_dropout=config.dropout, attention_dropout=config.dropout, dtype=config.dtype,
    )  # fmt: skip
    config.adapt.check_fits(model)
    check_divides(mesh, model)
    batches = LabelledBatches(train, task.buckets, config.batch_size, config.seed, config.epochs)
    epoch_steps, steps = batches.steps_per_epoch, len(batches)
    warmup = min(math.ceil(config.warmup * steps), steps - 1)
    tx = optax.chain(
        build_optimizer(replace(config.optimizer, warmup_steps=warmup), steps),
        scale_by_depth(config.depth, model.num_layers, epoch_steps),
    )

    # The parameters of the model: those that are trained, and those that stay as they are.
    parameters = init_parameters(objective, model, config.seed)
    begun = []
    if config.pretrained:
        same_labels = source.labels == (labels.names if labels else ())
        begun = beginning.begin(init, objective, model, parameters, tokenizer, heads=same_labels)
    trained, frozen = split(parameters, config.adapt, new_pooler=not source.config.pooler)
    if frozen:
        print(f"{_size(trained):,} parameters are trained, {_size(frozen):,} stay as they are")
    del source  # else the arrays of its parameters would stay
    data = finetuned.fingerprint(train, dev)
    facts = _facts(config, init, objective, model, labels, frozen, data)

    # The workdir, and the state: from the newest checkpoint, else from the model.
    workdir.mkdir(parents=True, exist_ok=True)
    locked = lock(workdir)
    finetuned.begin(workdir, config, facts)
    tokenizer.save(workdir / "tokenizer")
    checkpoints = Checkpoints(workdir, 1, keep_best=1)
    state = begin_state(trained, tx)
    restored, notes = checkpoints.restore_newest(state)
    notes += begun if restored is None else []
    state = restored or state
    start = int(state.step)
    for note in notes + checkpoints.set_aside_after(start):
        print(note)

    # Steps.
    train_step = make_train_step(objective, model, tx, config.seed, config.accumulation)
    forward = finetuned.make_forward(objective, model)
    feed = Feed(read(batches, start), objective.fields, mesh)
    passes = [Pass(*one, kernels=not frozen) for one in objective.passes(model, 0, 0)]
    kept = [record for record in read_metrics(workdir) if record["step"] <= start]
    history = [record for record in kept if "eval_loss" in record]
    rates, lengths = Rates(began), set[int]()

    def score() -> tuple[float, dict[str, float], list[dict[str, Any]]]:
        outputs, loss = finetuned.outputs(
            forward, objective, nnx.merge_state(state.parameters, frozen), dev, task.buckets,
            config.batch_size, mesh,
        )  # fmt: skip
        return loss, *kind.judge(task, records, dev, outputs, labels)

    if _is_best(task, history, start) and finetuned.scored(workdir) != start:
        # It was killed after the checkpoint of its best epoch, before what is told of it.
        finetuned.write_scores(workdir, start, start // epoch_steps, *score()[1:])
    with progress.training(start, steps, "fine-tuning", task.told) as shown:
        writer = MetricsWriter(workdir, kept)
        lagged = LaggedMetrics(writer, shown, _MAX_SKIPPED)
        step, stop = start, False
        while step < steps and not stop and not _ended(config, history):
            step, batch = step + 1, next(feed)
            length = batch["input_ids"].shape[-1]
            lengths.add(length)
            state, numbers = train_step(state, batch, frozen)
            rows = math.prod(batch["input_ids"].shape[:-1])  # of choices several an example
            rates.add(numbers["real_tokens"], train_flops(passes, length) * rows)
            lagged.write()
            shown(step, {})
            if preemption and step == start + 1:
                preemption.begin()
            if step % config.log_every == 0 or step % epoch_steps == 0:
                waited = feed.take_waited()
                lagged.hold(step, numbers, rates.take(waited), {"compilations": len(lengths)})
            if step % epoch_steps == 0:
                jax.block_until_ready(numbers)
                with rates.aside("evaluation"):
                    loss, scores, predictions = score()
                record = {f"eval_{name}": value for name, value in scores.items()}
                lagged.hold(step, {"epoch": step // epoch_steps, "eval_loss": loss} | record)
                with rates.aside("saving"):
                    lagged.write()
                    writer.sync()
                    history.append({"step": step, "eval_loss": loss} | record)
                    checkpoints.save(step, state, _rank(task, history))
                    if _is_best(task, history, step):
                        checkpoints.wait()  # scores.json names no checkpoint that is not there
                        finetuned.write_scores(
                            workdir, step, step // epoch_steps, scores, predictions
                        )
            stop = preemption is not None and preemption.reached()
            if stop and step % epoch_steps:
                # Without a score it is kept until the next is saved, and never taken for the best.
                jax.block_until_ready(numbers)
                lagged.write()
                writer.sync()
                checkpoints.save(step, state)
    checkpoints.close()
    writer.close()
    locked.close()
    if stop and step < steps and not _ended(config, history):
        raise Preempted(f"stopped after step {step}; the same command goes on from there")
    return finetuned.read_scores(workdir)


def _size(parameters: nnx.State) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(parameters))


def _facts(
    config: FinetuneConfig, init: str, objective: FineTuning, model: EncoderConfig,
    labels: LabelSet | None, frozen: nnx.State, data: str,
) -> finetuned.FineTuned:  # fmt: skip
    """What the workdir says of itself. A base will be read again, from wherever that is done."""
    base = pretrained.fingerprint(frozen) if frozen else ""
    return finetuned.FineTuned(
        str(absolute(reach(init))) if base else init, objective.task.name, model,
        labels.names if labels else (), config.adapt, base, data,
    )  # fmt: skip


def _best(task: TaskConfig, history: list[dict]) -> dict:
    """The first epoch of the highest score."""
    return max(history, key=lambda record: record[f"eval_{task.best}"])


def _is_best(task: TaskConfig, history: list[dict], step: int) -> bool:
    return bool(history) and _best(task, history)["step"] == step


def _rank(task: TaskConfig, history: list[dict]) -> float:
    """Of the newest epoch, lower for a better one. Of equal scores the first is the best, so that
    its checkpoint is the one that is kept."""
    newest, best = (record[f"eval_{task.best}"] for record in (history[-1], _best(task, history)))
    if history[-1] is _best(task, history):
        return -newest
    return max(-newest, math.nextafter(-best, math.inf))


def _ended(config: FinetuneConfig, history: list[dict]) -> bool:
    if not config.patience or not history:
        return False
    place = history.index(_best(config.task, history))
    return len(history) - 1 - place >= config.patience


def tell(task: TaskConfig, found: list[dict[str, Any]]) -> dict[str, Spread]:
    """A line a score; of several seeds the median and the range. Returns them."""
    spreads = {
        name: over_seeds([one["scores"].get(name, 0.0) for one in found])
        for name in found[0]["scores"]
    }
    for name, spread in spreads.items():
        between = f" ({spread.lowest:.4f} to {spread.highest:.4f})" if spread.runs > 1 else ""
        print(f"{name} {spread.median:.4f}{between}")
    if len(found) > 1:
        print(f"medians of {len(found)} seeds, each of its epoch of the best {task.best}")
    return spreads


if __name__ == "__main__":
    cli.define_config()
    cli.define_distributed()
    flags.DEFINE_string("workdir", "", "where it is kept; the same folder again goes on with it")
    flags.DEFINE_string("init", "", "the MODEL that it begins from")
    flags.DEFINE_string("data", "", "the folder of the task's files")
    flags.DEFINE_integer("seeds", 1, "how often, from config.seed on", lower_bound=1)
    flags.DEFINE_boolean("check", False, "read the data, say what it holds, and end")
    cli.run(main, __doc__, lambda: asdict(FinetuneConfig()))
