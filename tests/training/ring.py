"""One process of a run that sums over all devices until it is stopped, or --rounds times. What the
tests of many processes start.

`--fail=I:K` lets process I raise an error after K rounds, with `--hang=I:K` it stops answering
altogether; `--leave=K` lets all end with status 143 then, --stoppable where they get SIGTERM.
--heartbeat: seconds."""

import os
import signal
import sys
import time

import jax
import jax.numpy as jnp
from absl import flags
from jax.sharding import NamedSharding, PartitionSpec as P

from bert_jax import cli
from bert_jax.training import distributed

cli.define_distributed()
flags.DEFINE_integer("rounds", 10**9, "how many sums")
flags.DEFINE_integer("linger", 0, "seconds to do other things after them")
flags.DEFINE_string("fail", "", "PROCESS:ROUND")
flags.DEFINE_string("hang", "", "PROCESS:ROUND")
flags.DEFINE_integer("leave", 0, "ROUND")
flags.DEFINE_bool("stoppable", False, "SIGTERM ends it with 143")
flags.DEFINE_integer("heartbeat", distributed.HEARTBEAT_SECONDS, "seconds")


def main() -> None:
    distributed.HEARTBEAT_SECONDS = flags.FLAGS.heartbeat
    cli.distributed()
    if flags.FLAGS.stoppable:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    ones = jax.make_array_from_callback(
        (jax.device_count(),), NamedSharding(mesh, P("data")), lambda _: jnp.ones(1)
    )
    total = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, P()))
    for count in range(1, flags.FLAGS.rounds + 1):
        answer = int(total(ones))
        if count == 1:
            print(
                f"process {jax.process_index()} of {jax.process_count()} sums {answer}", flush=True
            )
        here = f"{jax.process_index()}:{count}"
        if here == flags.FLAGS.fail:
            raise ArithmeticError(f"made to fail in process {jax.process_index()}")
        if here == flags.FLAGS.hang:
            os.kill(os.getpid(), signal.SIGSTOP)
        if count == flags.FLAGS.leave:
            sys.exit(143)
        time.sleep(0.01)
    time.sleep(flags.FLAGS.linger * (jax.process_index() == 1))
    print("done", flush=True)


if __name__ == "__main__":
    cli.run(main, __doc__)
