"""Pretrain an encoder.

  python -m bert_jax.pretrain --config=configs/bert.py:base --workdir=runs/base

Any field of the config can be set, and one that does not exist is refused:

  --config.train.steps=1000 --config.data.batch_size=64 --config.corpus.source=my-text.txt

A model can begin from another's parameters: --init=MODEL, a workdir or a Hugging Face folder;
of a workdir also with its optimiser's moments: --init_optimizer=restored (docs/continued.md).
Without a corpus of your own it reads the documentation installed with Python. The same command
again goes on where the last one stopped, to the same numbers; on SIGTERM it saves and leaves
with status 143. The workdir then holds config.json, data.json, init.json, tokenizer/,
checkpoints/, metrics.jsonl, tensorboard/, provenance.jsonl and curve.png. Any folder can be
gs://BUCKET/FOLDER.

  --smoke            two minutes of the real run first, in a folder that is deleted again
  --profile=10:20    a trace of steps 10 to 20, for xprof, in the workdir's profile/
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace

import jax
import jax.numpy as jnp
from absl import flags
from etils import epath
from jax.sharding import Mesh

from bert_jax import beginning, cli, config as configs, pretrained, progress, provenance, summary
from bert_jax.config import RunConfig, TrainConfig
from bert_jax.data.loader import read
from bert_jax.data.share import Share
from bert_jax.errors import Preempted, UserError
from bert_jax.inputs import open_inputs
from bert_jax.models.kernels import platform_of, resolve
from bert_jax.objectives import build_objective, encoders_of
from bert_jax.objectives.mlm import with_natural_bias
from bert_jax.store import Folder, reach
from bert_jax.training.checkpoint import Checkpoints, has_begun, last_saved
from bert_jax.training.curve import draw_curve
from bert_jax.training.evaluate import evaluate
from bert_jax.training.feed import Feed, batch_parts
from bert_jax.training.flops import Pass, train_flops
from bert_jax.training.hosts import barrier, is_first, together
from bert_jax.training.mesh import build_mesh, check_batch, check_divides
from bert_jax.training.metrics import LaggedMetrics, MetricsWriter, read_metrics
from bert_jax.training.optim import build_optimizer
from bert_jax.training.preempt import Preemption
from bert_jax.training.rates import Rates
from bert_jax.training.spikes import LossSpikes
from bert_jax.training.step import Objective, init_state, make_eval_step, make_train_step
from bert_jax.training.trace import Trace, traced_steps
from bert_jax.workdir import open_workdir

cli.define_config()
cli.define_distributed()
flags.DEFINE_string("workdir", "", "where the run is kept; the same folder again goes on with it")
flags.DEFINE_string("init", "", "a MODEL whose parameters a new run begins from")
flags.DEFINE_enum("init_optimizer", "fresh", ["fresh", "restored"], "or that of --init too")
flags.DEFINE_boolean("smoke", False, "two minutes of the run in a folder that is deleted again")
flags.DEFINE_string("profile", "", "FIRST:LAST, the steps to trace")
SMOKE_SECONDS, SMOKE_EVALUATES = 120, 5


def main() -> None:
    began = time.monotonic()
    config, workdir = cli.run_config(), reach(cli.required("workdir"))
    profile, smoke = traced_steps(flags.FLAGS.profile), flags.FLAGS.smoke
    init = provenance.beginning(flags.FLAGS.init, flags.FLAGS.init_optimizer)
    if profile[1] > config.train.steps:
        raise UserError(
            f"--profile={flags.FLAGS.profile}: the run has {config.train.steps} steps; name steps "
            f"of these"
        )
    if config.train.deterministic:
        cli.make_deterministic()
    cli.distributed()
    preemption = Preemption(SMOKE_SECONDS if smoke else None)
    mesh = build_mesh(
        config.mesh, config.data.batch_size, [phase.data.batch_size for phase in config.phases]
    )
    with cli.one_voice(is_first()), jax.set_mesh(mesh):
        if smoke:
            few = replace(config.train, eval_examples=2 * config.data.batch_size)
            config = replace(config, train=few)
            with smoke_folder(workdir, preemption) as folder:
                pretrain(config, folder, mesh, preemption, began, init, profile, True)
            return
        pretrain(config, workdir, mesh, preemption, began, init, profile)
        if is_first():
            print(summary.held_out(config.seed, workdir))
            print(f"curve: {draw_curve(workdir, workdir.name)}")


def pretrain(
    config: RunConfig,
    workdir: Folder,
    mesh: Mesh,
    preemption: Preemption,
    began: float,
    init: dict[str, str],
    profile: tuple[int, int] = (0, 0),
    smoke: bool = False,
) -> None:
    """Train to config.train.steps, from the workdir's newest checkpoint if it has one, else from
    the MODEL that `init` names, if it does. `began`: when, by time.monotonic().

    Raises Preempted where it was told to stop before the end.
    """
    # What is learned, and how. Built first: a wrong field is told before any work is done.
    train, told = config.train, config
    objective = build_objective(config.objective, config.model, config.generator)
    encoders, platform = encoders_of(objective, config.model), platform_of(jax.devices()[0])
    model, attention = resolve(config.model, platform, config.lengths, encoders)
    config = replace(config, model=model)
    step_flops = flops_by_phase(config, objective, mesh)
    tx = build_optimizer(config.optimizer, train.steps, objective.frozen)
    begun = has_begun(workdir)
    check_beginning(config, objective, workdir, init, begun)

    # Data, and the workdir: what it holds is enough to use the model.
    inputs = open_inputs(config, objective.coefficients, Share(*batch_parts(mesh)))
    print(inputs.description)
    if attention:
        print(attention)
    locked = open_workdir(workdir, told, inputs.manifest, inputs.tokenizer, init, begun)

    # State: from the newest checkpoint that can be read, else from `init`, else new.
    checkpoints = Checkpoints(workdir, train.keep, train.keep_best, train.keep_every)
    state = init_state(objective, config.model, tx, config.seed)
    if train.natural_bias:
        frequencies = jnp.asarray(inputs.counts, jnp.float32)
        state = replace(state, parameters=with_natural_bias(state.parameters, frequencies))
    restored, notes = checkpoints.restore_newest(state)
    if init["init"] and not restored:
        parameters, tokenizer = state.parameters, inputs.tokenizer
        notes += beginning.begin(init["init"], objective, config.model, parameters, tokenizer)
        if "init_optimizer" in init:
            state, more = beginning.with_optimizer(init["init"], state)
            notes += more
    state = restored or state
    start = int(state.step)
    for note in notes + checkpoints.set_aside_after(start):
        print(note)
    print(f"seed {config.seed}, {mesh.size} device(s), from step {start} to {train.steps}")
    if 0 < profile[0] <= start:
        print(f"no trace: step {profile[0]}, with which it was to begin, is done")

    # Steps.
    train_step = together(
        make_train_step(objective, config.model, tx, config.seed, train.accumulation)
    )
    eval_step = together(make_eval_step(objective, config.model))
    fields = objective.fields + (("position_ids",) if config.data.packing else ())
    feed = Feed(read(inputs.batches, start, config.data.workers), fields, mesh)
    coefficients = {f"{name}_coefficient": c for name, c in objective.coefficients.items()}
    due = DueAt(train, start + SMOKE_EVALUATES if smoke else 0)
    rates, spikes, trace = Rates(began), LossSpikes(), Trace(profile, workdir)

    def held_out() -> dict[str, float] | None:
        """Scores of the parameters as they are; None where it was told to stop."""
        batches = Feed(read(inputs.evaluation), fields, mesh)
        found = evaluate(eval_step, objective, state.parameters, batches, preemption.reached)
        return found and found[0] | summary.baselines(inputs.unigram, found[1], inputs.counts)

    with progress.training(start, train.steps) as shown:

        def tell(step: int, record: dict) -> None:
            shown(step, record)
            if note := spikes.add(step, record):
                print(note)

        # What was logged up to here stays, and what was being evaluated is evaluated again.
        records = [record for record in read_metrics(workdir) if record["step"] <= start]
        for record in records:
            spikes.add(record["step"], record)
        logged = next(step for step in range(start, -1, -1) if due.logging(step))
        if logged and (not records or records[-1]["step"] < logged):
            print(f"the metrics up to step {start} are not all there: lines of them were lost")
        if start and due.evaluation(start):
            if not records or records[-1]["step"] < start:
                records.append({"step": start})
            if "eval_loss" not in records[-1]:
                with rates.aside("evaluation"):
                    records[-1] |= held_out() or {}
                shown(start, records[-1])
        barrier("metrics were read")
        writer = MetricsWriter(workdir, records) if is_first() else None
        if is_first():
            provenance.record(workdir, inputs.manifest, start)
        lagged = LaggedMetrics(writer, tell, train.max_skipped)

        step, stop = start, False
        while step < train.steps and not stop:
            step, scores = step + 1, None
            trace.before(step, state)
            if step in (start + 1, *step_flops):  # compiled now, so no measure of speed
                jax.block_until_ready(state)
                with rates.aside("compile"):
                    state, numbers = train_step(state, next(feed))
                    jax.block_until_ready(numbers)
                feed.take_waited()
            else:
                state, numbers = train_step(state, next(feed))
                phase = max(first for first in step_flops if first <= step)
                rates.add(numbers["real_tokens"], step_flops[phase])
            lagged.write()  # of the step before, which has ended: dispatch never waits for it
            shown(step, {})
            if step == start + 1:
                preemption.begin()
            if due.logging(step):
                lagged.hold(step, numbers | coefficients, rates.take(feed.take_waited()))
            trace.after(step, numbers)
            if due.evaluation(step):
                jax.block_until_ready(numbers)
                with rates.aside("evaluation"):
                    scores = held_out()
                stop = scores is None
                lagged.hold(step, scores or {})
            stop = stop or (preemption.reached() and step < train.steps)
            if due.saving(step) or stop:
                jax.block_until_ready(numbers)
                with rates.aside("saving"):
                    lagged.write()
                    if writer and locked:
                        locked.check()
                        writer.sync()
                    checkpoints.save(step, state, (scores or {}).get("eval_loss"))
    trace.close()
    with rates.aside("saving"):
        checkpoints.close()
    if writer:
        writer.close()
    if locked:
        locked.close()
    print(summary.pace(rates, train.steps - start, spikes.found))
    if stop:
        raise Preempted(f"stopped after step {step}; the same command goes on from there")


class DueAt:
    """What is due after which step. After the last, and after the one `rehearsed`, all is."""

    def __init__(self, train: TrainConfig, rehearsed: int = 0):
        self._train, self._all = train, (train.steps, rehearsed)

    def logging(self, step: int) -> bool:
        every = self._train.log_every
        return step % every == 0 or self.evaluation(step) or self.saving(step)

    def evaluation(self, step: int) -> bool:
        return step > 0 and (step % self._train.eval_every == 0 or step in self._all)

    def saving(self, step: int) -> bool:
        return step % self._train.save_every == 0 or step in self._all


def flops_by_phase(config: RunConfig, objective: Objective, mesh: Mesh) -> dict[int, int]:
    """Of a step, by the number of the step that each phase begins with. Raises UserError where
    the mesh cannot cut the model, or a batch into the parts that it is accumulated from."""
    found = {}
    for begin, _, sizes in config.phases:
        length, slots = sizes.sequence_length, sizes.max_predictions
        passes = [Pass(*one) for one in objective.passes(config.model, length, slots)]
        found[begin + 1] = train_flops(passes, length) * sizes.batch_size
    for sizes in (config.data, *(phase.data for phase in config.phases)):
        check_batch(mesh, sizes.batch_size, config.train.accumulation, "train.accumulation")
    for one in passes:
        check_divides(mesh, one.config)
    return found


def check_beginning(
    config: RunConfig, objective: Objective, workdir: Folder, init: dict[str, str], begun: bool
) -> None:
    """Raises UserError for what can be known to be wrong before any work is done."""
    if begun:
        configs.check_goes_on(config, workdir, last_saved(workdir))
    if init["init"]:
        pretrained.existing(init["init"])
    if "init_optimizer" in init and not init["init"]:
        raise UserError("--init_optimizer=restored: name the workdir that has it with --init")
    if "init_optimizer" in init:
        beginning.check_optimizer(init["init"], config, objective)
    if objective.frozen and not init["init"]:
        raise UserError(
            "objective.mlm=0 leaves the generator as it is: begin from a trained one with --init, "
            "or give objective.mlm"
        )
    if config.train.natural_bias and not config.objective.get("mlm"):
        raise UserError(
            "train.natural_bias=true is for a masked language model that is trained: set "
            "train.natural_bias=false, or give objective.mlm"
        )
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir}: is a file; name a folder")


@contextlib.contextmanager
def smoke_folder(workdir: Folder, preemption: Preemption) -> Iterator[Folder]:
    """A hidden folder beside the workdir, deleted when the run in it has come to its end, or to
    that of its time. After an error nobody waits for anybody, and it stays."""
    folder = workdir.with_name(f".{workdir.name}.smoke")

    def delete() -> None:
        barrier("nobody is in the folder")
        if is_first():
            epath.Path(folder).rmtree(missing_ok=True)
        barrier("the folder is gone")

    delete()
    try:
        yield folder
    except Preempted:
        delete()
        if not preemption.over:
            raise
    else:
        delete()


if __name__ == "__main__":
    cli.run(main, __doc__)
