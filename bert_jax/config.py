"""A run's config: from a ConfigDict, once, into frozen dataclasses; to config.json and back."""

import dataclasses
import difflib
import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from bert_jax.data.config import CorpusConfig, DataConfig
from bert_jax.data.phases import Phase, phases
from bert_jax.errors import UserError
from bert_jax.files import write_whole
from bert_jax.models.config import EncoderConfig
from bert_jax.objectives.rtd import GeneratorConfig
from bert_jax.store import Folder
from bert_jax.training.mesh import MeshConfig
from bert_jax.training.optim import OptimizerConfig

FILE = "config.json"
_LARGEST = 1 << 40  # of any whole number; steps times rows still fit into 64 bits
# What may differ when a workdir is taken up again: it decides no number, or its rounding alone.
FREE = (
    "model.attention", "data.workers", "train.accumulation", "train.keep",
    "train.keep_best", "train.keep_every", "train.max_skipped", "corpus.prepared",
)  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """How long, and how often what is done beside training."""

    steps: int = 1_000_000
    log_every: int = 100
    eval_every: int = 10_000
    eval_examples: int = 0  # held-out examples of an evaluation, at most; 0: all
    save_every: int = 10_000
    keep: int = 3  # checkpoints, the newest
    keep_best: int = 0  # and of those saved where it was evaluated, with the lowest eval_loss
    keep_every: int = 0  # and every one whose step is a multiple; 0: none
    accumulation: int = 1  # parts that a batch goes through in, to the same update
    # Steps in a row without a finite loss and gradient, seen when one is logged; more end the run.
    max_skipped: int = 10
    deterministic: bool = False  # the same bits each time on a GPU too, at some cost
    natural_bias: bool = False  # output bias from token frequencies (Meister et al. 2023)

    def __post_init__(self):
        for name in ("steps", "log_every", "eval_every", "save_every", "keep", "accumulation"):
            if getattr(self, name) < 1:
                raise UserError(f"train.{name}={getattr(self, name)}: must be 1 or more")
        for name in ("eval_examples", "keep_best", "keep_every", "max_skipped"):
            if getattr(self, name) < 0:
                raise UserError(f"train.{name}={getattr(self, name)}: must be 0 or more")


@dataclass(frozen=True)
class RunConfig:
    """All that `pretrain` is told. Each part is documented where it is used."""

    seed: int = 0  # of everything random; the run is a function of it
    model: EncoderConfig = field(default_factory=EncoderConfig)
    objective: Mapping[str, float] = field(default_factory=dict)  # coefficient of each term
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def __post_init__(self):
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed}: must be from 0 to 4294967295")
        for name in ("nsp", "sop"):
            pairs = "pair" in self.data.format and self.data.pairs
            if self.objective.get(name) and pairs != name:
                raise UserError(
                    f"objective.{name} needs pairs of its kind: set data.pairs={name} and "
                    f"data.format=segment-pair or sentence-pair; they are {self.data.pairs} and "
                    f"{self.data.format}"
                )
        masked = [name for name, c in self.objective.items() if c and name not in ("nsp", "sop")]
        if masked and not self.data.mask_rate:
            raise UserError(
                f"objective.{masked[0]} learns from masked tokens, and with data.mask_rate=0 there "
                f"are none: raise it (0.15 is BERT's), or set objective.{masked[0]}=0"
            )
        longest = max(phase.data.sequence_length for phase in self.phases)
        for name, length in (
            ("data.sequence_length", self.data.sequence_length),
            ("data.phases: a length", longest),
        ):
            if length > self.model.max_positions:
                raise UserError(
                    f"{name}={length} is longer than the model.max_positions="
                    f"{self.model.max_positions}; shorten one or raise the other"
                )

    @property
    def phases(self) -> tuple[Phase, ...]:
        return phases(self.data, self.train.steps)

    @property
    def lengths(self) -> list[int]:
        """Of all rows, in tokens: those that are trained on and those held out."""
        trained = {phase.data.sequence_length for phase in self.phases}
        return sorted(trained | {self.data.sequence_length})


def from_mapping(values: Mapping[str, Any]) -> RunConfig:
    """Raises UserError, in one line, for a field that does not exist or has the wrong type."""
    return built(RunConfig, values)


def built[Config](kind: type[Config], values: Mapping[str, Any]) -> Config:
    """A dataclass of dataclasses from nested mappings. Raises UserError as `from_mapping`."""
    return _build(kind, values, "")


def to_mapping(config: RunConfig) -> dict[str, Any]:
    return dataclasses.asdict(config)


def save(config: RunConfig, workdir: Folder) -> None:
    write_whole(workdir / FILE, json.dumps(to_mapping(config), indent=2) + "\n")


def load(workdir: Folder) -> RunConfig:
    """The config of a workdir. Raises UserError where it is none."""
    path = workdir / FILE
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict) or "objective" not in values:
            raise UserError(
                "is neither a run's nor, without model_type, a Hugging Face model's; name another "
                "folder"
            )
        return from_mapping(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"{workdir}: not a workdir (no readable {FILE}); name one that bert_jax.pretrain wrote"
        ) from error


def check_goes_on(config: RunConfig, workdir: Folder, saved: int) -> None:
    """Raises UserError where the workdir is of another config, naming what differs.

    A finished run, whose last step is `saved`, may be lengthened: train.steps is larger, and the
    phases so far are the same. The learning rate from there on is that of the longer schedule.
    """
    began = load(workdir)
    longer = config.train.steps > began.train.steps == saved
    for name, old, new in differences(to_mapping(began), to_mapping(config)):
        free = name.startswith("mesh.") or name in FREE
        if free or (longer and name == "data.phases"):
            continue
        if name == "train.steps" and longer:
            _check_same_so_far(config, began)
            continue
        unfinished = f" (a run can be lengthened once it is finished; this is at {saved})"
        raise UserError(
            f"{workdir} was begun with {name}={old}, and now it is {new}: give the old value to go "
            f"on, or another --workdir to start anew"
            + (unfinished if name == "train.steps" else "")
        )


def _check_same_so_far(longer: RunConfig, began: RunConfig) -> None:
    steps = began.train.steps
    so_far = tuple(
        phase._replace(steps=min(phase.steps, steps - phase.begin))
        for phase in longer.phases
        if phase.begin < steps
    )
    if so_far != began.phases:
        raise UserError(
            f"data.phases={longer.data.phases!r}: over train.steps={longer.train.steps} the first "
            f"{steps} steps are not the phases that the run had; give numbers of steps, and more "
            f"of the last phase or a further one"
        )


def differences(began: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The fields that are not the same in both, by name, with both values; None where one has it
    not."""
    theirs, mine = flat(began), flat(now)
    for name in sorted(theirs.keys() | mine.keys()):
        if theirs.get(name) != mine.get(name):
            yield name, theirs.get(name), mine.get(name)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'model.num_layers': 12, ...}."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = value
    return out


def nearest(name: str, names: list[str]) -> str:
    """'did you mean ...?' for one of the names that is near, else those of the same part."""
    part, _, field = name.rpartition(".")
    same = {other.rpartition(".")[2]: other for other in names if other.rpartition(".")[0] == part}
    tops = sorted({other.partition(".")[0] for other in names})
    if not part:
        same = {top: top for top in tops}
    if close := difflib.get_close_matches(field, same, n=1):
        return f"did you mean {same[close[0]]}?"
    if moved := [other for other in names if other.endswith(f".{field}")]:
        return f"did you mean {moved[0]}?"
    if close := [] if same else difflib.get_close_matches(name, names, n=1):
        return f"did you mean {close[0]}?"
    return f"there are {', '.join(same or tops)}"


def _build(kind: type, values: Mapping[str, Any], prefix: str) -> Any:
    types_of = get_type_hints(kind)
    for name in values:
        if name not in types_of:
            known = [prefix + other for other in types_of]
            raise UserError(
                f"{prefix}{name}: there is no such field; {nearest(prefix + name, known)}"
            )
    return kind(
        **{name: _value(types_of[name], value, prefix + name) for name, value in values.items()}
    )


def _value(kind: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return _build(kind, value, name + ".")  # type: ignore[arg-type]
    if isinstance(kind, types.GenericAlias) or getattr(kind, "__origin__", None):
        return {key: _value(float, item, f"{name}.{key}") for key, item in value.items()}
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is int and abs(value) > _LARGEST:
        raise UserError(f"{name}={value}: must be from -{_LARGEST} to {_LARGEST}")
    if type(value) is not kind:
        raise UserError(f"{name}={value!r}: must be of type {getattr(kind, '__name__', kind)}")
    return value
