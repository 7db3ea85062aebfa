"""Learning rates over steps."""

import optax

from bert_jax.errors import UserError


def warmup_linear_decay(peak: float, warmup_steps: int, steps: int) -> optax.Schedule:
    """0 to `peak` over warmup_steps, then linearly to 0 at `steps` (Devlin et al. 2018, A.2)."""
    if not 0 <= warmup_steps < steps:
        raise UserError(
            f"optimizer.warmup_steps={warmup_steps}: must be at least 0 and below "
            f"train.steps={steps}"
        )
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, peak, max(warmup_steps, 1)),
            optax.linear_schedule(peak, 0.0, steps - warmup_steps),
        ],
        [warmup_steps],
    )
