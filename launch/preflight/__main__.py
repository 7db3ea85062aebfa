"""What a run will need on a TPU pod, from the real compiler, on a machine without a TPU.

  python -m launch.preflight --config=configs/bert.py:large --topology=v5e:16x16

Compiles the train step of each phase for that slice and prints: HBM a chip against what there is,
the largest batch that fits, each collective with its bytes, the time of a step and MFU as the
compiler's cycle counts have them, beside the roofline, the operations that take most of it, by
source line, and time, chip-hours and cost to finish the config. Takes a minute or a few.

Chips are v5e, v5p, v6e and tpu7x; --config.mesh.slices=4 joins four slices of the topology. Any
field of the config can be set, as in pretrain:

  --config.mesh.fsdp=8 --config.model.remat=full --config.data.batch_size=512

  --no-search                  do not look for the largest batch (a few compilations more)
  --price-per-chip-hour=1.2    what the run costs, in the currency of the price
  --json                       the same facts as one JSON object
  --all                        every preset of configs/ on the pod that its PODS name, as a table

Needs libtpu: pip install -r requirements-tpu.txt. Status: 0 it fits, 3 it does not (an answer, not
a failure), 2 a mistake in the command. docs/preflight.md says what the estimates leave out.
"""

import importlib
import json
import math
import sys
import time
from functools import partial
from typing import Any

import jax
from absl import flags

from bert_jax import cli
from bert_jax.config import RunConfig, from_mapping
from bert_jax.data.config import DataConfig
from bert_jax.errors import UserError
from launch.preflight.chips import Chip, parse
from launch.preflight.compile import GIB, Fit, Step, load_devices
from launch.preflight.estimate import largest_batch, phase_facts, run_facts
from launch.preflight.report import one_line, report, table_head

cli.define_config()
flags.DEFINE_string("topology", "", "CHIP:SLICE, as in v5e:16x16")
flags.DEFINE_bool("no-search", False, "do not look for the largest batch that fits")
flags.DEFINE_bool("json", False, "print JSON")
flags.DEFINE_bool("all", False, "every preset on its pod")
flags.DEFINE_float("price-per-chip-hour", 0.0, "to say what the run costs")

DOES_NOT_FIT = 3
FAMILIES = ("bert", "roberta", "xlmr", "albert", "electra")


def main() -> None:
    given = flags.FLAGS.flag_values_dict()
    price = given["price-per-chip-hour"]
    jax.config.update("jax_platforms", "cpu")  # an accelerator that is here stays free
    jax.config.update("jax_enable_compilation_cache", False)  # nor are its programs looked for
    if not 0 <= price < math.inf:
        raise UserError(f"--price-per-chip-hour={price}: must be 0 or more")
    if given["all"]:
        sys.exit(0 if all_presets() else DOES_NOT_FIT)
    topology = cli.required("topology")
    facts = preflight(cli.run_config(), topology, search=not given["no-search"])
    if price and facts["fits"]:
        facts["cost"] = price * facts["chip_hours"]
    print(json.dumps(facts, indent=1) if given["json"] else report(facts))
    sys.exit(0 if facts["fits"] else DOES_NOT_FIT)


def preflight(config: RunConfig, topology: str, search: bool = True) -> dict[str, Any]:
    """All that is known of the run, as plain values (docs/preflight.md names them)."""
    name, chip, chips = parse(topology)
    step = Step(config, load_devices(name, config.mesh.slices))
    phases = []
    for number, phase in enumerate(config.phases, 1):
        data = phase.data
        what = f"phase {number} of {len(config.phases)}, length {data.sequence_length}"
        begin = time.monotonic()
        fit = compiled(step, data, chip, what)
        facts = phase_facts(step, data, phase.steps, fit, chip, chips * config.mesh.slices)
        facts["compile_seconds"] = time.monotonic() - begin
        if search:
            attempt = partial(compiled, step, chip=chip, what=what, quick=True)
            facts["largest_batch"] = largest_batch(step, data, fit, attempt)
        phases.append(facts)
    return run_facts(config, name, chip, chips, step, phases)


def compiled(step: Step, data: DataConfig, chip: Chip, what: str, quick: bool = False) -> Fit:
    """The step compiled for a batch; told on stderr, as it takes long."""
    how = "trying" if quick else "compiling"
    print(f"{how} {what}, batch {data.batch_size} ...", end="", file=sys.stderr, flush=True)
    begin = time.monotonic()
    fit = step.compile(data, chip.usable_gib * GIB / chip.devices, quick)
    seconds = time.monotonic() - begin
    says = "fits" if fit.fits else "does not fit"
    print(f" {seconds:.0f} s, {says}", file=sys.stderr, flush=True)
    return fit


def all_presets() -> bool:
    """A table of every preset that has a pod, printed as it grows; whether all fit."""
    print(table_head(), flush=True)
    fits = True
    for family in FAMILIES:
        module = importlib.import_module(f"configs.{family}")
        for preset, topology in module.PODS.items():
            print(f"{family}.py:{preset} on {topology}", file=sys.stderr)
            config = from_mapping(module.get_config(preset).to_dict())
            facts = preflight(config, topology, search=False)
            print(one_line(f"{family}.py:{preset}", facts), flush=True)
            fits &= facts["fits"]
    return fits


if __name__ == "__main__":
    cli.run(main, __doc__)
