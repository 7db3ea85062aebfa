"""bert_jax.pretrain with a SIGKILL to itself at a named moment of a save: KILL=before:12,
during:12 or after:12. What the tests of resuming start instead of the program."""

import os
import signal
import sys

from bert_jax import cli, pretrain
from bert_jax.training.checkpoint import Checkpoints

moment, _, step = os.environ["KILL"].partition(":")
save = Checkpoints.save


def deadly(self, now, state, *loss):
    def kill():
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    if now != int(step):
        return save(self, now, state, *loss)
    if moment == "before":
        kill()
    save(self, now, state, *loss)
    if moment == "after":
        self.wait()
    kill()  # 'during': the files are being written by other threads


Checkpoints.save = deadly
cli.run(pretrain.main, pretrain.__doc__)
