"""Mesh, FLOPs, bounds, curve."""

import jax
import pytest
from scipy import stats

from bert_jax.config import from_mapping
from bert_jax.errors import UserError
from bert_jax.files import append_line
from bert_jax.models.config import EncoderConfig
from bert_jax.objectives import build_objective
from bert_jax.training.curve import draw_curve
from bert_jax.training.evaluate import lower_bound
from bert_jax.training.flops import Pass, train_flops
from bert_jax.training.mesh import MeshConfig, build_mesh, check_divides
from bert_jax.training.metrics import MetricsWriter


def test_mesh_takes_all_devices():
    assert build_mesh(MeshConfig(), 16).shape == {"data": 8, "fsdp": 1, "tensor": 1}
    assert build_mesh(MeshConfig(2, -1, 2), 16).shape == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(
    ("config", "batch", "said"),
    [
        (MeshConfig(), 12, "data.batch_size=12 is not divisible by the 8 devices"),
        (MeshConfig(3, 1, 1), 12, "does not make up the 8 devices"),
        (MeshConfig(-1, 3, 1), 12, "data=-1 × fsdp=3 × tensor=1 does not make up the 8 devices"),
        (MeshConfig(-1, -1, 1), 12, "at most one is -1"),
        (MeshConfig(0, 1, 1), 12, "sizes are 1 or more"),
    ],
)
def test_a_mesh_that_does_not_fit_is_named(config, batch, said):
    with pytest.raises(UserError, match=said):
        build_mesh(config, batch)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (MeshConfig(4, 1, 2), "mesh.tensor=2 does not divide the num_heads 3"),
        (MeshConfig(1, 8, 1), "mesh.fsdp=8 does not divide the hidden_size 12"),
    ],
)
def test_an_encoder_that_cannot_be_cut_is_named(shape, said):
    config = EncoderConfig(hidden_size=12, num_heads=3, intermediate_size=64)
    with pytest.raises(UserError, match=said):
        check_divides(build_mesh(shape, 16), config)


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
    found = train_flops([Pass(config, slots, 0)], length)
    assert found == pytest.approx(3 * forward, rel=1e-3)


def test_kernels_that_are_not_trained_have_no_gradients():
    passes = (Pass(EncoderConfig(), 0, 0, kernels=kernels) for kernels in (True, False))
    all_of_it, between = (train_flops([one], 128) for one in passes)
    assert 3 * between == 2 * all_of_it


def sized(hidden, layers, embedding=0, vocab_size=30522):
    return EncoderConfig(
        hidden_size=hidden, num_layers=layers, num_heads=max(hidden // 64, 1),
        intermediate_size=4 * hidden, embedding_size=embedding, vocab_size=vocab_size,
    )  # fmt: skip


LARGE = [(sized(256, 24, 1024), 80, 0), (sized(1024, 24), 0, 512)]


@pytest.mark.parametrize(
    ("passes", "length", "rows", "expected"),
    [
        ([(sized(256, 12, 128), 20, 0)], 128, 128 * 1.45e6, 1.418740e18),
        ([(sized(768, 12), 80, 0)], 512, 256e6, 6.428335e19),
        ([(sized(1024, 24), 80, 0)], 512, 256e6, 1.917209e20),
        ([(sized(64, 12, 128), 20, 0), (sized(256, 12, 128), 0, 128)], 128, 128e6, 1.293744e18),
        ([(sized(256, 12, 768), 80, 0), (sized(768, 12), 0, 512)], 512, 256 * 766e3, 6.424542e19),
        (LARGE, 512, 2048 * 4e5, 7.117606e20),
        (LARGE, 512, 2048 * 175e4, 3.113953e21),
        ([(sized(1024, 24, vocab_size=50265), 80, 0)], 512, 8000 * 500e3, 3.187221e21),
        ([(sized(4096, 12, 128, 30000), 80, 0)], 512, 4096 * 1.5e6, 3.113924e22),
    ],
)  # fmt: skip
def test_flops_by_the_convention_of_clark(passes, length, rows, expected):
    """The output of the script that was released with Clark et al. 2020, to six digits."""
    found = rows * train_flops([Pass(*one) for one in passes], length, "electra")
    assert f"{found:.6e}" == f"{expected:.6e}"


def test_an_objective_says_what_a_row_goes_through():
    """The presets of configs/electra.py lead to the same numbers as the sizes above."""
    from configs import electra

    config = from_mapping(electra.get_config("base").to_dict())
    objective = build_objective(config.objective, config.model, config.generator)
    passes = [Pass(*one) for one in objective.passes(config.model, 512, 80)]
    assert f"{256 * 766e3 * train_flops(passes, 512, 'electra'):.6e}" == "6.424542e+19"
    with pytest.raises(UserError, match="the conventions are model and electra"):
        train_flops(passes, 512, "other")


@pytest.mark.parametrize(("hits", "trials"), [(60, 100), (0, 10), (10, 10), (1040, 2000)])
def test_lower_bound_is_exact(hits, trials):
    bound = lower_bound(hits, trials)
    expected = stats.beta.ppf(0.05, hits, trials - hits + 1) if hits else 0.0
    assert bound == pytest.approx(expected)


def test_lines_of_a_small_file_stay_apart(tmp_path):
    (tmp_path / "lines").write_text('{"a": 1}\n{"b')
    append_line(tmp_path / "lines", "{}")
    append_line(tmp_path / "lines", "{}")
    assert (tmp_path / "lines").read_text() == '{"a": 1}\n{"b\n{}\n{}\n'


def test_curve_is_a_picture(tmp_path):
    writer = MetricsWriter(tmp_path, [])
    for step in (1, 2, 3):
        evaluated = {"eval_mlm_loss": 2.0, "eval_unigram_loss": 3.0} if step == 3 else {}
        writer.write({"step": step, "mlm_loss": 3 / step, "nsp_loss": 0.7, **evaluated})
    writer.close()
    path = draw_curve(tmp_path, "a run")
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000
    assert jax.device_count() == 8
