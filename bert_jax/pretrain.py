"""Pretrain an encoder.

  python -m bert_jax.pretrain --config=configs/bert.py:base --workdir=runs/base

Any field of the config can be set, and one that does not exist is refused:

  --config.train.steps=1000 --config.data.batch_size=64 --config.corpus.source=my-text.txt

A model can begin from another's parameters: --init=MODEL, a workdir or a Hugging Face folder.
Without a corpus of your own it reads the documentation installed with Python. The same command
again goes on where the last one stopped, to the same numbers. The workdir then holds
config.json, data.json, init.json, tokenizer/, checkpoints/, metrics.jsonl, tensorboard/,
provenance.jsonl and curve.png. Any folder can be gs://BUCKET/FOLDER.
"""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
from absl import flags
from jax.sharding import Mesh

from bert_jax import cli, config as configs, pretrained, progress, provenance, summary
from bert_jax.config import RunConfig
from bert_jax.data.examples import build_examples
from bert_jax.data.loader import EvaluationBatches, PhasedBatches, read
from bert_jax.data.prepare import cached, token_counts
from bert_jax.data.records import Rows, read_manifest
from bert_jax.data.tokenizers import load_tokenizer
from bert_jax.data.unigram import unigram_loss
from bert_jax.errors import UserError
from bert_jax.files import lock, write_whole
from bert_jax.objectives import build_objective
from bert_jax.objectives.mlm import with_natural_bias
from bert_jax.store import Folder, reach
from bert_jax.training.checkpoint import Checkpoints, has_begun
from bert_jax.training.curve import draw_curve
from bert_jax.training.evaluate import evaluate
from bert_jax.training.feed import Feed
from bert_jax.training.flops import Pass, train_flops
from bert_jax.training.mesh import build_mesh, check_divides
from bert_jax.training.metrics import LaggedMetrics, MetricsWriter, Rates
from bert_jax.training.optim import build_optimizer
from bert_jax.training.step import init_state, make_eval_step, make_train_step

cli.define_config()
flags.DEFINE_string("workdir", "", "where the run is kept; the same folder again goes on with it")
flags.DEFINE_string("init", "", "a MODEL whose parameters a new run begins from")


def main() -> None:
    config, workdir = cli.run_config(), reach(cli.required("workdir"))
    batches = [phase.data.batch_size for phase in config.phases]
    mesh = build_mesh(config.mesh, config.data.batch_size, batches)
    with jax.set_mesh(mesh):
        pretrain(config, workdir, mesh, flags.FLAGS.init)
    print(summary.held_out(config.seed, workdir))
    print(f"curve: {draw_curve(workdir, workdir.name)}")


def pretrain(config: RunConfig, workdir: Folder, mesh: Mesh, init: str = "") -> None:
    """Train to config.train.steps, from the workdir's newest checkpoint if it has one, else from
    the parameters of the MODEL `init` if one is named."""
    # What is learned, and how. Built first: a wrong field is told before any work is done.
    train, vocab_size = config.train, config.model.vocab_size
    objective = build_objective(config.objective, config.model, config.generator)
    step_flops = {}  # by the number of the step that a phase begins with
    for begin, _, sizes in config.phases:
        length, slots = sizes.sequence_length, sizes.max_predictions
        passes = [Pass(*one) for one in objective.passes(config.model, length, slots)]
        step_flops[begin + 1] = train_flops(passes, length) * sizes.batch_size
    for one in passes:
        check_divides(mesh, one.config)
    tx = build_optimizer(config.optimizer, train.steps, objective.frozen)
    begun = has_begun(workdir)
    if begun:
        configs.check_same(config, workdir)
    if init:
        pretrained.existing(init)
    if objective.frozen and not init:
        raise UserError(
            "objective.mlm=0 leaves the generator as it is: begin from a trained one with --init, "
            "or give objective.mlm"
        )
    if train.natural_bias and not config.objective.get("mlm"):
        raise UserError(
            "train.natural_bias=true is for a masked language model that is trained: set "
            "train.natural_bias=false, or give objective.mlm"
        )
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir}: is a file; name a folder")

    # Data.
    with progress.preparing() as report:
        folder = cached(config.corpus, vocab_size, report)
    data = config.data
    tokenizer = load_tokenizer(folder / "tokenizer")
    words, types = tokenizer.vocabulary, config.model.type_vocab_size
    if config.model.position_offset not in (0, words.pad + 1):
        raise UserError(
            f"model.position_offset={config.model.position_offset}: where positions have an offset "
            f"it is the padding's id + 1, and this vocabulary's is {words.pad}; set it to 0 or "
            f"{words.pad + 1}, or train the vocabulary with other corpus.special_tokens"
        )
    rows = Rows(folder, "train")
    examples = {
        phase.data.sequence_length: build_examples(rows, words, phase.data, types)
        for phase in config.phases
    }
    held_out = build_examples(Rows(folder, "held_out"), words, data, types, short_probability=0.0)
    if "nsp" in objective.coefficients and any(e.one_sentence == len(e) for e in examples.values()):
        raise UserError(
            f"{folder}: every document is one sentence, so no segment has a true continuation; "
            f"set objective.nsp=0, or put sentences that belong together into one document"
        )
    host = {"host": jax.process_index(), "hosts": jax.process_count()}
    batches = PhasedBatches(config.phases, examples, words, config.seed, **host)
    evaluation = EvaluationBatches(held_out, data, words, train.eval_examples, **host)
    everywhere = EvaluationBatches(held_out, data, words, train.eval_examples)
    counts = token_counts(folder)
    unigram = unigram_loss(everywhere, counts)
    manifest = read_manifest(folder)
    print(summary.corpus(folder, manifest, held_out))
    print(summary.phases(config.phases, batches, examples))

    # Workdir: what it holds is enough to use the model; to go on, the same corpus is needed too.
    workdir.mkdir(parents=True, exist_ok=True)
    locked = lock(workdir)
    if begun:
        provenance.check_same_data(workdir, manifest)
        provenance.check_same_init(workdir, init)
    tokenizer.save(workdir / "tokenizer")
    if not begun:
        configs.save(config, workdir)
        write_whole(workdir / provenance.DATA, json.dumps(manifest, indent=2) + "\n")
        write_whole(workdir / provenance.INIT, json.dumps({"init": init}) + "\n")

    # State: from the newest checkpoint that can be read, else from `init`, else new.
    checkpoints = Checkpoints(workdir, train.keep)
    state = init_state(objective, config.model, tx, config.seed)
    if train.natural_bias:
        frequencies = jnp.asarray(counts, jnp.float32)
        state = replace(state, parameters=with_natural_bias(state.parameters, frequencies))
    restored, notes = checkpoints.restore_newest(state)
    if init and not restored:
        notes += pretrained.begin(init, objective, config.model, state.parameters, tokenizer)
    state = restored or state
    start = int(state.step)
    for note in notes + checkpoints.set_aside_after(start):
        print(note)
    writer = MetricsWriter(workdir, start)
    provenance.record(workdir, manifest, start)
    print(f"seed {config.seed}, {mesh.size} device(s), from step {start} to {train.steps}")

    # Steps.
    train_step = make_train_step(objective, config.model, tx, config.seed)
    eval_step = make_eval_step(objective, config.model)
    fields = objective.fields + (("position_ids",) if data.packing else ())
    feed = Feed(read(batches, start, data.workers), fields, mesh)
    rates = Rates()
    coefficients = {f"{name}_coefficient": c for name, c in objective.coefficients.items()}

    def due(*every: int) -> bool:
        return any(step % one == 0 for one in every) or step == train.steps

    def restart_rates() -> None:
        rates.restart()
        feed.take_waited()

    with progress.training(start, train.steps) as shown:
        lagged = LaggedMetrics(writer, shown)
        for step in range(start + 1, train.steps + 1):
            state, numbers = train_step(state, next(feed))
            lagged.write()  # of the step before, which has ended: dispatch never waits for it
            if step in (start + 1, *step_flops):  # compiled just now, no measure of speed
                jax.block_until_ready(numbers)
                restart_rates()
            else:
                phase = max(first for first in step_flops if first <= step)
                rates.add(numbers["real_tokens"], step_flops[phase])
            shown(step, {})
            if due(train.log_every, train.eval_every, train.save_every):
                lagged.hold(step, numbers | coefficients, rates.take(feed.take_waited()))
            if due(train.eval_every):
                feed_held_out = Feed(read(evaluation), fields, mesh)
                scores, tallies = evaluate(eval_step, objective, state.parameters, feed_held_out)
                lagged.hold(step, scores | summary.baselines(unigram, tallies, counts))
            if due(train.save_every):
                lagged.write()
                locked.check()
                writer.sync()
                checkpoints.save(step, state)
            if due(train.eval_every, train.save_every):
                restart_rates()
    checkpoints.close()
    writer.close()
    locked.close()


if __name__ == "__main__":
    cli.run(main, __doc__)
