"""Reads an HDF5 configuration that a client sent: a program that `formats` runs as a process.

The file on its standard input, the values by path in numpy's npz form on its standard output; exit
status 1 where the file has no configuration. Imports nothing of the package, so that it starts
quickly.
"""

import io
import math
import resource
import sys
from typing import Any

import h5py
import numpy as np

# Far above any configuration.
MOST_ENTRIES = 1000
# In bytes: the double-precision flat field of a 16M is 145 MB.
LARGEST_ARRAY = 160 * 2**20
# A chunk that was never written takes no room in the file and time to read.
MOST_CHUNKS = 100_000
# What the process may take in bytes and in s, so that it ends even where nobody waits for it.
LARGEST_MEMORY = 4 * 2**30
LONGEST_WORK = 5
# The codecs of detectors crash on a damaged chunk.
SAFE_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}


def values_of(body: bytes) -> dict[str, Any]:
    """Return the value of each dataset by its path.

    Raises
    ------
    ValueError
        Where a dataset is none that a configuration has. HDF5's own errors come beside it.
    """
    values: dict[str, Any] = {}

    def take(name: str, node: h5py.Group | h5py.Dataset) -> None:
        if isinstance(node, h5py.Dataset):
            values[name] = _value(node)
        if len(values) > MOST_ENTRIES:
            raise ValueError(f"more than {MOST_ENTRIES} values")

    with h5py.File(io.BytesIO(body), "r") as file:
        file.visititems(take)
    return values


def _value(dataset: h5py.Dataset) -> Any:
    # A damaged or hostile header may announce any size.
    if dataset.size is None or dataset.nbytes > LARGEST_ARRAY:
        raise ValueError(f"{dataset.name} has no size that a value has")
    if dataset.chunks and _number_of_chunks(dataset.shape, dataset.chunks) > MOST_CHUNKS:
        raise ValueError(f"{dataset.name} has more than {MOST_CHUNKS} chunks")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{dataset.name} lies in another file")
    properties = dataset.id.get_create_plist()
    filters = {properties.get_filter(index)[0] for index in range(properties.get_nfilters())}
    if not filters <= SAFE_FILTERS:
        raise ValueError(f"{dataset.name} is compressed in a way that is not read")
    if h5py.check_string_dtype(dataset.dtype) is not None:
        return np.array(dataset.asstr()[()], dtype=np.str_)
    if dataset.dtype.kind not in "biuf":
        raise ValueError(f"{dataset.name} is {dataset.dtype}")
    return dataset[()]


def _number_of_chunks(shape: tuple[int, ...], chunks: tuple[int, ...]) -> int:
    return math.prod(-(-length // chunk) for length, chunk in zip(shape, chunks, strict=True))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (LARGEST_MEMORY, LARGEST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (LONGEST_WORK, LONGEST_WORK))
    np.savez(sys.stdout.buffer, **values_of(sys.stdin.buffer.read()))
