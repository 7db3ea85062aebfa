"""The train state, and the two functions of it that are compiled."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from bert_jax.models.config import EncoderConfig
from bert_jax.models.sharding import RULES, is_variable

Batch = dict[str, Array]
Metrics = dict[str, Float[Array, ""] | Int[Array, ""]]
Weights = dict[str, Float[Array, ""]]
NOTHING: nnx.State = nnx.State({})


@runtime_checkable
class Losses(Protocol):
    """(sum, weight) pairs a term and a metric; plain sums as counts, vectors of them as tallies."""

    @property
    def terms(self) -> dict[str, tuple[Array, Array]]: ...
    @property
    def metrics(self) -> dict[str, tuple[Array, Array]]: ...
    @property
    def counts(self) -> dict[str, Array]: ...
    @property
    def tallies(self) -> dict[str, Array]: ...


@runtime_checkable
class Objective(Protocol):
    """What is learned, as far as training knows it."""

    @property
    def coefficients(self) -> dict[str, float]:
        """The factor of each term in the loss."""
        ...

    @property
    def fields(self) -> tuple[str, ...]:
        """The batch fields that `loss` reads."""
        ...

    def build(self, config: EncoderConfig, rngs: nnx.Rngs) -> Any: ...

    def loss(self, module: Any, batch: Batch, key: Key[Array, ""] | None) -> Losses:
        """Its weights are functions of the batch alone, and what it draws is keyed by row."""
        ...

    def passes(
        self, config: EncoderConfig, length: int, slots: int
    ) -> tuple[tuple[EncoderConfig, int, int, bool], ...]:
        """What a row goes through: the fields of flops.Pass."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """The models that it trains, by name, the one that matters first."""
        ...

    def part(
        self, name: str, config: EncoderConfig, parameters: nnx.State
    ) -> tuple[EncoderConfig, nnx.State]:
        """One of them: its config, and its parameters as an encoder with heads."""
        ...

    @property
    def frozen(self) -> tuple[tuple[str, ...], ...]:
        """Paths of the parameters that are not trained."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that changes from one step to the next. `step` counts the steps done, `skipped` those of
    them without an update, and `skipped_in_a_row` those since the last update: int32.

    No shapes are declared: as a pytree it also carries specs and placeholders in their stead.
    """

    step: Any
    parameters: nnx.State
    optimizer: optax.OptState
    skipped: Any
    skipped_in_a_row: Any


def init_state(
    objective: Objective, config: EncoderConfig, tx: optax.GradientTransformation, seed: int
) -> TrainState:
    """A fresh state, every leaf where the sharding rules say. Call under `jax.set_mesh`."""
    return begin_state(init_parameters(objective, config, seed), tx)


def begin_state(parameters: nnx.State, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step from these parameters, all of which are trained."""
    none = jnp.zeros((), jnp.int32)
    # Each count has a buffer of its own, as the train step is given them all to reuse.
    return TrainState(
        none, parameters, jax.jit(tx.init)(parameters), jnp.copy(none), jnp.copy(none)
    )


def init_parameters(objective: Objective, config: EncoderConfig, seed: int) -> nnx.State:
    def init() -> nnx.State:
        module = objective.build(config, nnx.Rngs(initial_and_step_key(seed)[0]))
        return jax.tree.map(place, nnx.state(module, nnx.Param), is_leaf=is_variable)

    return jax.jit(init)()


def initial_and_step_key(seed: int) -> Key[Array, "2"]:
    """The key of the initial parameters and that of all steps: no draw of one is of the other.
    Of Threefry, whatever the environment has as JAX's default: dropout reads its blocks."""
    return jax.random.split(jax.random.key(seed, impl="threefry2x32"))


def place(variable: nnx.Variable) -> nnx.Variable:
    """The parameter under the sharding of its role."""
    return variable.replace(jax.sharding.reshard(variable.get_value(), RULES.parameter(variable)))


def graph(objective: Objective, config: EncoderConfig) -> nnx.GraphDef:
    """The module without its arrays: with parameters, `nnx.merge` makes it whole."""
    return nnx.graphdef(nnx.eval_shape(lambda: objective.build(config, nnx.Rngs(0))))


def make_train_step(
    objective: Objective,
    config: EncoderConfig,
    tx: optax.GradientTransformation,
    seed: int,
    accumulation: int = 1,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """One update: state, batch and, last, the parameters of the module that the state does not
    have: they stay as they are, and no gradient of theirs is computed. The state is donated;
    dropout is a function of (seed, step, row) alone.

    With `accumulation` the batch goes through in that many parts, to the gradient of the whole
    batch. Where the loss or the gradient is not finite the update is skipped, and counted.
    """
    graphdef = graph(objective, config)

    def loss_of(
        parameters: nnx.State, frozen: nnx.State, batch: Batch, key: Key[Array, ""],
        weights: Weights | None = None,
    ) -> tuple[Array, Losses]:  # fmt: skip
        losses = objective.loss(nnx.merge(graphdef, parameters, frozen), batch, key)
        return total(objective, losses, weights), losses

    gradients_of = jax.grad(loss_of, has_aux=True)

    def accumulated(
        parameters: nnx.State, frozen: nnx.State, batch: Batch, key: Key[Array, ""]
    ) -> tuple[nnx.State, Losses]:
        # The weights are of the whole batch, so that parts of unequal weight count as they
        # should. No parameter decides them: the compiler drops the model that this calls.
        _, losses = loss_of(parameters, frozen, batch, key)
        weights = weights_of(losses)
        parts = {name: _parts(values, accumulation) for name, values in batch.items()}

        def add(sums, part):
            found = gradients_of(parameters, frozen, part, key, weights)
            return jax.tree.map(jnp.add, sums, found), None

        return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, (parameters, losses)), parts)[0]

    def step(
        state: TrainState, batch: Batch, frozen: nnx.State = NOTHING
    ) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(initial_and_step_key(seed)[1], state.step)
        function = gradients_of if accumulation == 1 else accumulated
        gradients, losses = function(state.parameters, frozen, batch, key)
        updates, optimizer = tx.update(gradients, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        loss, norm = total(objective, losses), optax.global_norm(gradients)
        sound = jnp.isfinite(loss) & jnp.isfinite(norm)

        def if_sound(new: Any, old: Any) -> Any:
            # A schedule's count goes on: the learning rate stays a function of the step.
            return new if is_schedule(new) else jnp.where(sound, new, old)

        def is_schedule(node: Any) -> bool:
            return isinstance(node, optax.ScaleByScheduleState)

        state = TrainState(
            state.step + 1,
            jax.tree.map(if_sound, parameters, state.parameters),
            jax.tree.map(if_sound, optimizer, state.optimizer, is_leaf=is_schedule),
            state.skipped + ~sound,
            jnp.where(sound, 0, state.skipped_in_a_row + 1),
        )
        metrics = {"loss": loss, "gradient_norm": norm} | averages(losses) | losses.counts
        metrics |= {"skipped": state.skipped, "skipped_in_a_row": state.skipped_in_a_row}
        return state, metrics

    return jax.jit(step, donate_argnums=0)


def _parts(values: Array, number: int) -> Array:
    """[B, ...] to [number, B / number, ...], each part from the rows of every device."""
    rest = values.shape[1:]
    shape = (values.shape[0] // number, number, *rest)
    sharding = RULES.batch(len(shape))
    return jnp.swapaxes(jax.lax.reshape(values, shape, out_sharding=sharding), 0, 1)


def make_eval_step(
    objective: Objective, config: EncoderConfig
) -> Callable[[nnx.State, Batch], Losses]:
    """The losses of a batch without dropout, still as sums and weights, to be added up."""
    graphdef = graph(objective, config)
    return jax.jit(
        lambda parameters, batch: objective.loss(nnx.merge(graphdef, parameters), batch, None)
    )


def total(objective: Objective, losses: Losses, weights: Weights | None = None) -> Float[Array, ""]:
    """Σ coefficient · sum / weight: the one place where a loss is divided. `weights`: those of
    the terms of a whole batch, where the losses are of a part of it."""
    weights = weights or weights_of(losses)
    return sum(
        (
            c * ratio(losses.terms[name][0], weights[name])
            for name, c in objective.coefficients.items()
        ),
        start=jnp.zeros(()),
    )


def weights_of(losses: Losses) -> Weights:
    return {name: weight for name, (_, weight) in losses.terms.items()}


def averages(losses: Losses) -> Metrics:
    """Each term's loss with the weight behind it, and each metric, as means."""
    terms = {f"{name}_loss": ratio(*pair) for name, pair in losses.terms.items()}
    weights = {f"{name}_weight": weight for name, weight in weights_of(losses).items()}
    return terms | weights | {name: ratio(*pair) for name, pair in losses.metrics.items()}


def ratio(amount: Array, weight: Array) -> Array:
    """amount / weight, and 0 where nothing was weighed."""
    return amount / jnp.maximum(weight, 1e-9)
