"""What a checkpoint costs the steps during which it is written.

  python -m benchmarks.checkpoint --size='L12 D768'

Steps of a BERT are timed alone, and then as many with a checkpoint begun before the first of them
and waited for after the last: the difference is what it cost, the digests of its parts and the copy
to the host as well as the cores that the writing takes from the steps. Told as seconds, and as the
share that it is of 500 steps; the table has the median of the turns.
"""

import statistics
import tempfile
import time

import jax
import numpy as np

from benchmarks import turns
from bert_jax import cli
from bert_jax.objectives import build_objective
from bert_jax.store import reach
from bert_jax.training.checkpoint import Checkpoints
from bert_jax.training.mesh import one_device
from bert_jax.training.optim import OptimizerConfig, build_optimizer
from bert_jax.training.step import init_state, make_train_step

TURNS, STEPS, EVERY, BAR = 3, 12, 500, 0.02
ROWS, LENGTH, SLOTS, VOCABULARY = 16, 128, 20, 30_522


def main() -> None:
    parser = turns.parser(__doc__)
    parser.add_argument("--size", choices=turns.SIZES, action="append", help="else the first alone")
    arguments = parser.parse_args()
    print(f"{turns.versions('jax', 'orbax-checkpoint')}; {jax.devices()[0].device_kind}\n")
    print("| | state, MB | a step, s | the checkpoint, s (turns) | of 500 steps | bar |")
    print("|---|---|---|---|---|---|", flush=True)
    figures = {}
    with jax.set_mesh(one_device()):
        for size in arguments.size or list(turns.SIZES)[:1]:
            found = figures[size] = measured(*turns.SIZES[size])
            share = statistics.median(found["cost"]) / (EVERY * found["step"])
            print(
                f"| {size} B{ROWS} S{LENGTH} | {found['bytes'] / 1e6:.0f} | {found['step']:.3f} "
                f"| {turns.cell(found['cost'], '.2f')} | {share:.2%} | {BAR:.0%} |",
                flush=True,
            )
    turns.write(figures, arguments.json)


def measured(layers: int, width: int) -> dict:
    config = turns.encoder(layers, width, VOCABULARY, max_positions=LENGTH, pooler=False)
    objective = build_objective({"mlm": 1.0}, config)
    tx = build_optimizer(OptimizerConfig(warmup_steps=1), 10_000)
    state, step = init_state(objective, config, tx, 0), make_train_step(objective, config, tx, 0)
    batch = drawn()

    def steps(number: int) -> float:
        nonlocal state
        begin = time.monotonic()
        for _ in range(number):
            state, _ = jax.block_until_ready(step(state, batch))
        return time.monotonic() - begin

    steps(2)
    alone, costs = list[float](), list[float]()
    for _ in range(TURNS):
        alone.append(steps(STEPS))
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(reach(folder), 1)
            begin = time.monotonic()
            checkpoints.save(int(state.step), state)
            steps(STEPS)
            checkpoints.wait()
            costs.append(time.monotonic() - begin - alone[-1])
            checkpoints.close()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    return {"bytes": size, "step": statistics.median(alone) / STEPS, "cost": costs}


def drawn() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, VOCABULARY, (ROWS, LENGTH), dtype=np.int32)
    places = np.broadcast_to(np.arange(SLOTS, dtype=np.int32), (ROWS, SLOTS))
    return jax.device_put(
        {
            "input_ids": ids, "token_type_ids": np.zeros_like(ids),
            "segment_ids": np.ones_like(ids), "rows": np.arange(ROWS, dtype=np.int32),
            "mlm_positions": places, "mlm_labels": ids[:, :SLOTS],
            "mlm_weights": np.ones(places.shape, np.float32),
            "mlm_overflow": np.zeros(ROWS, np.int32),
        }
    )  # fmt: skip


if __name__ == "__main__":
    with cli.guarded():
        main()
