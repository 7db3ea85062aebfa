"""Mesh, FLOPs, bounds, curve."""

import jax
import pytest
from scipy import stats

from bert_jax.errors import UserError
from bert_jax.models.config import EncoderConfig
from bert_jax.training.curve import draw_curve
from bert_jax.training.evaluate import lower_bound
from bert_jax.training.flops import train_flops
from bert_jax.training.mesh import MeshConfig, build_mesh
from bert_jax.training.metrics import MetricsWriter


def test_mesh_takes_all_devices():
    assert build_mesh(MeshConfig(), 16).shape == {"data": 8, "fsdp": 1, "tensor": 1}
    assert build_mesh(MeshConfig(2, -1, 2), 16).shape == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(
    ("config", "batch", "said"),
    [
        (MeshConfig(), 12, "data.batch_size=12 is not divisible by the 8 devices"),
        (MeshConfig(3, 1, 1), 12, "does not make up the 8 devices"),
        (MeshConfig(-1, 3, 1), 12, "does not make up the 8 devices"),
        (MeshConfig(-1, -1, 1), 12, "at most one is -1"),
        (MeshConfig(0, 1, 1), 12, "sizes are 1 or more"),
    ],
)
def test_a_mesh_that_does_not_fit_is_named(config, batch, said):
    with pytest.raises(UserError, match=said):
        build_mesh(config, batch)


@pytest.mark.parametrize(
    ("layers", "hidden", "length", "slots", "forward"),
    [
        (12, 768, 128, 20, 6.99e10 / 3),
        (12, 768, 512, 80, 3.014e11 / 3),
        (24, 1024, 128, 20, 2.406e11 / 3),
        (24, 1024, 512, 80, 1.0205e12 / 3),
    ],
)
def test_flops_of_the_papers_sizes(layers, hidden, length, slots, forward):
    config = EncoderConfig(
        hidden_size=hidden, num_layers=layers, num_heads=hidden // 64, intermediate_size=4 * hidden
    )
    assert train_flops(config, length, slots) == pytest.approx(3 * forward, rel=1e-3)


@pytest.mark.parametrize(("hits", "trials"), [(60, 100), (0, 10), (10, 10), (1040, 2000)])
def test_lower_bound_is_exact(hits, trials):
    bound = lower_bound(hits, trials)
    expected = stats.beta.ppf(0.05, hits, trials - hits + 1) if hits else 0.0
    assert bound == pytest.approx(expected)


def test_curve_is_a_picture(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    for step in (1, 2, 3):
        evaluated = {"eval_mlm_loss": 2.0, "eval_unigram_loss": 3.0} if step == 3 else {}
        writer.write({"step": step, "mlm_loss": 3 / step, "nsp_loss": 0.7, **evaluated})
    writer.close()
    path = draw_curve(tmp_path, "a run")
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000
    assert jax.device_count() == 8
