"""What makes a folder of array_record files a dataset to TFDS: examples of one feature, and two
descriptions beside them. Written by hand, so that nothing of TFDS is needed."""

import json

import numpy as np
from etils import epath

_FEATURE = "input_ids"


def write_descriptions(
    folder: epath.Path, dataset: str, dtype: np.dtype, splits: dict[str, tuple[list[int], int]]
) -> None:
    """Of each split the lengths of its shards in examples, and the bytes of all of them."""
    entries = [
        {
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            "name": split,
            "numBytes": str(size),
            "shardLengths": [str(length) for length in lengths],
        }
        for split, (lengths, size) in splits.items()
    ]
    info = {"fileFormat": "array_record", "name": dataset, "splits": entries, "version": "1.0.0"}
    module = "tensorflow_datasets.core.features"
    tensor = {
        "pythonClassName": f"{module}.tensor_feature.Tensor",
        "tensor": {
            "shape": {"dimensions": ["-1"]},
            "dtype": np.dtype(dtype).name,
            "encoding": "bytes",
        },
    }
    features = {
        "pythonClassName": f"{module}.features_dict.FeaturesDict",
        "featuresDict": {"features": {_FEATURE: tensor}},
    }
    for name, content in (("dataset_info", info), ("features", features)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def as_example(payload: bytes) -> bytes:
    """A tf.train.Example whose one feature is these bytes, as protocol buffers write it."""
    feature = _field(1, _field(1, payload))  # Feature.bytes_list, BytesList.value
    entry = _field(1, _FEATURE.encode()) + _field(2, feature)
    return _field(1, _field(1, entry))  # Example.features, Features.feature


def _field(number: int, content: bytes) -> bytes:
    size, length = bytearray(), len(content)
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + content


def payload_begin(example: bytes) -> int:
    """Where the bytes of `as_example` begin: after its feature's name, three tags and sizes."""
    place = example.index(_FEATURE.encode()) + len(_FEATURE)
    for _ in range(3):
        place += 1
        while example[place] > 127:
            place += 1
        place += 1
    return place
