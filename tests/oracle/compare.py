"""The live comparison with transformers, both ways: `make oracle`.

python -m tests.oracle.compare --oracle=.venv-oracle/bin/python
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import jax
import numpy as np

from bert_jax.models.config import EncoderConfig
from bert_jax.training.step import init_parameters
from tests import tiny
from tests.oracle import mapping
from tests.oracle.test_bert import FIXTURE, compare, part

REFERENCE = Path(__file__).parent / "reference.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--oracle", required=True, help="the Python that has torch")
    parser.add_argument("--update", action="store_true", help="write the committed fixture anew")
    arguments = parser.parse_args()
    folder = tempfile.TemporaryDirectory()
    scratch = Path(folder.name)

    def oracle(*words: object) -> None:
        subprocess.run([arguments.oracle, REFERENCE, *map(str, words)], check=True)

    def load(path: Path) -> dict[str, np.ndarray]:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)

    mesh = jax.make_mesh((1, 1, 1), ("data", "fsdp", "tensor"), devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        oracle("make", live := scratch / "live.npz")
        fresh = load(live)
        compare(fresh)
        print(f"their weights, computed just now: equal ({fresh['versions']})")
        if arguments.update:
            FIXTURE.write_bytes(live.read_bytes())
        for name, value in part(load(FIXTURE), "output").items():
            np.testing.assert_allclose(part(fresh, "output")[name], value, rtol=0, atol=1e-5)
        print("the committed fixture: what they compute today")
        for model in (
            EncoderConfig(
                vocab_size=130, hidden_size=40, num_layers=2, num_heads=5, intermediate_size=72,
                max_positions=33, initializer_stddev=0.2,
            ),
            EncoderConfig(
                vocab_size=97, hidden_size=12, num_layers=5, num_heads=1, intermediate_size=7,
                max_positions=31, initializer_stddev=0.4,
            ),
        ):  # fmt: skip
            ours = mapping.flat(init_parameters(tiny.bert(model), model, seed=1))
            weights = mapping.to_theirs(ours, model)
            sizes = {
                "vocab_size": model.vocab_size,
                "hidden_size": model.hidden_size,
                "num_hidden_layers": model.num_layers,
                "num_attention_heads": model.num_heads,
                "intermediate_size": model.intermediate_size,
                "max_position_embeddings": model.max_positions,
                "type_vocab_size": model.type_vocab_size,
            }
            inputs = {name: v for name, v in fresh.items() if name.startswith("input/")}
            given = {f"weight/{name}": value for name, value in weights.items()} | inputs
            given["config"] = np.array(json.dumps(sizes))
            np.savez(scratch / "ours.npz", **given)
            oracle("run", scratch / "ours.npz", scratch / "theirs.npz")
            compare(given | load(scratch / "theirs.npz"))
            print(f"our weights, {sizes}: equal")


if __name__ == "__main__":
    main()
