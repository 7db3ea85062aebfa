"""What a workdir holds beside checkpoints and metrics, and whose it is."""

import json

from bert_jax import config as configs, provenance
from bert_jax.config import RunConfig, to_mapping
from bert_jax.data.tokenizers import Tokenizer
from bert_jax.files import Lock, lock, write_whole
from bert_jax.store import Folder
from bert_jax.training.hosts import barrier, check_same, check_shared, is_first


def open_workdir(
    workdir: Folder, config: RunConfig, manifest: dict, tokenizer: Tokenizer, init: dict[str, str],
    begun: bool,
) -> Lock | None:  # fmt: skip
    """Check that the run that was begun there is this one, or write what a new one is. All
    processes call it; the first has the workdir to itself until the lock that it is given is
    closed. `init`: what init.json is to say.

    Raises UserError where corpus, `init` or config are not those that the run began with, or not
    the same in all processes, where another run is in the workdir, and where not all processes
    see it.
    """
    check_same("the config", to_mapping(config))
    check_same("the corpus", manifest)
    check_same("--init", init)
    if begun:
        provenance.check_same_data(workdir, manifest)
        provenance.check_same_init(workdir, init)
    locked = None
    if is_first():
        workdir.mkdir(parents=True, exist_ok=True)
        locked = lock(workdir)
        tokenizer.save(workdir / "tokenizer")
        configs.save(config, workdir)  # of a run that goes on: what may differ is as it is now
        if not begun:
            write_whole(workdir / provenance.DATA, json.dumps(manifest, indent=2) + "\n")
            write_whole(workdir / provenance.INIT, json.dumps(init) + "\n")
    barrier("the workdir is written")
    check_shared((workdir / configs.FILE).exists(), workdir)
    return locked
