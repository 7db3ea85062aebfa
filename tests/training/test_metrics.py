"""metrics.jsonl is cut back to the restored step; TensorBoard follows it."""

import json

import jax.numpy as jnp
import pytest

from bert_jax.training.metrics import FILE, LaggedMetrics, MetricsWriter, Rates, read_metrics


def written(path):
    return [json.loads(line)["step"] for line in (path / FILE).read_text().splitlines()]


@pytest.fixture
def five(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    for step in range(1, 6):
        writer.write({"step": step, "loss": 1 / step, "mfu": None})
    writer.close()
    return tmp_path


def test_values_are_exact(five):
    assert [record["loss"] for record in read_metrics(five)] == [1 / s for s in range(1, 6)]
    assert read_metrics(five)[0]["mfu"] is None


def test_a_restart_cuts_what_will_be_run_again(five):
    MetricsWriter(five, 3).close()
    assert written(five) == [1, 2, 3]


@pytest.mark.parametrize("torn", ['{"step": 6, "lo', '{"step": 6, "loss": 1}', "\x00\x00\n"])
def test_a_torn_line_goes(five, torn):
    with (five / FILE).open("a") as file:
        file.write(torn)
    writer = MetricsWriter(five, 5)
    writer.write({"step": 6, "loss": 0.5})
    writer.close()
    assert written(five) == [1, 2, 3, 4, 5, 6]


def test_tensorboard_is_written_anew(five):
    before = {p.name for p in (five / "tensorboard").iterdir()}
    MetricsWriter(five, 2).close()
    after = [p for p in (five / "tensorboard").iterdir()]
    assert len(after) == 1 and len(before) == 1
    content = after[0].read_bytes()
    assert content.count(b"loss") == 2 and b"mfu" not in content


def test_numbers_are_read_when_they_are_written(tmp_path):
    writer, shown = MetricsWriter(tmp_path, 0), []
    lagged = LaggedMetrics(writer, lambda step, record: shown.append((step, record)))
    lagged.write()
    lagged.hold(3, {"loss": jnp.float32(0.1)}, {"mfu": None})
    lagged.hold(3, {"eval_loss": 2.0})
    assert read_metrics(tmp_path) == []
    lagged.write()
    lagged.write()
    writer.close()
    (record,) = read_metrics(tmp_path)
    assert record == {"step": 3, "loss": float(jnp.float32(0.1)), "mfu": None, "eval_loss": 2.0}
    assert list(record)[0] == "step" and shown == [(3, record)]


def test_rates():
    rates = Rates()
    assert rates.take(0.0) == {"tokens_per_second": None, "mfu": None, "loader_wait": None}
    rates.add(jnp.float32(100), 10**9)
    rates.add(jnp.float32(50), 10**9)
    taken = rates.take(0.0)
    assert taken["tokens_per_second"] > 0 and taken["loader_wait"] == 0
    assert taken["mfu"] is None  # of a CPU nobody knows the peak
    assert rates.take(0.0)["tokens_per_second"] is None
