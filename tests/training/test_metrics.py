"""metrics.jsonl is cut back to the restored step; TensorBoard follows it."""

import json
import time

import jax.numpy as jnp
import pytest

from bert_jax.errors import UserError
from bert_jax.training.metrics import FILE, LaggedMetrics, MetricsWriter, read_metrics
from bert_jax.training.rates import Rates
from bert_jax.training.spikes import LossSpikes


def written(path):
    return [json.loads(line)["step"] for line in (path / FILE).read_text().splitlines()]


@pytest.fixture
def five(tmp_path):
    writer = MetricsWriter(tmp_path, [])
    for step in range(1, 6):
        writer.write({"step": step, "loss": 1 / step, "mfu": None})
    writer.close()
    return tmp_path


def test_values_are_exact(five):
    assert [record["loss"] for record in read_metrics(five)] == [1 / s for s in range(1, 6)]
    assert read_metrics(five)[0]["mfu"] is None


def test_a_restart_cuts_what_will_be_run_again(five):
    MetricsWriter(five, read_metrics(five)[:3]).close()
    assert written(five) == [1, 2, 3]


@pytest.mark.parametrize("torn", ['{"step": 6, "lo', '{"step": 6, "loss": 1}', "\x00\x00\n"])
def test_a_torn_line_goes(five, torn):
    with (five / FILE).open("a") as file:
        file.write(torn)
    writer = MetricsWriter(five, read_metrics(five)[:5])
    writer.write({"step": 6, "loss": 0.5})
    writer.close()
    assert written(five) == [1, 2, 3, 4, 5, 6]


def test_tensorboard_is_written_anew(five):
    before = {p.name for p in (five / "tensorboard").iterdir()}
    MetricsWriter(five, read_metrics(five)[:2]).close()
    after = [p for p in (five / "tensorboard").iterdir()]
    assert len(after) == 1 and len(before) == 1
    content = after[0].read_bytes()
    assert content.count(b"loss") == 2 and b"mfu" not in content


def test_numbers_are_read_when_they_are_written(tmp_path):
    writer, shown = MetricsWriter(tmp_path, []), []
    lagged = LaggedMetrics(writer, lambda step, record: shown.append((step, record)), 0)
    lagged.write()
    lagged.hold(3, {"loss": jnp.float32(0.1)}, {"mfu": None})
    lagged.hold(3, {"eval_loss": 2.0})
    assert read_metrics(tmp_path) == []
    lagged.write()
    lagged.write()
    writer.close()
    (record,) = read_metrics(tmp_path)
    assert record == {"step": 3, "loss": float(jnp.float32(0.1)), "mfu": None, "eval_loss": 2.0}
    assert list(record) == ["step", "eval_loss", "loss", "mfu"] and shown == [(3, record)]


def test_too_many_skipped_steps_end_the_run(tmp_path):
    writer = MetricsWriter(tmp_path, [])
    lagged = LaggedMetrics(writer, lambda step, record: None, max_skipped=2)
    for step, skipped in ((1, 0), (2, 2), (3, 3)):
        loss = jnp.float32(jnp.nan if skipped else 1)
        lagged.hold(step, {"loss": loss, "skipped_in_a_row": jnp.int32(skipped)})
        if skipped < 3:
            lagged.write()
    with pytest.raises(UserError, match="step 3: no finite loss and gradient in the last 3 steps"):
        lagged.write()
    writer.close()
    assert [record["loss"] for record in read_metrics(tmp_path)] == [1.0, None, None]


def test_rates():
    rates = Rates(time.monotonic())
    none = {"tokens_per_second": None, "mfu": None, "loader_wait": None}
    assert rates.take(0.0).items() >= none.items()
    rates.add(jnp.float32(100), 10**9)
    rates.add(jnp.float32(50), 10**9)
    taken = rates.take(0.0)
    assert taken["tokens_per_second"] > 0 and taken["loader_wait"] == 0
    assert taken["mfu"] is None  # of a CPU nobody knows the peak
    assert rates.take(0.0)["tokens_per_second"] is None


def test_goodput_is_what_is_left():
    """Half of a second of all since the beginning is named, and none of it slows the steps."""
    rates = Rates(time.monotonic() - 0.2)
    rates.add(jnp.float32(1), 1)
    with rates.aside("saving"):
        time.sleep(0.2)
    time.sleep(0.1)
    taken = rates.take(0.05)
    shares = rates.shares()
    assert sum(shares.values()) == pytest.approx(1)
    whole, steps, seconds = rates.totals()
    assert steps == 1 and 0.1 <= seconds < 0.15
    assert shares["start"] * whole == pytest.approx(0.2, abs=0.02)
    assert shares["saving"] * whole == pytest.approx(0.2, abs=0.02)
    assert shares["waiting"] * whole == pytest.approx(0.05, abs=0.001)
    assert taken["goodput"] == pytest.approx(shares["steps"], abs=0.02)


def test_a_spike_is_told_apart_from_noise():
    spikes = LossSpikes()
    noise = [5.0, 5.1, 4.9, 5.05, 4.95, 5.2, 4.8, 5.0, 5.1, 4.9, 5.3, 5.2]
    assert not any(spikes.add(step, {"loss": loss}) for step, loss in enumerate(noise))
    assert spikes.add(12, {"loss": None}) == spikes.add(12, {"eval_loss": 9.0}) == ""
    assert "step 13: loss 9.0000 is a spike, 3.9" in spikes.add(13, {"loss": 9.0})
    assert spikes.add(14, {"loss": 2.0}) == ""  # better is no spike
    assert [step for step, _, _ in spikes.found] == [13]
