"""The run that a reprocessing becomes: documents that name their parent, and where they go.

Knows event-model's documents and no detector. Loads no catalog: one is handed in.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import event_model
import h5py
import numpy as np

from ophyd_eiger.errors import EigerError, FileError
from ophyd_eiger.master import HDF5_ERRORS
from ophyd_eiger.writing import new_file

if TYPE_CHECKING:
    from ophyd_eiger.reprocess import Reduced

PLAN_NAME = "eiger_reprocess"
# The spec that any databroker has a handler for and that TiledWriter knows: images in
# /entry/data/data of an HDF5 file.
_SPEC = "AD_HDF5"
_PICTURES_ENDING = "_pictures.h5"


def documents_of(
    reduced: "Reduced", directory: Path | str | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """Return the documents of a new run, each valid by event-model's schemas.

    The start document has `parent_uid`, `reprocessing` (what was done) and `versions`. The stream
    "primary" has an event for each image, with its numbers, its `image_number` from 1 in the
    parent's event `parent_seq_num`, and that event's motors; the stream "pictures" one event with
    the pictures of all images, which are in files.

    Parameters
    ----------
    reduced : Reduced
        What became of the parent.
    directory : path, optional
        Where the pictures' files are written; without it they are left out.

    Raises
    ------
    FileError
        If they cannot be written.
    """
    start = reduced.run.metadata["start"]
    kept = {key: start[key] for key in ("scan_id", "sample", "beamline_id") if key in start}
    run = event_model.compose_run(
        metadata={
            "plan_name": PLAN_NAME,
            "parent_uid": reduced.run.uid,
            "parent": kept,
            "reprocessing": {k: v for k, v in reduced.parameters.items() if k != "new_uid"},
            "versions": reduced.versions,
        }
    )
    made: list[tuple[str, Any]] = [("start", run.start_doc), *_numbers(run, reduced)]
    if directory is not None and reduced.pictures:
        made += _pictures(run, reduced, Path(directory))
    made.append(("stop", run.compose_stop()))
    for name, document in made:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(document)
    return made


def write_run(reduced: "Reduced", into: Any, directory: Path | str | None = None) -> str:
    """Save what became of a run as a new run; return its uid.

    Parameters
    ----------
    reduced : Reduced
        What became of the parent.
    into : catalog or callable
        A catalog of databroker or tiled, or anything that takes documents, ``into(name, doc)``.
    directory : path, optional
        Where the pictures go; a server of tiled must be allowed to read there.

    Raises
    ------
    FileError
        If the pictures cannot be written.
    EigerError
        If `into` is neither.
    """
    insert = inserter(into)
    made = documents_of(reduced, directory)
    for name, document in made:
        insert(name, document)
    return made[0][1]["uid"]


def inserter(into: Any) -> Callable[[str, dict[str, Any]], Any]:
    """Return what saves documents in a catalog.

    Raises
    ------
    EigerError
        If it is no catalog, and nothing that can be called.
    """
    if hasattr(into, "v1"):
        return into.v1.insert
    for name in ("insert", "post_document"):
        if callable(getattr(into, name, None)):
            return getattr(into, name)
    if hasattr(into, "context"):
        from bluesky_tiled_plugins import TiledWriter

        return TiledWriter(into)
    if callable(into):
        return into
    raise EigerError(f"{into!r} is no catalog: give one, or a function of (name, document)")


def _numbers(run: Any, reduced: "Reduced") -> Iterator[tuple[str, Any]]:
    """Yield the stream of numbers: an event for each image of each of the parent's events.

    One image an event, and not the parent's images, because numbers are then in every catalog's
    tables: databroker 2 gives short arrays back as text where it reads tiled's own catalogs.
    """
    detector = reduced.run.detector
    named = {f"{detector}_{name}": values for name, values in reduced.numbers.items()}
    keys: dict[str, Any] = {
        "parent_seq_num": _scalar("integer", "<i8"),
        "parent_time": {**_scalar("number", "<f8"), "units": "s"},
        "image_number": _scalar("integer", "<i8"),
    }
    for key, values in named.items():
        shape = list(values.shape[2:])
        dtype, dtype_numpy = ("integer", "<i8") if values.dtype.kind in "iu" else ("number", "<f8")
        keys[key] = _scalar("array" if shape else dtype, dtype_numpy) | {"shape": shape}
        if shape:
            keys[key]["dims"] = ["bin"]
    moved = _scalars_of_events(reduced)
    keys |= moved
    configuration = {}
    if reduced.axis is not None:
        axis = f"{detector}_profile_axis"
        key = _scalar("array", "<f8") | {"shape": [len(reduced.axis)]}
        configuration[detector] = {
            "data": {axis: reduced.axis.tolist()},
            "timestamps": {axis: time.time()},
            "data_keys": {axis: key | {"units": reduced.parameters["profile"]["unit"]}},
        }
    hinted = [key for key, values in named.items() if values.ndim == 2 and key.endswith("_sum")]
    stream = run.compose_descriptor(
        name="primary",
        data_keys=keys,
        configuration=configuration,
        object_keys={detector: list(keys)},
        hints={detector: {"fields": hinted}},
    )
    yield "descriptor", stream.descriptor_doc
    for number, event in enumerate(reduced.run.events):
        of_event = {"parent_seq_num": event.seq_num, "parent_time": event.time}
        of_event |= {key: event.data[key] for key in moved}
        for image in range(reduced.run.shape[1]):
            data: dict[str, Any] = {**of_event, "image_number": image + 1}
            data |= {key: values[number, image].tolist() for key, values in named.items()}
            times = dict.fromkeys(data, time.time())
            yield "event", stream.compose_event(data=data, timestamps=times)


def _scalar(dtype: str, dtype_numpy: str) -> dict[str, Any]:
    return {
        "source": "ophyd_eiger.reprocess",
        "dtype": dtype,
        "dtype_numpy": dtype_numpy,
        "shape": [],
    }


def _scalars_of_events(reduced: "Reduced") -> dict[str, Any]:
    """Return the keys of numbers that the parent's events have: motors, times."""
    events = reduced.run.events
    keys = {}
    for key in events[0].data:
        values = [event.data.get(key) for event in events]
        if all(type(value) is int for value in values):
            keys[key] = _scalar("integer", "<i8")
        elif all(isinstance(value, (int, float)) and type(value) is not bool for value in values):
            keys[key] = _scalar("number", "<f8")
    return keys


def _pictures(run: Any, reduced: "Reduced", directory: Path) -> Iterator[tuple[str, Any]]:
    """Yield the stream with the pictures of all images, writing their files."""
    detector = reduced.run.detector
    keys = {
        f"{detector}_{name}": {
            "source": "ophyd_eiger.reprocess",
            "dtype": "array",
            "dtype_numpy": picture.dtype.str,
            "shape": [1, *picture.shape],
            "dims": ["image", "y", "x"],
            "external": "FILESTORE:",
        }
        for name, picture in reduced.pictures.items()
    }
    stream = run.compose_descriptor(
        name="pictures", data_keys=keys, object_keys={detector: list(keys)}
    )
    yield "descriptor", stream.descriptor_doc
    uid = run.start_doc["uid"]
    data = {}
    for key, picture in zip(keys, reduced.pictures.values(), strict=True):
        path = directory.absolute() / f"{key}_{uid[:8]}{_PICTURES_ENDING}"
        _write_picture(path, picture, reduced.mask)
        resource = run.compose_resource(
            spec=_SPEC,
            root=str(path.parent),
            resource_path=path.name,
            resource_kwargs={"frame_per_point": 1},
        )
        yield "resource", resource.resource_doc
        datum = resource.compose_datum(datum_kwargs={"point_number": 0})
        yield "datum", datum
        data[key] = datum["datum_id"]
    yield (
        "event",
        stream.compose_event(
            data=data,
            timestamps=dict.fromkeys(data, time.time()),
            filled=dict.fromkeys(data, False),
        ),
    )


def _write_picture(path: Path, picture: np.ndarray, mask: np.ndarray) -> None:
    """Write one picture and what was left out of it as a new file.

    Raises
    ------
    FileError
    """
    try:
        # In memory: HDF5 crashes some time after it could not write a file to the end.
        with h5py.File(
            path, "w", libver=("v110", "v110"), driver="core", backing_store=False
        ) as file:
            # What every HDF5 library can read, with nothing to be installed.
            packed = {"chunks": (1, *picture.shape), "compression": "gzip", "shuffle": True}
            file.create_dataset("entry/data/data", data=picture[np.newaxis], **packed)
            file.create_dataset("entry/mask", data=mask.astype(np.uint8), compression="gzip")
            file["entry"].attrs.update(NX_class="NXentry", default="data")
            file["entry/data"].attrs.update(NX_class="NXdata", signal="data")
            file.flush()
            image = file.id.get_file_image()
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as written:
            written.write(image)
    except HDF5_ERRORS as error:
        raise FileError(f"{path}: not written ({error})") from error
