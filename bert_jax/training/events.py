"""TensorBoard's events: a view of the record."""

import shutil
import tempfile
from pathlib import Path

from bert_jax.files import write_whole
from bert_jax.store import Folder

FOLDER = "tensorboard"


class Events:
    """Written anew at every start, as the files cannot be cut. For a workdir in a store they are
    written on this machine, and copied there at every `sync`."""

    def __init__(self, workdir: Folder):
        import tensorboardX  # a second, with all of a cloud's libraries, and one process writes

        self._there = workdir / FOLDER
        if isinstance(self._there, Path):
            self._here = self._there
            shutil.rmtree(self._here, ignore_errors=True)
        else:
            self._scratch = tempfile.TemporaryDirectory(prefix="tensorboard-")
            self._here = Path(self._scratch.name)
            self._there.rmtree(missing_ok=True)
        self._writer = tensorboardX.SummaryWriter(str(self._here))

    def add(self, record: dict[str, float | int | None]) -> None:
        """Its numbers at its `step`; a None is left out."""
        for name, value in record.items():
            if name != "step" and value is not None:
                self._writer.add_scalar(name, value, record["step"])

    def sync(self) -> None:
        if self._there is not self._here:
            self._writer.flush()
            for path in self._here.iterdir():
                write_whole(self._there / path.name, path.read_bytes())

    def close(self) -> None:
        self._writer.close()
        self.sync()
