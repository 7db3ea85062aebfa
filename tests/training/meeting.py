"""One process that meets others, without jax. Then: "leave" ends in order, "stay" waits for what
its watch does, "die" is killed."""

import os
import signal
import sys
import time

from bert_jax.errors import UserError
from bert_jax.training.rendezvous import meet

port, processes, process, timeout = map(int, sys.argv[1:5])
try:
    watch = meet("127.0.0.1", port, processes, process, timeout)
except UserError as error:
    print(error, file=sys.stderr, flush=True)
    os._exit(2)
print("met", flush=True)
assert "jax" not in sys.modules
if sys.argv[5] == "die":
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[5] == "leave":
    watch.take_leave()
    sys.exit()
time.sleep(60)
