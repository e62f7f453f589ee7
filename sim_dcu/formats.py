"""The forms that a config travels in beside plain JSON: TIFF and HDF5, one value or all of them.

Which form a request asks for, and the bytes of each; knows no resource by name and no routes.
"""

import io
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from sim_dcu import tiff
from sim_dcu.parameters import RefusedError

JSON, TIFF, HDF5 = "json", "tiff", "hdf5"
MEDIA_TYPES = {TIFF: "application/tiff", HDF5: "application/hdf5"}
# The API reference writes the form alone, `accept=hdf5`, and clients send MIME types.
_NAMES = {
    "json": JSON,
    "application/json": JSON,
    "tiff": TIFF,
    "tif": TIFF,
    "application/tiff": TIFF,
    "image/tiff": TIFF,
    "hdf5": HDF5,
    "application/hdf5": HDF5,
    "application/x-hdf5": HDF5,
    "application/x-hdf": HDF5,
}
# Far above any configuration.
_MOST_ENTRIES = 1000
# deflate, shuffle, fletcher32. The codecs of detectors crash the process on a damaged chunk.
_SAFE_FILTERS = frozenset(
    {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
)


def accepted_form(accept: str) -> str:
    """Return the first form that an Accept header names, JSON where it names none we know."""
    for part in accept.split(","):
        name = part.partition(";")[0].strip().lower()
        if name in _NAMES:
            return _NAMES[name]
    return JSON


def body_form(content_type: str) -> str:
    """Return the form of a body, JSON where its type says nothing else."""
    return _NAMES.get(content_type.partition(";")[0].strip().lower(), JSON)


def array_bytes(form: str, name: str, reply: Mapping[str, Any]) -> bytes:
    """Return an array's GET reply as TIFF, or as HDF5 with the reply's other values as attributes.

    Parameters
    ----------
    form : str
        `TIFF` or `HDF5`.
    name : str
        The last part of its key, the dataset's name.
    reply : mapping
        The reply, its `value` a numpy.ndarray of float32 or uint32, shape (y, x).
    """
    if form == TIFF:
        return tiff.encode(reply["value"])
    return config_bytes({name: reply})


def config_bytes(replies: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return GET replies as an HDF5 file: a dataset each, what is not its value as attributes.

    The API reference says no more than that the metadata are attributes. A slash in a name makes
    a group.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, reply in replies.items():
            dataset = file.create_dataset(name, data=_stored(reply["value"]))
            for key, value in reply.items():
                if key != "value":
                    dataset.attrs[key] = _stored(value)
    return buffer.getvalue()


def _stored(value: Any) -> Any:
    if isinstance(value, list) and (not value or isinstance(value[0], str)):
        return np.array(value, dtype=h5py.string_dtype())
    return value


def array_of(form: str, body: bytes, dtype: np.dtype) -> np.ndarray:
    """Return the array that the body of a put holds, as `dtype` where nothing is lost by that.

    Raises
    ------
    RefusedError
        Where the body is not of its form, has not one array, or one of other values.
    """
    if form == TIFF:
        array = tiff.decode(body)
    else:
        arrays = [value for value in read_config(body).values() if isinstance(value, np.ndarray)]
        if len(arrays) != 1:
            raise RefusedError(f"HDF5 file has {len(arrays)} arrays instead of one")
        array = arrays[0]
    if array.dtype.kind not in "iuf":
        raise RefusedError(f"array of {array.dtype} instead of {dtype}")
    with np.errstate(invalid="ignore", over="ignore"):
        converted = array.astype(dtype)
        # Writers of TIFF know no unsigned pixels, or none with 32 bits, and users' masks are small.
        same = converted == array if dtype.kind != "f" else np.isfinite(converted)
    if not same.all():
        raise RefusedError(f"array holds values that {dtype} does not")
    return converted


def read_config(body: bytes) -> dict[str, Any]:
    """Return the values of an HDF5 file by the path of their datasets.

    Raises
    ------
    RefusedError
        Where the body is no HDF5 file, or has other data than numbers and text.
    """
    values: dict[str, Any] = {}

    def take(name: str, node: h5py.Group | h5py.Dataset) -> bool | None:
        if isinstance(node, h5py.Dataset):
            values[name] = _value(node)
        return len(values) > _MOST_ENTRIES or None

    try:
        with h5py.File(io.BytesIO(body), "r") as file:
            file.visititems(take)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, MemoryError) as error:
        raise RefusedError("body is not an HDF5 file with a configuration") from error
    return values


def _value(dataset: h5py.Dataset) -> Any:
    # A damaged or hostile header may announce any size; nothing larger than a 16M is a value.
    if dataset.size is None or dataset.nbytes > tiff.LARGEST_ARRAY:
        raise ValueError(f"{dataset.name} has no size that a value has")
    filters = dataset.id.get_create_plist()
    numbers = {filters.get_filter(index)[0] for index in range(filters.get_nfilters())}
    if not numbers <= _SAFE_FILTERS:
        raise ValueError(f"{dataset.name} is compressed in a way that is not read")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{dataset.name} lies in another file")
    if h5py.check_string_dtype(dataset.dtype) is not None:
        value = dataset.asstr()[()]
        return value if isinstance(value, str) else list(value)
    value = dataset[()]
    if isinstance(value, np.ndarray):
        return value if value.ndim == 2 else value.tolist()
    return value.item()
