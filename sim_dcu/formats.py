"""The forms that a config travels in beside plain JSON: TIFF and HDF5, one value or all of them.

Which form a request asks for, and the bytes of each; knows no resource by name and no routes.
"""

import io
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sim_dcu import config_file, tiff
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
_WEIGHT = re.compile(r"q=([01](?:\.\d{0,3})?)", re.ASCII)
# In s: a mask of a 16M takes one.
LONGEST_READING = 4.0
# Files that are read at once; each may take a 16M's flat field of memory.
_READERS = threading.BoundedSemaphore(4)


def accepted_form(accept: str) -> str:
    """Return the form that an Accept header likes best, JSON where it names none we know.

    Of two that it likes as much the first one; what it gives a weight of 0 is no choice
    (RFC 9110, 12.4.2). A form that is named goes before any that is left open.
    """
    best, form = 0.0, JSON
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = _weight(parameters)
        if weight > best and name in _NAMES:
            best, form = weight, _NAMES[name]
    return form


def _weight(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        if match := _WEIGHT.fullmatch(parameter):
            return float(match[1])
    return 1.0


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
        return np.array([_text(entry) for entry in value], dtype=h5py.string_dtype())
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    # Any text may be appended to a stream; HDF5's ends at a null and is UTF-8.
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def array_of(form: str, body: bytes) -> np.ndarray:
    """Return the array that the body of a put holds, of whatever type.

    Raises
    ------
    RefusedError
        Where the body is not of its form, or has not one array.
    """
    if form == TIFF:
        return tiff.decode(body)
    arrays = [value for value in read_config(body).values() if isinstance(value, np.ndarray)]
    if len(arrays) != 1:
        raise RefusedError(f"HDF5 file has {len(arrays)} arrays instead of one")
    return arrays[0]


def read_config(body: bytes) -> dict[str, Any]:
    """Return the values of an HDF5 file by the path of their datasets.

    The file is read in a process of its own: a damaged one can keep the HDF5 library busy for ever,
    or crash it, and here it would do so with the lock that the file writer needs.

    Raises
    ------
    RefusedError
        Where the body is no HDF5 file, or has other data than numbers and text.
    """
    refusal = RefusedError("body is not an HDF5 file with a configuration")
    if not _READERS.acquire(timeout=LONGEST_READING / 2):
        raise RefusedError("too many HDF5 files at once")
    try:
        done = subprocess.run(
            # -P: the modules beside the program are not the child's.
            [sys.executable, "-P", str(Path(config_file.__file__))],
            input=body,
            capture_output=True,
            check=True,
            timeout=LONGEST_READING,
        )
    except subprocess.SubprocessError as error:
        raise refusal from error
    finally:
        _READERS.release()
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return {name: array if array.ndim == 2 else array.tolist() for name, array in arrays.items()}
