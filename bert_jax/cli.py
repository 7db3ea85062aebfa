"""What all programs share: flags, --help, and one line for a user's mistake."""

import contextlib
import errno
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from bert_jax import leave_early
from bert_jax.config import RunConfig, built, flat, nearest, to_mapping
from bert_jax.errors import Preempted, UserError, one_line
from bert_jax.objectives import REPLACED_TERMS, TERMS
from bert_jax.store import failed
from bert_jax.training.distributed import fail, initialize
from bert_jax.training.preempt import STATUS

# What a user can mend: a disk that is full, a place that cannot be written.
_DISK = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST,
    errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
}  # fmt: skip


def define_config() -> None:
    config_flags.DEFINE_config_file("config", None, "configs/FILE.py:PRESET", lock_config=True)


def define_distributed() -> None:
    flags.DEFINE_enum("cluster", "none", ["none", "auto"], "auto: join the run a cluster tells of")
    flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0")
    flags.DEFINE_integer("processes", 0, "how many processes make up the run", lower_bound=0)
    flags.DEFINE_integer("process", -1, "which of them this one is, from 0", lower_bound=-1)
    flags.DEFINE_integer("startup_timeout", 300, "seconds to wait for all processes", lower_bound=1)


def make_deterministic() -> None:
    """The same bits each time on a GPU too. Read when the backend is made: call it before."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"


def run_fields() -> Mapping[str, Any]:
    return to_mapping(RunConfig(objective=dict.fromkeys(TERMS | REPLACED_TERMS, 0.0)))


def run(
    main: Callable[[], None],
    teaching: str,
    fields: Callable[[], Mapping[str, Any]] = run_fields,
) -> None:
    """Parse the flags, call main(), leave with its status.

    0: the work is done. 2: a UserError, told in one line. 143: Preempted. `teaching` is what
    --help prints. `fields`: those that --config can have.
    """
    if {"--help", "-h", "-help"} & set(sys.argv[1:]):
        print(teaching.strip())
        sys.exit(0)

    def parsed(argv: list[str]) -> list[str]:
        try:
            for extra in flags.FLAGS(argv)[1:]:
                raise UserError(f"{extra!r}: not expected here; options are --NAME=VALUE")
            if "config" in flags.FLAGS and flags.FLAGS.config is not None:
                _ = flags.FLAGS.config.to_dict  # raises now where the file could not be loaded
            return argv
        except Exception as error:
            leave(_flag_error(error, fields))

    def called(_: list[str]) -> None:
        with guarded():
            main()

    app.run(called, flags_parser=parsed)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """A UserError, a full disk and Ctrl-C become one line and a status; the rest is a defect."""
    logging.set_verbosity(logging.ERROR)  # orbax tells each file it writes
    _pass_over_libtpu()
    if signal.getsignal(signal.SIGINT) is leave_early:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except UserError as error:
        leave(str(error))
    except Preempted as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(STATUS)  # in order, as other processes of the run wait for this one
    except BrokenPipeError:  # whoever read the output has enough
        sys.stdout = open(os.devnull, "w")
        sys.exit(0)
    except MemoryError as error:
        reason = one_line(error, 200) or "out of memory"
        leave(
            f"the memory of this machine is too small ({reason}); take less at a time: a smaller "
            f"batch or length, or fewer workers"
        )
    except OSError as error:
        if told := failed(error):
            leave(told)
        if error.errno not in _DISK:
            raise
        where = f"{error.filename}: " if error.filename else ""
        leave(f"{where}{error.strerror}; make room or name a folder that can be written")
    except Exception as error:
        if told := failed(error):
            leave(told)
        raise
    except KeyboardInterrupt:
        print("interrupted; start the same command again to go on", file=sys.stderr, flush=True)
        # As in `leave`: writers' threads would complain that they cannot end in order.
        sys.stdout.flush()
        os._exit(130)


def _pass_over_libtpu() -> None:
    """libtpu can be here to compile alone (launch.preflight). Where there is no TPU, JAX would
    start it all the same, which takes a second and complains about its surroundings."""
    # With libtpu and a TPU, jax has chosen "tpu,cpu" when it was imported. Another plugin (a GPU's)
    # stays for JAX to choose.
    nothing_chosen = jax.config.jax_platforms is None
    if nothing_chosen and importlib.util.find_spec("jax_plugins") is None:
        jax.config.update("jax_platforms", "cpu")


def run_config() -> RunConfig:
    """The config that --config and its overrides describe."""
    return read_config(RunConfig)


def read_config[Config](kind: type[Config]) -> Config:
    """As `run_config`, of another kind of program."""
    if flags.FLAGS.config is None:
        raise UserError("--config is missing: name one of configs/; see --help")
    return built(kind, flags.FLAGS.config.to_dict())


@contextlib.contextmanager
def one_voice(mine: bool) -> Iterator[None]:
    """Of the processes of a run one prints; what another prints goes nowhere."""
    if mine:
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def distributed() -> None:
    """Join the run that the flags name. Before anything touches a backend."""
    values = flags.FLAGS
    initialize(
        values.cluster, values.coordinator, values.processes, values.process,
        values.startup_timeout,
    )  # fmt: skip


def required(name: str) -> str:
    value = flags.FLAGS[name].value
    if not value:
        raise UserError(f"--{name} is missing; see --help")
    return value


def leave(message: str) -> NoReturn:
    """Print the message as one line on stderr and end with status 2."""
    print("error: " + " ".join(message.split()), file=sys.stderr, flush=True)
    fail()
    # Threads of a loader or a checkpoint writer may still run; nothing is owed to them.
    sys.stdout.flush()
    os._exit(2)


def _flag_error(error: Exception, fields: Callable[[], Mapping[str, Any]]) -> str:
    """One line for what absl or ml_collections made of a wrong command line."""
    for argument in sys.argv[1:]:
        name, _, value = argument.lstrip("-").partition("=")
        if name == "config" and value and not os.path.exists(file := value.partition(":")[0]):
            return f"--config={value}: there is no file {file}; the configs are in configs/"
        if name.startswith("config.") and isinstance(error, AttributeError | KeyError):
            known = list(flat(fields()))
            if (field := name.removeprefix("config.")) not in known:
                return f"--{name}: there is no such field; {nearest(field, known)}"
    if "Unknown command line flag 'config." in str(error):
        return "--config is missing: name one, as --config=configs/bert.py:base"
    if "Non-boolean argument" in str(error):  # and then a tuple, as Python prints it
        return str(error).removeprefix("flag ").partition(": (")[0] + ": must be true or false"
    kinds = ValueError | TypeError | flags.Error | AttributeError | KeyError
    if isinstance(error, kinds | OSError | SyntaxError | ImportError | NameError):
        # A config file's own error comes as its traceback: the last line says what it is.
        return str(error).strip().splitlines()[-1]
    raise error
