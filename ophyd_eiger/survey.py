"""Which image of a series is where: found from as few of its files as tell it.

The data files of a series have the same number of images, all but the last. Where there are many
files, the first and the last one that are there are looked into; if their numbers of images fit,
those between are taken to be like the first, and looked into when they are read, or once one of
them turns out to be short, or when it is asked which images are there. A file that is
missing in the middle leaves the images behind it their places.

Files have the number of their first image, and of their last one. A file that contradicts the
others is of another series, which is refused, unless one of its two numbers and the counts of all
files say alike where it belongs: then the other number is wrong.
"""

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ophyd_eiger.errors import FileError, MissingFileError
from ophyd_eiger.image_file import Geometry, ImageFile, look_into
from ophyd_eiger.images import IMAGES
from ophyd_eiger.view import Part

# As many files are all looked into when a series is opened; it takes a millisecond each.
_FEW = 16
# More images than a DCU takes in a series; it counts them in 32 bits.
_MOST_IMAGES = 2**31


@dataclass(frozen=True)
class Survey:
    """Where the images of a series are.

    Attributes
    ----------
    geometry : Geometry
        Shape and type of each.
    images : int
        How many places there are: up to the last image that is there.
    promised : int or None
        How many there are to be; None if nothing says it.
    parts : tuple of Part
        Where they are, in their order; among them those of files that are missing.
    named : tuple of Path
        The files of the series, there or not.
    missing : tuple of Path
        Those that are not there.
    looked : mapping
        What has been looked into, by file and place.
    start : int or None
        The number that the first image has in its file, where files that were not looked into have
        been placed by it; a file's own number tells whether rightly.
    remark : str
        What is odd about its files and does not keep their images from being read.
    """

    geometry: Geometry
    images: int
    promised: int | None
    parts: tuple[Part, ...]
    named: tuple[Path, ...]
    missing: tuple[Path, ...]
    looked: Mapping[tuple[Path, str], ImageFile] = field(default_factory=dict, repr=False)
    start: int | None = None
    remark: str = ""
    _firsts: tuple[int, ...] = ()
    _lacking: frozenset[Path] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "_firsts", tuple(part.first for part in self.parts))
        object.__setattr__(self, "_lacking", frozenset(self.missing))

    def part_of(self, number: int) -> Part | None:
        """Return where an image is, its file there or not; None if nothing tells."""
        which = bisect.bisect_right(self._firsts, number) - 1
        part = self.parts[which] if which >= 0 else None
        return part if part is not None and number < part.stop else None

    def has(self, part: Part) -> bool:
        """Return whether the file was there."""
        return part.path not in self._lacking

    @property
    def guessed(self) -> bool:
        """Whether files were placed that were not looked into."""
        return self.start is not None

    @property
    def gap(self) -> int:
        """How many of its places have no image, as far as files were looked into."""
        return self.images - sum(map(len, self.there()))

    def there(self) -> list[range]:
        """Return the numbers of the images whose files are there."""
        found: list[range] = []
        for part in self.parts:
            # A file may be promised more images than it has got.
            stop = min(part.stop, self.images)
            if not self.has(part) or stop <= part.first:
                continue
            if found and found[-1].stop == part.first:
                found[-1] = range(found[-1].start, stop)
            else:
                found.append(range(part.first, stop))
        return found


def survey_parts(
    parts: Sequence[Part], geometry: Geometry, images: int, *, fixed: bool, path: Path
) -> Survey:
    """Return where images are that a view or a virtual dataset has mapped.

    Parameters
    ----------
    parts : sequence of Part
        The mapping, in order.
    geometry : Geometry
        Of the images, as mapped.
    images : int
        How many it has places for.
    fixed : bool
        Whether all places count, as in a view; otherwise those up to the last file that is there.
    path : Path
        The file that has the mapping.

    Raises
    ------
    MissingFileError
        If no file is there and places do not count.
    """
    _check_size(path, geometry, images)
    named = tuple(dict.fromkeys(part.path for part in parts))
    missing = tuple(file for file in named if not file.exists())
    lacking = frozenset(missing)
    if fixed:
        return Survey(geometry, images, images, tuple(parts), named, missing)
    kept = [part for part in parts if part.path not in lacking]
    if not kept:
        raise _nothing(path, missing)
    last = kept[-1]
    found = look_into(last.path, last.place)
    there = last.first + max(0, min(last.images, found.written - last.start))
    looked = {(last.path, last.place): found}
    return Survey(geometry, there, images, tuple(parts), named, missing, looked)


def survey_files(
    path: Path,
    files: Mapping[int, Path],
    promised: int | None,
    channel: int = 0,
    *,
    linked: bool = True,
    places: Mapping[int, str] | None = None,
    thorough: bool = False,
) -> Survey:
    """Return where the images of a series' data files are.

    Parameters
    ----------
    path : Path
        What the series was opened by, for messages.
    files : mapping
        The data files by their numbers, in rising order, there or not.
    promised : int, optional
        How many images the master promises.
    channel : int
        Which threshold of them.
    linked : bool
        Whether a master names them all, so that those before one are known to have images.
    places : mapping, optional
        Where the images are in the files, by their numbers; elsewhere they are at `IMAGES`.
    thorough : bool
        Whether each file is looked into, however many there are.

    Raises
    ------
    MissingFileError
        If none is there.
    FileError
        If one is not what it should be, or if the places of its images cannot be told.
    """
    base = min(files)
    there = {number - base: file for number, file in files.items() if file.exists()}
    missing = tuple(file for number, file in files.items() if number - base not in there)
    if not there:
        raise _nothing(path, missing)
    order = list(there)
    at = {number - base: (places or {}).get(number, IMAGES) for number in files}
    ends = dict.fromkeys((order[0], order[-1]))
    looked = {place: look_into(there[place], at[place]) for place in ends}
    many = len(order) > _FEW and not thorough
    per_file = guessed = _regular(looked) if many else None
    if guessed is None:
        looked = {place: looked.get(place) or look_into(there[place], at[place]) for place in order}
    geometry = _common(looked)
    remark = ""
    if guessed is None and not missing:
        # Its links may be in another order than its images.
        looked = _in_order_of_numbers(looked, promised)
        there = {place: found.path for place, found in looked.items()}
        at = {place: found.place for place, found in looked.items()}
    if guessed is not None:
        firsts = {place: place * guessed for place in order}
        counts = dict.fromkeys(order, guessed) | {order[-1]: looked[order[-1]].written}
    else:
        counts = {place: found.written for place, found in looked.items()}
        last = max(files) - base
        firsts, per_file = _firsts(path, looked, last, promised, missing, linked=linked)
        remark = _remark(path, looked, firsts)
    parts = [Part(there[k], firsts[k], counts[k], place=at[k], channel=channel) for k in order]
    images = parts[-1].stop
    _check_size(parts[-1].path, geometry, images)
    lost = {
        number - base: Part(file, 0, 0, place=at[number - base], channel=channel)
        for number, file in files.items()
        if number - base not in there
    }
    parts = _with_lost(parts, order, lost, per_file, promised)
    known = {(found.path, found.place): found for found in looked.values()}
    start = None if guessed is None else (looked[order[0]].low or 0) - firsts[order[0]]
    named = tuple(dict.fromkeys(files.values()))
    return Survey(geometry, images, promised, tuple(parts), named, missing, known, start, remark)


def _check_size(path: Path, geometry: Geometry, images: int) -> None:
    """Check that an array of all images is one of which numpy can tell the size.

    Raises
    ------
    FileError
    """
    if images * geometry.nbytes >= 2**63:
        raise FileError(f"{path}: {images} images up to its last one, more than can be")


def _nothing(path: Path, missing: Sequence[Path]) -> MissingFileError:
    names = ", ".join(file.name for file in missing[:3])
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return MissingFileError(
        f"{path}: no image found; {names}{more} missing. Of a series that was armed and ended "
        "without an image there is just the master"
    )


def _common(looked: Mapping[int, ImageFile]) -> Geometry:
    """Return what the images of all files have in common."""
    geometry: Geometry | None = None
    for found in looked.values():
        if found.geometry != (geometry or found.geometry):
            raise FileError(
                f"{found.path}: images of {found.geometry}, {geometry} in the files before"
            )
        geometry = found.geometry
    if geometry is None:
        raise ValueError("no file was looked into")
    return geometry


def _regular(looked: Mapping[int, ImageFile]) -> int | None:
    """Return how many images each file has, if the first and the last one tell it."""
    (a, first), (b, last) = looked.items()
    if first.low is None or last.low is None or last.images > first.images:
        return None
    return first.images if last.low - first.low == (b - a) * first.images else None


def _firsts(
    path: Path,
    looked: Mapping[int, ImageFile],
    last: int,
    promised: int | None,
    missing: Sequence[Path],
    *,
    linked: bool,
) -> tuple[dict[int, int], int | None]:
    """Return the place of each file's first image, and how many images a file has if known.

    By the counts of the files, if their numbers agree with these; by the numbers, if these follow
    one another; else by the counts, if the numbers tell nothing.
    """
    order = list(looked)
    by_counts, total = {}, 0
    for place, found in looked.items():
        by_counts[place], total = total, total + found.images
    complete = order == list(range(len(order)))
    full = [found.images for place, found in looked.items() if place != last]
    per_file = max(full) if full else _per_file(looked[order[-1]], last, promised)
    if complete and _agreed_start(looked, by_counts) is not None:
        return by_counts, per_file
    if len(looked) == 1 and per_file is not None and per_file * (last + 1) < (promised or 0):
        # So few that there must be more in the others: the last one of a series that ended early.
        per_file = _per_file_by_number(order[0], looked[order[0]])
    start = _start(looked, per_file, linked=linked)
    if start is not None:
        firsts = {place: (found.low or 0) - start for place, found in looked.items()}
        end, before = 0, None
        for place, found in looked.items():
            if firsts[place] < end:
                break
            end, before = firsts[place] + found.images, found
        else:
            _check_promise(path, looked, firsts, promised, start)
            return firsts, per_file
        # If they are all the same, each file counts from its own beginning.
        if before is not None and len({each.low for each in looked.values()}) > 1:
            raise FileError(
                f"{path}: {found.path.name} says to have images from {found.low} on, and "
                f"{before.path.name} {before.images} from {before.low} on: one of them is of "
                "another series"
            )
    if complete:
        return by_counts, per_file
    if (
        per_file is not None
        and {*full, per_file} == {per_file}
        and looked[order[-1]].images <= per_file
    ):
        return {place: place * per_file for place in order}, per_file
    raise FileError(
        f"{path}: {missing[0].name} is missing, and the numbers of images in the other files do "
        "not tell which images they have"
    )


def _in_order_of_numbers(
    looked: Mapping[int, ImageFile], promised: int | None
) -> dict[int, ImageFile]:
    """Return the files of a whole series in the order that their numbers say, if these fit it."""
    found = [each for each in looked.values() if each.low is not None and each.spans_its_numbers]
    if len(found) == len(looked) and sum(each.images for each in found) == promised:
        found.sort(key=lambda each: (each.low or 0, each.images))
        pairs = itertools.pairwise(found)
        if all(after.low == (before.low or 0) + before.images for before, after in pairs):
            return dict(zip(looked, found, strict=True))
    return dict(looked)


def _agreed_start(looked: Mapping[int, ImageFile], firsts: Mapping[int, int]) -> int | None:
    """Return the number of the series' first image that one number of each file tells at least.

    None if there is none, or if a file has no number. A file of another series has two numbers
    that agree with each other and with nothing else.
    """
    if any(found.low is None for found in looked.values()):
        return None
    told = [found.starts(firsts[place]) for place, found in looked.items()]
    agreed = set.intersection(*told)
    lows = [(found.low or 0) - firsts[place] for place, found in looked.items()]
    return max(agreed, key=lows.count, default=None)


def _remark(path: Path, looked: Mapping[int, ImageFile], firsts: Mapping[int, int]) -> str:
    """Return what is said of files whose first number is wrong; "" if there are none."""
    start = _agreed_start(looked, firsts)
    if start is None:
        return ""
    odd = [
        wrong_number(path, found, start + firsts[place])
        for place, found in looked.items()
        if found.low != start + firsts[place]
    ]
    return f"{odd[0]}{f'; and {len(odd) - 1} more' if len(odd) > 1 else ''}" if odd else ""


def wrong_number(path: Path, found: ImageFile, number: int) -> str:
    """Return what is said of a file whose first number is wrong."""
    return (
        f"{path}: {found.path.name} says that its first image is number {found.low}; it is taken "
        f"for number {number}, by the number of its last image and the files before"
    )


def _check_promise(
    path: Path,
    looked: Mapping[int, ImageFile],
    firsts: Mapping[int, int],
    promised: int | None,
    start: int,
) -> None:
    """Check that numbers leave the images within what was promised or can be, if so few are there.

    Raises
    ------
    FileError
    """
    place, last = list(looked.items())[-1]
    images = sum(found.written for found in looked.values())
    most = _MOST_IMAGES if promised is None else promised
    if images <= most < firsts[place] + last.written:
        raise FileError(
            f"{path}: {last.path.name} says to have images from {last.low} on, which cannot be in "
            f"a series of {most} images from {start} on: it or a file before is of another series"
        )


def _start(looked: Mapping[int, ImageFile], per_file: int | None, *, linked: bool) -> int | None:
    """Return the number of the first image of a series; None if the files do not tell it."""
    if any(found.low is None for found in looked.values()):
        return None
    place, found = next(iter(looked.items()))
    low = found.low or 0
    if place == 0:
        return low
    # The DCU's own start is 1; it can be told to count from another number.
    start = low - place * per_file if per_file is not None else 1
    start = start if start >= 0 else 1
    alike = len({each.low for each in looked.values()}) == 1
    if linked and alike and low - start < place:
        # There is no room for an image in each file before: it counts from its own beginning.
        return None
    return start


def _per_file(only: ImageFile, last: int, promised: int | None) -> int | None:
    """Return how many images a full file has if the last one alone is there."""
    if last == 0:
        return only.images
    if promised is None:
        return None
    each, rest = divmod(promised - only.images, last)
    return each if not rest and each >= only.images else None


def _per_file_by_number(place: int, only: ImageFile) -> int | None:
    """Return how many images a full file has if one is there that may be short."""
    if place == 0 or only.low is None:
        return None
    # The DCU's own first number is 1.
    each, rest = divmod(only.low - 1, place)
    return each if not rest and each >= only.images else None


def _with_lost(
    parts: Sequence[Part],
    order: Sequence[int],
    lost: Mapping[int, Part],
    per_file: int | None,
    promised: int | None,
) -> list[Part]:
    """Return the parts with those of missing files between and behind them."""
    merged: list[Part] = []
    known = dict(zip(order, parts, strict=True))
    end = 0
    for place in sorted({*known, *lost}):
        if place in known:
            merged.append(known[place])
            end = merged[-1].stop
            continue
        after = bisect.bisect_right(order, place)
        stop = parts[after].first if after < len(order) else promised
        each = per_file if stop is None or per_file is not None else stop - end
        images = each if each is not None else 1
        images = images if stop is None else min(images, stop - end)
        if images > 0:
            merged.append(replace(lost[place], first=end, images=images))
            end += images
    return merged
