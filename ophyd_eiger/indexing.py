"""What an index asks of a stack that is not in memory: which images, and which part of each.

numpy itself says what is allowed and what comes out: the index is tried on an array that takes no
memory, and what is left of it is applied to the images that were read. Pure.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Selection:
    """What has to be read, and what to do with it.

    Attributes
    ----------
    images : range or sequence of int
        The numbers of the images, counted from 0.
    rows, columns : range
        The rectangle of each, step 1.
    key : tuple
        The index into what was read, an array of shape (images, rows, columns), or of
        (images, *kept) where not all pixels of the rectangle are wanted.
    pixels : tuple or None
        The index that is applied to the rectangle of each image before it is kept; None where all
        of it is wanted.
    kept : tuple of int
        The shape of what `pixels` leaves of a rectangle.
    nothing : tuple of int or None
        The shape of what comes out if it has no pixel; None if it has some.
    """

    images: Sequence[int]
    rows: range
    columns: range
    key: tuple
    pixels: tuple | None = None
    kept: tuple[int, ...] = ()
    nothing: tuple[int, ...] | None = None


def select(index: Any, shape: tuple[int, int, int]) -> Selection:
    """Return what an index asks of an array of this shape.

    Raises
    ------
    IndexError, TypeError, ValueError
        Whatever numpy raises for it.
    """
    stack = np.broadcast_to(np.empty((), bool), shape)
    # What comes out of arrays of indices is no view, and of any size: of slices, one is enough.
    if not stack[_with_short_slices(index, shape)].size:
        # Nothing to read; numpy does not look then whether other entries are within bounds.
        return Selection((), range(0), range(0), (), nothing=stack[index].shape)
    entries = _expanded(index, len(shape))
    places = _axes(entries)
    images, entries[places[0]] = _images(entries[places[0]], shape[0])
    _, row, column = places
    if column == row + 1 and _are_points(entries[row], entries[column]):
        return _of_points(images, entries, row, shape)
    rows, of_rows, entries[row] = _along(entries[row], shape[1])
    columns, of_columns, entries[column] = _along(entries[column], shape[2])
    kept = len(of_rows), len(of_columns)
    if kept == (len(rows), len(columns)):
        return Selection(images, rows, columns, tuple(entries))
    if isinstance(of_rows, range) and isinstance(of_columns, range):
        pixels: tuple = slice(None, None, of_rows.step), slice(None, None, of_columns.step)
    else:
        pixels = np.ix_(of_rows, of_columns)
    return Selection(images, rows, columns, tuple(entries), pixels, kept)


def first_image(index: Any) -> int | None:
    """Return the number of the image that an index names alone; None if it names none or more."""
    first = index[0] if isinstance(index, tuple) and index else index
    if isinstance(first, (int, np.integer)) and not isinstance(first, (bool, np.bool_)):
        return int(first)
    return None


def _with_short_slices(index: Any, shape: tuple[int, ...]) -> tuple:
    """Return an index whose slices, and `...`, take one element of their axis at most.

    numpy says the same of it: of what it refuses, and of whether anything is left.
    """
    short: list = []
    axes = iter(shape)
    for entry in _spelled_out(index, len(shape)):
        # Of more than there are axes numpy refuses all.
        sizes = [next(axes, 0) for _ in range(_axes_of(entry))]
        if isinstance(entry, slice):
            short.append(slice(0, min(1, len(range(*entry.indices(*sizes))))))
        else:
            short.append(entry)
    return tuple(short)


def _spelled_out(index: Any, axes: int) -> list:
    """Return the entries of an index, with a slice for each axis that none is for or `...` is.

    `...` is kept behind them, for no axis: between arrays it parts them all the same.
    """
    given = list(index) if isinstance(index, tuple) else [index]
    between = [slice(None)] * (axes - sum(map(_axes_of, given)))
    dots = [place for place, entry in enumerate(given) if entry is Ellipsis]
    place = dots[0] if dots else len(given)
    return [*given[:place], *between, *given[place:]]


def _axes_of(entry: Any) -> int:
    """Return how many axes an entry of an index takes; 0 of `...`."""
    if entry is None or entry is Ellipsis:
        return 0
    if isinstance(entry, slice):
        return 1
    array = np.asarray(entry)
    return array.ndim if array.dtype == bool else 1


def _expanded(index: Any, axes: int) -> list:
    """Return the entries of an index, one for each axis it takes, and others between them."""
    entries: list = []
    for entry in _spelled_out(index, axes):
        if entry is None or entry is Ellipsis or isinstance(entry, slice):
            entries.append(entry)
        else:
            entries += _as_entries(entry)
    return entries


def _as_entries(entry: Any) -> list:
    """Return a number as an int, and arrays as those of whole numbers that mean the same."""
    if not isinstance(entry, (bool, np.bool_, np.ndarray)) and hasattr(entry, "__index__"):
        return [operator.index(entry)]
    array = np.asarray(entry)
    if array.dtype == bool:
        # A single truth value takes no axis; it is told from arrays by its rank.
        return [array] if array.ndim == 0 else list(array.nonzero())
    if array.ndim == 0:
        return [int(array)]
    return [array.astype(np.intp)]


def _axes(entries: Sequence) -> list[int]:
    """Return which entries take an axis: not new ones, `...` or single truth values."""
    return [
        place
        for place, entry in enumerate(entries)
        if entry is not None
        and entry is not Ellipsis
        and not (isinstance(entry, np.ndarray) and entry.ndim == 0 and entry.dtype == bool)
    ]


def _images(entry: Any, size: int) -> tuple[Sequence[int], Any]:
    if isinstance(entry, slice):
        return range(*entry.indices(size)), slice(None)
    if isinstance(entry, int):
        return [entry + size if entry < 0 else entry], 0
    # Each image once, however often it is asked for.
    wanted, places = np.unique(np.where(entry < 0, entry + size, entry), return_inverse=True)
    return wanted.tolist(), places.reshape(entry.shape)


def _are_points(row: Any, column: Any) -> bool:
    """Return whether two entries name pixels one by one, and not whole rows or columns."""
    kinds = {type(row), type(column)}
    return np.ndarray in kinds and slice not in kinds


def _of_points(
    images: Sequence[int], entries: list, row: int, shape: tuple[int, int, int]
) -> Selection:
    """Return what is read where pixels are named one by one, each of which is kept once."""
    y, x = (
        np.where(np.asarray(entry) < 0, np.asarray(entry) + size, entry)
        for entry, size in zip(entries[row : row + 2], shape[1:], strict=True)
    )
    wanted, places = np.unique(y * shape[2] + x, return_inverse=True)
    y, x = np.divmod(wanted, shape[2])
    rows, columns = range(y.min(), y.max() + 1), range(x.min(), x.max() + 1)
    named = np.broadcast_shapes(*(np.shape(entry) for entry in entries[row : row + 2]))
    entries[row : row + 2] = [places.reshape(named)]
    pixels = y - rows.start, x - columns.start
    return Selection(images, rows, columns, tuple(entries), pixels, wanted.shape)


def _along(entry: Any, size: int) -> tuple[range, Any, Any]:
    """Return an axis' pixels from the first to the last that is asked for, and which of these.

    These are counted from the first, each once and rising: as a range, or as an array where they
    are not evenly spaced. The third is the index into them.
    """
    if isinstance(entry, int):
        entry = entry + size if entry < 0 else entry
        return range(entry, entry + 1), range(1), 0
    if isinstance(entry, slice):
        wanted = range(*entry.indices(size))
        low, high = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1])
        back = slice(None, None, -1 if wanted.step < 0 else None)
        return range(low, high + 1), range(0, high - low + 1, abs(wanted.step)), back
    wanted, places = np.unique(np.where(entry < 0, entry + size, entry), return_inverse=True)
    low, high = int(wanted[0]), int(wanted[-1])
    return range(low, high + 1), wanted - low, places.reshape(entry.shape)
