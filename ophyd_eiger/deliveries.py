"""The files of a series on their way home: which there are, which are due, whether all is right.

Pure: no requests, no files, no threads.
"""

import functools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ophyd_eiger.master import MASTER_ENDING, SETTINGS, Master
from ophyd_eiger.policy import FilePolicy
from ophyd_eiger.silence import Silence

# How far what a file says may be from what was set, relative and not: a detector counts in steps of
# its clock, and files have numbers of less precision.
ROUNDED, LEAST_CHANGE = 0.01, 1e-6
# How often a file may come from its beginning once more and still count as something that comes.
MOST_RESTARTS = 2
# What a journal's name ends with, beside the files of its series.
JOURNAL_ENDING = ".owed"


@dataclass(frozen=True)
class FetchedFile:
    """A file that is home: where, how many bytes, how many images, and in how many seconds.

    `landed` is when it came, in s since 1970, which can be told after it was moved away, too.
    `was_here` is whether it had its name already when it was fetched. It may then be the DCU's own,
    where that folder is the DCU's: nothing proves that it is a copy.
    """

    path: Path
    bytes: int
    images: int
    seconds: float
    landed: float = field(default_factory=time.time)
    was_here: bool = False


@dataclass
class View:
    """The images that one view file maps.

    Attributes
    ----------
    file : str
        Its name, in the folder of the series.
    images : int
        Images an event.
    firsts : list of int
        For each event the number of its first image in the series, from 0; in the events' order.
    path : Path or None
        Where it is; None until it is written.
    is_whole : bool
        Whether it was written when every image of it was home.
    """

    file: str
    images: int
    firsts: list[int] = field(default_factory=list)
    path: Path | None = None
    is_whole: bool = False


@dataclass(eq=False)
class Delivery:
    """The files of one series on their way home.

    Attributes
    ----------
    basename : str
        What each file's name starts with, on the DCU and at home.
    directory : Path
        Where they go; fixed when the series was armed.
    images : int
        Images the series will have, `nimages` x `ntrigger`.
    images_per_file : int
        `nimages_per_file` as armed; 0 if all images are in the master.
    shape, dtype
        Shape (y, x) of an image in pixels, and type of a pixel.
    recorded : int
        Images that events name so far, or that are known to be taken of a fly scan that ends: the
        least that must come home.
    begun : int
        Images that the process which took it, and has ended, sent triggers for: the least that must
        come home though no event names them.
    is_counted : bool
        Whether it is known how many images were taken: of another process' series whose signals
        came from outside nobody counted them.
    ended : bool
        Whether the series is over, and all its files are on the DCU.
    cut_short : bool
        Whether it ended early, so that only the list of files tells how many there are.
    interrupted : bool
        Whether an exposure was ended, so that images may be there that no event names.
    final : bool
        Whether no event will name images of it any more, so that its views can be written.
    is_home : bool
        Whether all is home that there is.
    listed_at : float
        When the list of its files was first as it is, as of time.monotonic(); 0 before.
    listed_since_end : bool
        Whether the DCU gave its list of files since the series is over.
    known : set of str
        What was home when it was taken on again, for `fetch` to tell what came.
    listed : set of str
        The files of it that the DCU lists, as last seen.
    seen : set of str
        Those that it ever listed.
    gone : set of str
        Those that had come home and are gone with their folder.
    sizes : dict of str to int
        Bytes of files that are here whole and not home yet, as they are compared a second time.
    views : list of View
        What events name of it.
    may_be_empty : bool
        Whether nothing need be there if no event names it and the DCU lists none of it: it is
        asked for after all was over.
    silence : Silence
        For how long nothing came of it.
    settling : dict of str to float
        Until when, as of time.monotonic(), each of its files is let that is all here and is being
        synced and checked.
    disk : int or None
        Which disk `directory` was on when the series was taken on, as the system numbers them.
    inode : int or None
        Which folder of that disk it was; None if that is not known.
    settings : dict of str to float
        What its images depend on, as armed, by the names of `master.SETTINGS`.
    policy : FilePolicy
        What becomes of the files.
    is_proven : bool
        Whether each copy is proven as one that will be the only one, though `policy` deletes none:
        a deletion may be under way.
    armed_after : int or None
        Of a series that was being armed when its process ended: the id of the one before it, as
        nobody was told its own; see `to_be_armed`.
    note : callable
        Is told what `record` and `of_record` make a delivery of again, in another process.
    """

    basename: str
    directory: Path
    images: int
    images_per_file: int
    shape: tuple[int, int]
    dtype: np.dtype
    recorded: int = 0
    begun: int = 0
    is_counted: bool = True
    ended: bool = False
    cut_short: bool = False
    interrupted: bool = False
    final: bool = False
    is_home: bool = False
    listed_since_end: bool = False
    listed_at: float = 0.0
    known: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    sizes: dict[str, int] = field(default_factory=dict)
    views: list[View] = field(default_factory=list)
    home: dict[str, FetchedFile] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)
    restarts: Counter[str] = field(default_factory=Counter)
    may_be_empty: bool = False
    silence: Silence = field(default_factory=Silence)
    settling: dict[str, float] = field(default_factory=dict)
    disk: int | None = None
    inode: int | None = None
    settings: dict[str, float] = field(default_factory=dict)
    policy: FilePolicy = field(default_factory=FilePolicy)
    is_proven: bool = False
    armed_after: int | None = None
    note: Callable[[dict[str, Any]], None] = field(default=lambda _: None, repr=False)
    _noted_begun: int = 0

    @classmethod
    def to_be_armed(
        cls,
        stem: str,
        directory: Path,
        *,
        after: int,
        images: int,
        images_per_file: int,
        policy: FilePolicy,
    ) -> "Delivery":
        """Return what may come of a series that is being armed, whose id is not known yet."""
        return cls(
            f"{stem}_arming",
            directory,
            images,
            images_per_file,
            shape=(0, 0),
            dtype=np.dtype("u4"),
            policy=policy,
            armed_after=after,
        )

    def named_by(self, listed: Iterable[str]) -> "Delivery | None":
        """Return a series that was being armed by its own name, if the DCU lists a master of it."""
        stem, _, _ = self.basename.rpartition("_")
        newer = [number for number in series_ids(listed, stem) if number > (self.armed_after or 0)]
        if not newer:
            return None
        return replace(self, basename=f"{stem}_{min(newer)}", armed_after=None)

    def begin_view(self, images: int) -> View:
        """Begin a view of so many images an event."""
        number = len(self.views)
        ending = "_view.h5" if number == 0 else f"_view_{number + 1}.h5"
        view = View(self.basename + ending, images)
        self.views.append(view)
        self.note({"view": images})
        return view

    def name_images(self, firsts: Iterable[int]) -> None:
        """Note that events name images of the newest view, from these on in the series."""
        named = list(firsts)
        self.views[-1].firsts.extend(named)
        # Of one that was written before it does not have these.
        self.views[-1].is_whole = False
        self.note({"events": named})

    def forget_images(self, events: int | None = None) -> None:
        """Note that the last events of the newest view, or all, were never emitted."""
        firsts = self.views[-1].firsts
        count = len(firsts) if events is None else events
        if count:
            del firsts[-count:]
            self.note({"dropped": count})

    def note_begun(self, images: int) -> None:
        """Note up to which image triggers are sent: another process has to wait for these."""
        if images != self._noted_begun:
            self._noted_begun = images
            self.note({"begun": images})

    def record(self) -> dict[str, Any]:
        """Return what this delivery is, as JSON has it; `note` tells what becomes of it."""
        return {
            "basename": self.basename,
            "images": self.images,
            "images_per_file": self.images_per_file,
            "shape": list(self.shape),
            "dtype": self.dtype.str,
            "settings": self.settings,
            "policy": self.policy.record(),
            **({} if self.armed_after is None else {"armed_after": self.armed_after}),
        }

    @classmethod
    def of_record(
        cls, record: dict[str, Any], notes: Iterable[dict[str, Any]], directory: Path
    ) -> "Delivery":
        """Return the delivery that was recorded, with what was noted of it since.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is no such record.
        """
        delivery = cls(
            basename=str(record["basename"]),
            directory=directory,
            images=int(record["images"]),
            images_per_file=int(record["images_per_file"]),
            shape=(int(record["shape"][0]), int(record["shape"][1])),
            dtype=np.dtype(record["dtype"]),
            settings={name: float(value) for name, value in record.get("settings", {}).items()},
            policy=FilePolicy(**record["policy"]),
            armed_after=None if (after := record.get("armed_after")) is None else int(after),
        )
        for note in notes:
            if "view" in note:
                delivery.begin_view(int(note["view"]))
            elif "events" in note:
                delivery.name_images(int(first) for first in note["events"])
            elif "dropped" in note:
                delivery.forget_images(int(note["dropped"]))
            elif "begun" in note:
                delivery.begun = delivery._noted_begun = int(note["begun"])
        delivery.recorded = delivery.named
        return delivery

    @property
    def named(self) -> int:
        """Images of the series up to the last one that an event names."""
        return max((first + view.images for view in self.views for first in view.firsts), default=0)

    @property
    def _taken(self) -> int:
        """Images that are known to be taken."""
        return max(self.recorded, self.begun)

    @property
    def name_pattern(self) -> str:
        """The file writer's name pattern as it was when the series was armed."""
        stem, _, _ = self.basename.rpartition("_")
        return f"{stem}_$id"

    @property
    def master(self) -> str:
        """The master file's name."""
        return self.basename + MASTER_ENDING

    @property
    def journal(self) -> str:
        """The name of the file that says, beside the others, what of them is owed."""
        return f".{self.basename}{JOURNAL_ENDING}"

    def data_file(self, number: int) -> str:
        """Return the name of a data file, counted from 1."""
        return data_file_name(self.basename, number)

    @property
    def published(self) -> int:
        """Images in files that the DCU lists: those are exposed and complete."""
        if self.images_per_file == 0:
            known = self.master in self.listed or self.master in self.home
            return self.images if self.ended and known else 0
        files = 0
        # What is home may be deleted on the DCU.
        while (name := self.data_file(files + 1)) in self.listed or name in self.home:
            files += 1
        return min(files * self.images_per_file, self.images)

    @property
    def images_home(self) -> int:
        """Images in files that are home."""
        return sum(file.images for file in tuple(self.home.values()))

    def expected(self, listed: set[str]) -> list[str]:
        """Return the names that must come home, the master after the data files promised."""
        if (
            self.may_be_empty
            and self.listed_since_end
            and not self._taken
            and not self.home
            and not self._has_files(listed)
        ):
            return []
        if self.images_per_file == 0:
            return [self.master]
        promised = math.ceil(self.images / self.images_per_file)
        names = _data_files(self.basename, promised)
        if self.cut_short:
            needed = math.ceil(self._taken / self.images_per_file)
            there = [name in listed or name in self.home for name in names]
            if not self.may_be_empty and any(there):
                # They are written in their order: one that is not there before another is late.
                # Where all was over long ago, it may have been deleted.
                needed = max(needed, len(there) - there[::-1].index(True))
            names = tuple(
                name
                for number, (name, is_there) in enumerate(zip(names, there, strict=True))
                if number < needed or is_there
            )
        return [*names, self.master, *self._surplus(promised, listed)]

    def _surplus(self, promised: int, listed: set[str]) -> list[str]:
        """Return the names of data files beyond those that were promised: somebody's doing."""
        names = []
        while (name := self.data_file(promised + len(names) + 1)) in listed or name in self.home:
            names.append(name)
        return names

    def _has_files(self, listed: set[str]) -> bool:
        return any(name.startswith(f"{self.basename}_") for name in listed)

    def due(self, listed: set[str]) -> list[str]:
        """Return the names that can be fetched now: what is listed is complete."""
        return [name for name in self.expected(listed) if name in listed and name not in self.home]

    def needed(self) -> list[str]:
        """Return the names of files with images known to be taken that are not home."""
        names = [self.master] if self._taken else []
        if self.images_per_file and self._taken:
            files = math.ceil(self._taken / self.images_per_file)
            names = [self.data_file(number + 1) for number in range(files)] + names
        return [name for name in names if name not in self.home]

    def lacks(self) -> list[str]:
        """Return what somebody has to be told of that is not home.

        What events need; or all that there may be, where it was asked for after all was over.
        """
        return self.needed() or (self.missing() if self.may_be_empty else [])

    def missing(self) -> list[str]:
        """Return the names that are to come home and have not."""
        return [name for name in self.expected(self.listed) if name not in self.home]

    def owes(self) -> list[str]:
        """Return the names of files that have not come home, or else of views still to write."""
        views = [view.file for view in self.views if view.firsts and not view.is_whole]
        return self.missing() or (views if self.final else [])

    @property
    def all_is_listed(self) -> bool:
        """Whether it is known which files there will be."""
        return self.ended and (self.listed_since_end or not self.cut_short)

    def begin_again(self, name: str) -> bool:
        """Count what is here of a file from its beginning again, unless that was done often enough.

        A DCU may know no ranges, so that a connection that breaks costs all that had come.
        """
        if self.restarts[name] >= MOST_RESTARTS:
            return False
        self.restarts[name] += 1
        self.reached[name] = 0
        return True

    def note_listed(self, listed: Iterable[str]) -> None:
        """Note which files the DCU lists."""
        named = {name for name in listed if name.startswith(f"{self.basename}_")}
        if named != self.listed or not self.listed_at:
            self.listed, self.listed_at = named, time.monotonic()
            self.seen |= named

    def note_gone(self, names: Iterable[str]) -> None:
        """Note that files that had come home are gone with their folder, and are to come again."""
        for name in names:
            if self.home.pop(name, None) is not None:
                self.gone.add(name)
                self.is_home = False

    def on_the_way(self) -> list[tuple[str, int]]:
        """Return the names of files of which a part has come, and how many bytes."""
        return [
            (name, min(size, self.sizes.get(name, size)))
            for name, size in tuple(self.reached.items())
            if name not in self.home
        ]

    @property
    def settles(self) -> bool:
        """Whether one of its files is all here, and has its time to be synced and checked."""
        now = time.monotonic()
        return any(now < until for until in tuple(self.settling.values()))

    def left_behind(self) -> list[str]:
        """Return the names of files that are on the DCU, as far as is known, and are not home."""
        if self.ended:
            return self.missing()
        names = dict.fromkeys([*self.needed(), *sorted(self.listed)])
        return [name for name in names if name not in self.home]

    def came(self) -> list[FetchedFile]:
        """Return the files that came since it was taken on again."""
        return [file for name, file in tuple(self.home.items()) if name not in self.known]

    def is_complete(self, listed: set[str]) -> bool:
        """Return whether all is home that there is."""
        return self.all_is_listed and all(name in self.home for name in self.expected(listed))

    def armed_otherwise(self, master: Master) -> str:
        """Return what another client changed before the series was armed, or nothing.

        Parameters
        ----------
        master : Master
            What the series' master says.
        """
        promised = master.images_promised
        if promised not in (None, self.images):
            return (
                f"{self.basename}: the DCU armed for {promised} images, {self.images} were "
                "expected, so that events may name wrong ones; another client changed nimages or "
                "ntrigger"
            )
        for name, value in self.settings.items():
            taken = master.settings.get(name, value)
            if not math.isclose(taken, value, rel_tol=ROUNDED, abs_tol=LEAST_CHANGE):
                return (
                    f"{self.basename}: its images were taken with {name} {taken:g} "
                    f"{SETTINGS[name]}, as its master says, and not {value:g}; another client "
                    "changed it"
                )
        return ""

    def miscounted(self) -> str:
        """Return what is wrong with the number of images of a complete series, or nothing.

        Each event names its images by their place in the series, so that one too many or too few
        before them would shift them all.
        """
        found = self.images_home
        if found < self._taken or (found > self.recorded and not self.interrupted):
            return (
                f"{self.basename}: {found} images came home, {self._taken} were taken by this "
                "device's triggers; another client may have triggered or ended the series"
            )
        return ""

    def layout(self) -> Iterator[tuple[str, int, int]]:
        """Give each file with images: its name, its first image in the series, and how many.

        Of a file that is not home it is what it is to have, as far as events name its images.
        """
        first = 0
        for name in self._files_with_images():
            file = self.home.get(name)
            per_file = self._per_file
            images = file.images if file else min(per_file, self.images - first)
            yield name, first, images
            # Every file is full but the last.
            first += per_file

    def _files_with_images(self) -> list[str]:
        if self.images_per_file == 0:
            return [self.master]
        files = math.ceil(self.named / self._per_file)
        return [self.data_file(number + 1) for number in range(files)]

    @property
    def _per_file(self) -> int:
        """Images in each file but the last: fewer than were set where there are more files."""
        if self.images_per_file == 0:
            return self.images
        files = [self.home[name].images for name in sorted(self.home) if name != self.master]
        is_as_set = len(files) <= math.ceil(self.images / self.images_per_file)
        return self.images_per_file if is_as_set else max(files)

    def images_in(self, name: str) -> int | None:
        """Return how many images a file must hold; None if a series cut short leaves it open."""
        if self.images_per_file == 0:
            return None if self.cut_short else self.images
        number = int(name.removesuffix(".h5")[-6:])
        if self.cut_short:
            # They are written in their order, so that the last of them alone may be short.
            return self.images_per_file if self._is_followed(number) else None
        images = min(self.images_per_file, self.images - (number - 1) * self.images_per_file)
        return images if images > 0 else None

    def _is_followed(self, number: int) -> bool:
        """Return whether there is a data file after this one, counted from 1."""
        names = _data_files(self.basename, math.ceil(self.images / self.images_per_file))
        return any(name in self.listed or name in self.home for name in names[number:])


def series_ids(listed: Iterable[str], stem: str) -> list[int]:
    """Return the ids of the series of a name pattern whose master files are listed."""
    start = f"{stem}_"
    return [
        int(number)
        for name in listed
        if name.startswith(start)
        and name.endswith(MASTER_ENDING)
        and (number := name[len(start) : -len(MASTER_ENDING)]).isdecimal()
    ]


def briefly(names: list[str]) -> str:
    """Return the first of these names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")


def data_file_name(basename: str, number: int) -> str:
    """Return the name of a data file of a series, counted from 1."""
    return f"{basename}_data_{number:06d}.h5"


# Each file that comes home is looked for among all of its series.
@functools.lru_cache(maxsize=16)
def _data_files(basename: str, count: int) -> tuple[str, ...]:
    return tuple(data_file_name(basename, number + 1) for number in range(count))
