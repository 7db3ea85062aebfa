"""bert_jax.pretrain with a SIGTERM to itself at a named moment: STOP=compile, step:7,
evaluation:18 or saving:12; of several processes ONLY=2 sends it to number 2. What the tests of
preemption start instead of the program."""

import os
import signal
import sys
import time

from bert_jax import cli, pretrain
from bert_jax.training.checkpoint import Checkpoints
from bert_jax.training.metrics import LaggedMetrics
from bert_jax.training.rates import Rates

moment, _, number = os.environ["STOP"].partition(":")
aside, hold, save = Rates.aside, LaggedMetrics.hold, Checkpoints.save
last = 0


def stop(here, step=None):
    told = "ONLY" not in os.environ or f"--process={os.environ['ONLY']}" in sys.argv
    if told and here == moment and (step is None or step == int(number)):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)  # until the thread that waits for signals has seen it


def watched_aside(self, what):
    if what == "compile":
        stop("compile")
    if what == "evaluation":
        stop("evaluation", last)
    return aside(self, what)


def watched_hold(self, step, *numbers):
    global last
    last = step
    stop("step", step)
    return hold(self, step, *numbers)


def watched_save(self, step, *rest):
    save(self, step, *rest)
    stop("saving", step)


Rates.aside, LaggedMetrics.hold, Checkpoints.save = watched_aside, watched_hold, watched_save
cli.run(pretrain.main, pretrain.__doc__)
