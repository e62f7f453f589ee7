"""The monitor subsystem: the latest images of a series, one by one, as TIFF.

Keeps which images it holds; their pixels are made anew when one is asked for, so that a full buffer
costs nothing. Knows nothing of HTTP; whoever waits for an image is told when one comes.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from sim_dcu import tiff
from sim_dcu.clock import local_time_with_zone
from sim_dcu.images import ImageSource
from sim_dcu.parameters import MissingError, ParameterStore
from sim_dcu.series import ArmedSeries
from sim_dcu.subsystem import Argument, Machine, Subsystem
from sim_dcu.tables.interfaces import BUFFER_BYTES, Interfaces

# The only threshold whose images are made.
_THRESHOLD = 1


@dataclass(frozen=True)
class Held:
    """One image: its series and its number in it, from 1."""

    series: ArmedSeries
    number: int

    @property
    def name(self) -> tuple[int, int]:
        """The series' id and the number."""
        return self.series.series_id, self.number


class _Feed:
    """The sink that tells the monitor of one series' images."""

    def __init__(self, monitor: "Monitor", series: ArmedSeries):
        self._monitor = monitor
        self._series = series

    def add(self, number: int, chunk: bytes) -> None:
        """Hand image `number` on; its pixels are made when they are asked for."""
        self._monitor.put_image(Held(self._series, number))

    def close(self) -> None:
        """End; the images stay."""


class Monitor(Subsystem):
    """The monitor subsystem.

    Where the references are silent, this is what it does: images stay in the buffer when the mode
    is put disabled and when the next series is armed; a buffer made smaller drops what no longer
    fits, counted as dropped; a mode put while a series is armed counts from the next one.

    Parameters
    ----------
    machine : Machine
        Shared with the other subsystems.
    interfaces : Interfaces
        The generation's resources and habits.
    """

    def __init__(self, machine: Machine, interfaces: Interfaces):
        super().__init__(
            machine,
            ParameterStore(interfaces.monitor_config),
            interfaces.monitor_status,
            {"clear": self._clear, "initialize": self._initialize},
        )
        self._habits = interfaces
        # In the order of arrival; a newer image of the same name replaces the older.
        self._buffer: dict[tuple[int, int], Held] = {}
        self._newest: Held | None = None
        self._dropped = 0
        self._last_asked: dict[str, list[int]] = {"next": [], "monitor": []}
        self._watchers: set[Callable[[], None]] = set()

    # -- images in --------------------------------------------------------------------------------

    def open_series(self, series: ArmedSeries) -> _Feed | None:
        """Return the sink of a series' images, or None where the monitor is disabled."""
        if self.config["mode"] != "enabled":
            return None
        # So that the first image asked for does not wait for its making.
        _source(series)
        return _Feed(self, series)

    def put_image(self, image: Held) -> None:
        """Take an image into the buffer, or drop one, as the generation does it."""
        with self.machine.lock:
            if self.machine.faults.active and self.machine.faults.of_image("monitor-drop"):
                self._dropped += 1
                return
            self._newest = image
            self._buffer.pop(image.name, None)
            self._buffer[image.name] = image
            self._trim()
            watchers = list(self._watchers)
        for tell in watchers:
            tell()

    def _trim(self) -> None:
        while len(self._buffer) > self.config["buffer_size"]:
            # EIGER1 keeps old and drops new ones (API reference 1.3); so does EIGER2 with
            # discard_new (1.8).
            keeps_old = self.config["discard_new"] if self._can_choose else True
            self._buffer.pop(next(reversed(self._buffer) if keeps_old else iter(self._buffer)))
            self._dropped += 1

    @property
    def _can_choose(self) -> bool:
        return "discard_new" in self.config.parameters

    # -- images out -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def watched(self, tell: Callable[[], None]) -> Iterator[None]:
        """Have `tell` called, from any thread, after each image that comes."""
        with self.machine.lock:
            self._watchers.add(tell)
        try:
            yield
        finally:
            with self.machine.lock:
                self._watchers.discard(tell)

    def take(self, which: str, keep: bool = False) -> Held | None:
        """Return an image as `images/next` or `images/monitor` do, or None where there is none.

        Parameters
        ----------
        which : str
            `next`, the oldest, which leaves the buffer; or `monitor`, the newest.
        keep : bool
            Whether to leave everything as it is.
        """
        with self.machine.lock:
            if which == "next":
                image = next(iter(self._buffer.values()), None)
            elif self._habits.newest_is_taken:
                image = next(reversed(self._buffer.values()), None)
            else:
                image = self._newest
            if image is None or keep:
                return image
            if which == "next" or self._habits.newest_is_taken:
                del self._buffer[image.name]
            self._last_asked[which] = list(image.name)
            return image

    def held(self, series_id: int, number: int) -> Held:
        """Return an image of the buffer; it stays there.

        Raises
        ------
        MissingError
            Where the buffer does not hold it.
        """
        with self.machine.lock:
            image = self._buffer.get((series_id, number))
        if image is None:
            raise MissingError(f"Image {series_id}/{number} does not exist")
        return image

    def held_of(self, series_id: int, number: int, threshold: int) -> Held:
        """Return the image of one threshold; EIGER1 has no such name.

        Raises
        ------
        MissingError
            Where the buffer does not hold it.
        """
        if not self._habits.names_thresholds or threshold != _THRESHOLD:
            raise MissingError(f"Image {series_id}/{number}/{threshold} does not exist")
        return self.held(series_id, number)

    def listing(self) -> list[list[Any]]:
        """Return the images of the buffer as `[[series, [id, ...]], ...]`."""
        found: dict[int, list[int]] = {}
        with self.machine.lock:
            for series_id, number in self._buffer:
                found.setdefault(series_id, []).append(number)
        return [[series_id, numbers] for series_id, numbers in found.items()]

    def delete(self, series_id: int, number: int) -> None:
        """Take one image out of the buffer.

        Raises
        ------
        MissingError
            Where the buffer does not hold it.
        """
        with self.machine.lock:
            image = self.held(series_id, number)
            del self._buffer[image.name]
            if self._newest == image:
                self._newest = next(reversed(self._buffer.values()), None)

    def delete_all(self) -> None:
        """Empty the buffer; what was dropped stays counted."""
        with self.machine.lock:
            self._buffer.clear()
            self._newest = None

    def tiff(self, image: Held) -> bytes:
        """Return an image as the detector's TIFF."""
        pixels = _source(image.series).array(image.number)
        if self._habits.always_32_bit and pixels.dtype.itemsize < 4:
            # What reads all ones (a masked or an overflown pixel) does so in any depth.
            full = pixels == np.iinfo(pixels.dtype).max
            pixels = pixels.astype("<u4")
            pixels[full] = np.iinfo(np.uint32).max
        tags = _private_tags(image) if self._habits.private_tags else None
        return tiff.encode(pixels, private_tags=tags)

    # -- config, status, commands -----------------------------------------------------------------

    def put_config(self, key: str, value: object) -> None:
        """Set config `key`; `mode` takes a bool too, the type that the references print."""
        with self.machine.lock:
            super().put_config(key, _named(key, value))
            self._trim()

    def put_whole_config(self, entries: Mapping[str, object]) -> None:
        """Set every entry that can be set, or none where one is refused."""
        with self.machine.lock:
            super().put_whole_config({key: _named(key, value) for key, value in entries.items()})
            self._trim()

    def status_value(self, key: str) -> Any:
        """Return the value of status resource `key`."""
        filled = len(self._buffer)
        values: dict[str, Any] = {
            "state": "overflow" if self._dropped else "normal",
            "error": [],
            "time": local_time_with_zone(),
            "buffer_fill_level": [filled, self.config["buffer_size"]],
            "dropped": self._dropped,
            "next_image_number": self._last_asked["next"],
            "monitor_image_number": self._last_asked["monitor"],
        }
        return self._bytes_free() if key == "buffer_free" else values[key]

    def _bytes_free(self) -> int:
        used = sum(
            image.series.shape[0] * image.series.shape[1] * image.series.dtype.itemsize
            for image in self._buffer.values()
        )
        return max(0, BUFFER_BYTES - used)

    def reset(self) -> None:
        """Be as after the start."""
        with self.machine.lock:
            self.config.reset()
            self._clear(lambda: None)
            self._last_asked = {"next": [], "monitor": []}

    def _clear(self, _argument: Argument) -> None:
        with self.machine.lock:
            self.delete_all()
            self._dropped = 0

    def _initialize(self, _argument: Argument) -> None:
        self.reset()


def _named(key: str, value: object) -> object:
    if key == "mode" and isinstance(value, bool):
        return "enabled" if value else "disabled"
    return value


def _source(series: ArmedSeries) -> ImageSource:
    """Return the maker of a series' images, by the way that keeps the smallest pool in memory."""
    return ImageSource(
        replace(
            series,
            detector=MappingProxyType({**series.detector, "compression": "bslz4"}),
            filewriter=MappingProxyType({**series.filewriter, "compression_enabled": True}),
        )
    )


def _private_tags(image: Held) -> dict[int, int | float | str]:
    """Return what API reference 1.8 lists under tag 51192, in its order.

    The numbers of the fields are in no source at hand: an estimate, counted from the directory's.
    """
    detector = image.series.detector
    facts: tuple[int | float | str, ...] = (
        image.series.series_id,
        image.number,
        str(detector["data_collection_date"]),
        _THRESHOLD,
        float(detector["threshold_energy"]),
        float(detector["photon_energy"]),
        float(detector["count_time"]),
        0,  # lost pixels
        float(detector["beam_center_x"]),
        float(detector["beam_center_y"]),
        float(detector["detector_distance"]),
    )
    return {tiff.PRIVATE_DIRECTORY + 1 + place: fact for place, fact in enumerate(facts)}
