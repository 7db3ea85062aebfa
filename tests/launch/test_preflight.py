"""The program as a user has it, on configs small enough to compile in seconds."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from bert_jax.config import from_mapping
from bert_jax.data.loader import PhasedBatches
from bert_jax.data.phases import phases
from bert_jax.errors import UserError
from bert_jax.objectives import build_objective
from bert_jax.training.flops import PEAKS
from configs import bert
from launch.preflight.chips import CHIPS, parse
from launch.preflight.compile import GIB, Fit, Step, load_devices, too_large
from launch.preflight.estimate import kernel_seconds, largest_batch, seconds_of
from launch.preflight.hlo import Collective, Kernel
from tests import tiny

ROOT = Path(__file__).parents[2]
# Dropout is most of what takes long to compile.
SMALL = [
    *tiny.OVERRIDES, "--config.train.steps=100", "--config.model.num_layers=1",
    "--config.model.hidden_dropout=0.0", "--config.model.attention_dropout=0.0",
]  # fmt: skip


def preflight(*arguments, status=0):
    done = subprocess.run(
        [sys.executable, "-m", "launch.preflight", *arguments],
        capture_output=True, text=True, timeout=300, env=os.environ, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done


def test_it_says_what_a_run_needs():
    config = "--config=configs/bert.py:tiny"
    phased = "--config.data.phases=75% 25%:16:16:3"
    done = preflight(
        config, *SMALL, phased, "--topology=v5e:2x2", "--json", "--no-search",
        "--price-per-chip-hour=2",
    )  # fmt: skip
    facts = json.loads(done.stdout)
    assert facts["fits"] and facts["chips"] == 4 and facts["mesh"]["data"] == 4
    first, second = facts["phases"]
    assert (first["length"], first["batch"], first["steps"]) == (32, 8, 75)
    assert (second["length"], second["batch"], second["steps"]) == (16, 16, 25)
    for phase in facts["phases"]:
        assert 0 < phase["hbm"]["state"] < phase["hbm"]["needed"] < phase["hbm"]["usable"]
        assert phase["hbm"]["usable"] == 15.75 * GIB
        seconds = phase["seconds"]
        assert 0 < phase["roofline"]["step"] < seconds["compiler"] < seconds["step"]
        assert phase["mfu"] == pytest.approx(phase["flops"] / (seconds["step"] * 4 * 197e12))
        assert not phase["loops_of_unknown_length"] and len(phase["operations"]) == 10
        assert any("bert_jax/models/" in row["source"] for row in phase["operations"])
    expected = 75 * first["seconds"]["step"] + 25 * second["seconds"]["step"]
    assert facts["seconds"] == pytest.approx(expected)
    assert facts["cost"] == pytest.approx(2 * 4 * expected / 3600)
    assert "error" not in done.stderr.lower() and "Traceback" not in done.stderr
    # Of data parallel training: every parameter's gradient, and a few sums beside.
    parameters = 2 * first["hbm"]["state"] / 12 / 2
    reduced = sum(row["bytes"] for row in first["collectives"] if row["kind"] == "all-reduce")
    assert parameters < reduced < 5 * parameters


def test_out_of_memory_is_an_answer():
    done = preflight(
        "--config=configs/bert.py:tiny", *SMALL, "--topology=v5e:2x2", "--no-search",
        "--config.data.batch_size=1048576", status=3,
    )  # fmt: skip
    assert "DOES NOT FIT" in done.stdout and "remat=full" in done.stdout
    assert "GiB are needed, 15.75 GiB can be used" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_mistake_is_one_line():
    wrong = ["--topology=v5e:16x16", "--config.data.batch_size=100"]
    done = preflight("--config=configs/bert.py:tiny", *wrong, status=2)
    assert "not divisible by the 256" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("topology", "said"),
    [
        ("v5e:32x32", "there is no such slice of v5e; there are 1x1, 2x2"),
        ("v9:2x2", "with a chip of v5e, v5p, v6e, tpu7x"),
        ("v5p", "there is no such slice of v5p"),
    ],
)
def test_slices_that_cannot_be_had_are_refused(topology, said):
    with pytest.raises(UserError, match=said):
        parse(topology)


def test_help_teaches():
    assert "--topology=v5e:16x16" in preflight("--help").stdout


def test_without_libtpu_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    with pytest.raises(UserError, match="pip install -r requirements-tpu.txt"):
        load_devices("v5e:2x2", 1)


def test_libtpu_leaves_programs_on_a_cpu_alone():
    """It is installed; a program that is not told its platform neither starts it nor complains."""
    code = (
        "from bert_jax import cli; import jax\nwith cli.guarded(): print(jax.devices()[0].platform)"
    )
    without = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=without, cwd=ROOT
    )
    assert (done.stdout, done.stderr) == ("cpu\n", "")


def test_every_slice_of_the_table_can_be_compiled_for():
    for generation, chip in CHIPS.items():
        assert chip.kind in PEAKS
        for slice_ in (chip.slices[0], chip.slices[4]):
            name, _, count = parse(f"{generation}:{slice_}")
            devices = load_devices(name, 1)
            assert len(devices) == count * chip.devices
            assert {device.device_kind for device in devices} == {chip.kind}


@pytest.mark.parametrize("packing", [False, True])
def test_the_batch_is_the_loaders(corpus, packing):
    """Fields, shapes and kinds of numbers, of every field that a step reads."""
    from bert_jax.data.examples import build_examples
    from bert_jax.data.records import Rows

    pairs = {"pairs": "none", "format": "full-sentences"} if packing else {}
    data = replace(tiny.DATA, packing=packing, **pairs)
    terms = {"mlm": 1.0} if packing else {"mlm": 1.0, "nsp": 1.0}
    values = {"model": vars(tiny.MODEL), "objective": terms, "data": vars(data)}
    step = Step(from_mapping(values), jax.devices())
    examples = {32: build_examples(Rows(corpus.folder, "train"), tiny.vocabulary(), data)}
    real = PhasedBatches(phases(data, 4), examples, tiny.vocabulary(), 0)[0]
    batch = step.batch(data)
    assert {n: (real[n].shape, real[n].dtype) for n in batch} == {
        n: (field.shape, field.dtype) for n, field in batch.items()
    }
    fields = build_objective(terms, tiny.MODEL).fields + (("position_ids",) if packing else ())
    assert set(batch) == set(fields)


def test_seconds_of_collectives_and_kernels():
    chip = CHIPS["v5e"]
    one = Collective("all-reduce", 1e9, 256, 2, "ici", "")
    assert seconds_of(one, chip) == pytest.approx(2 * 2 * 255 / 256 * 1e9 / 200e9)
    assert seconds_of(replace(one, over="dcn", group=4), chip) == pytest.approx(3e9 / 3.125e9)
    assert kernel_seconds(Kernel("", 197e12, 0.0, 3, ""), chip) == pytest.approx(3 / 0.5)
    assert kernel_seconds(Kernel("", None, 819e9, 1, ""), chip) == pytest.approx(1 / 0.5)


def test_what_the_compiler_says_of_too_much():
    said = "RESOURCE_EXHAUSTED: total memory required for X (2.00T) exceeds available HBM (15.75G)."
    assert too_large(said + "\nmore", 1.0) == Fit(2 * 2**40, 1.0, None, reason=said)
    assert too_large("RESOURCE_EXHAUSTED: Used 17.5G of 15.75G hbm.", 1.0).needed == 17.5 * GIB
    assert too_large("RESOURCE_EXHAUSTED: of vmem", 1.0).needed == 0


@pytest.mark.parametrize("refused", [1.0, 1.5])
@pytest.mark.parametrize("limit", [5, 37, 200])
def test_the_search_ends_next_to_the_largest_that_fits(limit, refused):
    """Memory of 3 units and one a row, four rows a device apart, to `limit` rows a device; beyond
    `refused` times that there is no program."""
    tried = []
    step = type("Sized", (), {"rows": 4})()

    def try_(data):
        rows = data.batch_size // 4
        tried.append(rows)
        made = "" if rows <= refused * limit else None
        return Fit(3.0 + rows, 3.0 + limit, made, 3.0, float(rows))

    data = replace(tiny.DATA, batch_size=4)
    found = largest_batch(step, data, try_(data), try_)
    assert found["fits"] % 4 == 0 and found["fits"] <= 4 * limit < found["does_not_fit"]
    assert found["does_not_fit"] - found["fits"] <= max(4, found["fits"] // 4)
    assert len(tried) <= 6


def test_pods_are_slices_that_there_are():
    from launch.preflight.__main__ import FAMILIES

    for family in FAMILIES:
        module = __import__(f"configs.{family}", fromlist=["PODS"])
        minutes = {name for name in module.PRESETS if name == "tiny" and module is not bert}
        assert set(module.PODS) == set(module.PRESETS) - minutes
        for preset, topology in module.PODS.items():
            _, _, chips = parse(topology)
            config = from_mapping(module.get_config(preset).to_dict())
            assert all(phase.data.batch_size % chips == 0 for phase in config.phases)
