"""What a detector does with a series: arm it, trigger it, end it.

Between the commands and `acquisition`, which exposes. Knows nothing of HTTP or of config puts.
"""

import logging
import math
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, wait
from time import monotonic
from types import MappingProxyType
from typing import Any

import numpy as np

from sim_dcu import oracle
from sim_dcu.acquisition import (
    LONGEST_CLOSING,
    Acquisition,
    Ending,
    Phase,
    Sink,
    Taker,
)
from sim_dcu.beam import DEFAULT_BEAM
from sim_dcu.detector_config import DetectorConfig
from sim_dcu.exposures import Train
from sim_dcu.filestore import Filewriter
from sim_dcu.images import ImageSource
from sim_dcu.made_ahead import MadeAhead
from sim_dcu.models import Durations
from sim_dcu.parameters import RefusedError
from sim_dcu.remembered import RememberedSeries
from sim_dcu.scene.sensor import Planted
from sim_dcu.series import ArmedSeries
from sim_dcu.series_faults import SeriesFaults
from sim_dcu.states import DetectorState, State
from sim_dcu.subsystem import Argument, Command, Machine, after

log = logging.getLogger(__name__)

# In bytes of uncompressed images: what the buffer between detector and files holds, a guess.
BUFFER_BYTES = 16 * 2**30
# In s: how long a detector that keeps its time is arming at most until its images can be made;
# an EIGER takes up to 17 s.
LONGEST_BUILDING = 15.0
# In s: longer than this machine's threads wait for each other, so that an image is made in time.
AHEAD = 0.2
# In s: how long closing waits for the image that is being written.
LONGEST_CLOSE = 1.0

_STATE_OF = {
    Phase.WAITING: State.READY,
    Phase.EXPOSING: State.ACQUIRE,
    Phase.ENDED: State.IDLE,
}
# disarm keeps what is exposed, cancel waits for the running image, abort drops what is under way
# (API reference 1.3, 3.1.3).
_ENDINGS = {
    "disarm": Ending.AT_ONCE,
    "cancel": Ending.AFTER_IMAGE,
    "abort": Ending.DROP_ALL,
}
# A client's trigger without an exposure (a tango device of beamlines with EIGER1).
NO_EXPOSURE = -1
# What each external trigger mode waits for. eies and extg are EIGER2's (its user manual, 9.6, 9.7).
SIGNAL_OF_MODE = {"exts": "pulse", "exte": "gate", "eies": "pulse", "extg": "gate"}


class SeriesControl:
    """The series of one detector.

    Where the references are silent or at odds, this is what it does: arm needs state idle; a
    trigger that waits when another connection ends its series replies 200 as if it had ended by
    itself; abort, cancel and disarm are refused in states na and error, which only initialize
    leaves; a disarm, also in idle, replies when the files are closed, or a few seconds after the
    last exposure while they are still written, and then the next arm is refused until they are. In
    eies, of which only the example is known that 11 signals make 10 images, a signal ends an image
    and starts the next; in extg every image needs `nexpi` gates, and the series waits for its end
    from outside.

    Parameters
    ----------
    machine : Machine
        Shared with the other subsystems.
    state : DetectorState
        The detector's.
    settings : DetectorConfig
        The detector's.
    filewriter : Filewriter
        Takes the images.
    durations : Durations
        Of arming.
    seed : int
        Of the images.

    Attributes
    ----------
    takers : sequence of Taker
        Who is told of each series beside the file writer.
    series_id : int
        Of the newest series, 0 where none was armed since initialize.
    beam : Beam
        What shines on the detector from the next arm on.
    rate : float or None
        How many images a second can be made of the newest series, as tried at arm; None where none
        was tried.
    """

    def __init__(
        self,
        machine: Machine,
        state: DetectorState,
        settings: DetectorConfig,
        filewriter: Filewriter,
        durations: Durations,
        seed: int,
    ):
        self.machine = machine
        self.acquisition: Acquisition | None = None
        self._state = state
        self._settings = settings
        self._config = settings.store
        self._filewriter = filewriter
        self.takers: Sequence[Taker] = ()
        self._durations = durations
        self._seed = seed
        self.series_id = 0
        self._changed_since_arm = True
        self._armed = RememberedSeries()
        self._signals = 0
        self._gates: list[float] = []
        self._series: ArmedSeries | None = None
        self.beam = DEFAULT_BEAM
        self.rate: float | None = None
        self.unique_id = ""
        machine.faults.watch(lambda: self.acquisition and self.acquisition.wake())

    @property
    def commands(self) -> dict[str, Command]:
        """What each command does."""
        return {
            "arm": lambda _: self.machine.submit(self._arm),
            "trigger": self._trigger,
            "wait": self._wait,
            **{name: self._ending_command(name) for name in _ENDINGS},
        }

    def note_change(self) -> None:
        """Let the next arm take the time of one after a change."""
        self._changed_since_arm = True

    def forget(self) -> None:
        """Start counting anew; armed series stay known to the oracle."""
        self.series_id = 0
        self._changed_since_arm = True

    def end_all(self) -> None:
        """End what is under way, at once."""
        with self.machine.lock:
            self.machine.interrupt()
            if self.acquisition is not None:
                self.acquisition.end(Ending.DROP_ALL)

    def leave(self) -> None:
        """End what is under way and wait until it has; called on the worker."""
        self.end_all()
        if self.acquisition is not None:
            self.acquisition.closed.result()
        with self.machine.lock:
            self.acquisition = None

    def close(self) -> None:
        """End what is under way, and the worker, so that nobody waits for them any longer."""
        self.end_all()
        self.machine.close()
        # A series that the worker was still arming.
        self.end_all()
        if self.acquisition is not None:
            self.acquisition.join(LONGEST_CLOSE)

    def image(self, series_id: int, number: int) -> np.ndarray:
        """Return the image that the newest series of that id must hold.

        Returns
        -------
        numpy.ndarray of uint16 or uint32, shape (y, x)
            Counts.

        Raises
        ------
        KeyError
            Where no such series was armed.
        IndexError
            Where the series has no image `number` (from 1).
        """
        return oracle.image(self._known(series_id), number)

    def planted(self, series_id: int) -> Planted:
        """Return what is planted in the part of the detector that a series reads out.

        Raises
        ------
        KeyError
            Where no such series was armed.
        """
        return oracle.planted(self._known(series_id))

    def _known(self, series_id: int) -> ArmedSeries:
        with self.machine.lock:
            series = self._armed.get(series_id)
        if series is None:
            raise KeyError(f"no series {series_id} was armed")
        return series

    def _arm(self) -> dict[str, int]:
        interrupt = self.machine.begin_wait()
        with self.machine.lock:
            self._state.require("arm", State.IDLE)
            self._settings.check_series()
            self._state.enter(State.CONFIGURE)
            changed = self._changed_since_arm
            seconds = self._durations.arm if changed else self._durations.arm_again
        try:
            # One bound for all that an arm waits for: it stays within a client's time-out.
            deadline = monotonic() + LONGEST_CLOSING
            self._require_closed(LONGEST_CLOSING)
            if self.machine.clock.scale and self._writes:
                # Its pool is built while the detector arms.
                ImageSource(self._series_to_be())
            if not self.machine.clock.wait(seconds, interrupt):
                raise RefusedError("arm was interrupted by another command")
            series_id = self._open_series(max(0.0, deadline - monotonic()))
        except (RefusedError, ValueError) as error:
            # Nothing is broken: the configuration cannot be armed, or another client said no.
            # (Unless the series before failed meanwhile: that is for initialize to mend.)
            with self.machine.lock:
                if self._state.now is State.CONFIGURE:
                    self._state.enter(State.IDLE)
            raise RefusedError(str(error)) from error
        except Exception as error:
            with self.machine.lock:
                self._state.fail(str(error) or type(error).__name__)
            raise RefusedError(f"arm failed: {error}") from error
        return {"sequence id": series_id}

    def _require_closed(self, timeout: float) -> None:
        """Wait for the files of the series before, for at most `timeout` s."""
        before = self.acquisition
        if before is None:
            return
        wait([before.closed], timeout)
        if before.failure:
            raise RefusedError(before.failure)
        if not before.closed.done():
            raise RefusedError("arm: the images of the series before are still being written")

    def _open_series(self, timeout: float) -> int:
        with self.machine.lock:
            self._config.update({"data_collection_date": self.machine.firmware.stamp()})
            writes, series = self._writes, self._series_to_be()
        # Only the file writer takes chunks; without it no image needs to be made.
        source = ImageSource(series) if writes else None
        if source is not None:
            # Those of a large detector take seconds to be ready; a DCU's arm takes as long.
            longest = LONGEST_BUILDING if self.machine.clock.scale else 0.0
            wait([source.ready], max(timeout, longest))
            source.ready.add_done_callback(lambda _: self._say_rate(source))
        sinks: list[Sink] = [self._filewriter.open_series(series)] if writes else []
        for taker in self.takers:
            if (sink := taker.open_series(series)) is not None:
                sinks.append(sink)  # noqa: PERF401 - a sink opened is one to be closed
        with self.machine.lock:
            self.series_id = series.series_id
            self._armed.add(series)
            self._series = series
            self._changed_since_arm = False
            self.acquisition = Acquisition(
                series.images,
                None if source is None else self._made_ahead(series, source),
                sinks,
                self.machine.clock,
                self.machine.lock,
                self._report,
                disturbance=SeriesFaults(self.machine.faults, series),
                ends_itself=series.detector["trigger_mode"] != "extg",
                ready=None if source is None else source.ready,
                buffer=None if source is None else max(1, BUFFER_BYTES // series.image_bytes),
            )
            self._signals = 0
            self._gates = []
            self.unique_id = str(uuid.uuid4())
            self._state.enter(State.READY)
        return series.series_id

    def _made_ahead(self, series: ArmedSeries, source: ImageSource) -> MadeAhead:
        """Return the images of a series, those made ahead that are due within `AHEAD` s."""
        clock = self.machine.clock
        period = series.detector["frame_time"] * clock.scale
        ahead = min(series.images, math.ceil(AHEAD / period)) if clock.scale else 0
        made = MadeAhead(source, clock.now, series.images, ahead)
        if series.detector["trigger_mode"] in ("ints", "exts"):
            # No trigger brings an exposure of its own.
            made.allow(series.images)
        return made

    @property
    def _writes(self) -> bool:
        return self._filewriter.config["mode"] == "enabled"

    def _series_to_be(self) -> ArmedSeries:
        """Return what the next series is armed with, as everything is set now."""
        with self.machine.lock:
            self._settings.settle()
            return ArmedSeries(
                series_id=self.series_id + 1,
                seed=self._seed,
                detector=MappingProxyType(self._settings.armed_values()),
                filewriter=MappingProxyType(self._filewriter.config.values()),
                beam=self.beam,
                whole=self._settings.whole,
                origin=self._settings.origin,
            )

    def _say_rate(self, source: ImageSource) -> None:
        """Keep and log how many images a second can be made."""
        if source.ready.exception() is not None:
            return  # told when the first image is asked for
        self.rate = source.tried_rate()
        asked = self._config["frame_time"] * self.machine.clock.scale
        text = "images are made at %.0f a second"
        if asked and self.rate * asked < 1:
            log.warning(
                f"{text}, and asked for at %.0f: in a long series some are going to be lost",
                self.rate,
                1 / asked,
            )
        else:
            log.info(text, self.rate)

    def _trigger(self, argument: Argument) -> Any:
        with self.machine.lock:
            self._state.require("trigger", State.READY)
            mode = self._config["trigger_mode"]
            if mode in SIGNAL_OF_MODE:
                raise RefusedError(f"trigger: trigger_mode {mode} waits for a signal")
            exposure = self._exposure(argument) if mode == "inte" else self._config["count_time"]
            gated = [exposure] if mode == "inte" else []
            train = self._start(self._train(exposure), gated)
        # ints replies when its images are exposed, inte at once (clients wait out the exposure).
        reply = self.machine.firmware.trigger_reply
        return reply if mode == "inte" else after(train.done, reply)

    def _exposure(self, argument: Argument) -> float:
        """Return the exposure in s that came with a trigger, or else that of the config."""
        try:
            given = argument()
        except RefusedError:
            if not self.machine.firmware.takes_any_body:
                raise
            given = None
        if self.machine.firmware.takes_any_body and (
            isinstance(given, bool) or not isinstance(given, int | float) or given == NO_EXPOSURE
        ):
            # What clients send with any command of an EIGER1.
            given = None
        default = self._config["count_time"]
        return default if given is None else self._config.accepted("count_time", given)

    def _train(self, exposure: float) -> Train:
        # What starts at once is not delayed on EIGER1, which has no such parameter.
        delay = self._config.values().get("trigger_start_delay", 0.0)
        return Train(self._images_a_trigger(), exposure, self._period(), delay)

    @property
    def shortest_gate(self) -> float:
        """The shortest gate in s that is an exposure.

        Invalid ones are not counted (user manual of EIGER2); that those are invalid which are
        shorter than any count time is an estimate.
        """
        limits = self._config.parameters["count_time"].limits
        return limits[0] if limits else 0.0

    def signal(self, kind: str, seconds: float | None = None) -> bool:
        """Give the detector an external signal.

        Parameters
        ----------
        kind : str
            `pulse` (trigger modes exts, eies) or `gate` (exte, extg).
        seconds : float or None
            How long the gate is open, in s.

        Returns
        -------
        bool
            Whether the detector took it: it does not unless it waits for that kind.
        """
        with self.machine.lock:
            mode = self._config["trigger_mode"]
            if self._state.now is not State.READY or SIGNAL_OF_MODE.get(mode) != kind:
                return False
            exposure = self._config["count_time"] if seconds is None else seconds
            if kind == "gate" and exposure < self.shortest_gate:
                return False
            if mode in ("eies", "extg"):
                return self._count_signal(mode, exposure)
            # A gate is the exposure itself; a pulse starts one.
            if kind == "pulse":
                self._start(self._train(exposure))
            else:
                train = Train(self._images_a_trigger(), exposure, self._period())
                self._start(train, [exposure])
            return True

    def _count_signal(self, mode: str, exposure: float) -> bool:
        """Take one of the several signals that an image needs."""
        exposures: list[float] = []
        if mode == "eies":
            # The first signal starts an image, each other one ends it, exposed already.
            images, needed, exposure = 1, 1, 0.0
            due = self._signals >= self._config["ntriggers_skipped"] + 1
        else:
            # Two counters take turns in mode double, and are read out together.
            images = 2 if self._config["extg_mode"] == "double" else 1
            needed = images * self._config["nexpi"]
            due = (self._signals + 1) % needed == 0
        if self.acquisition is None or self.acquisition.missing < images:
            return False
        self._signals += 1
        if mode == "extg":
            self._gates.append(exposure)
            exposures = [sum(self._gates[image::images]) for image in range(images)]
        if due:
            self._start(Train(images, exposure, 0.0), exposures)
            self._gates = []
        return True

    def _images_a_trigger(self) -> int:
        return self._settings.armed_values()["nimages"]

    def _period(self) -> float:
        return self._config["frame_time"]

    def _start(self, train: Train, exposures: Sequence[float] = ()) -> Train:
        """Start a train; `exposures` in s are those of its first images, where not `count_time`."""
        if self.acquisition is None or self._series is None:
            raise RefusedError("trigger: no series is armed")
        for number, exposure in enumerate(exposures, self.acquisition.exposed + 1):
            self._series.exposures[number] = exposure
        self.acquisition.trigger(train)
        return train

    def _ending_command(self, command: str) -> Any:
        def request(_argument: Argument) -> "Future[Any]":
            with self.machine.lock:
                if self._state.now is State.CONFIGURE:
                    # Arming, or a slow put: it is cut short and the command comes next.
                    self.machine.interrupt()
                    if self.acquisition is not None and command == "abort":
                        self.acquisition.end(Ending.DROP_ALL)
                    return self.machine.submit(self._end, command)
                return self._end(command)

        return request

    def _end(self, command: str) -> "Future[Any]":
        with self.machine.lock:
            self._state.require(command, State.IDLE, State.READY, State.ACQUIRE)
            reply = {"sequence id": self.series_id}
            acquisition = self.acquisition
            if acquisition is None:
                nothing: Future[None] = Future()
                nothing.set_result(None)
                return after(nothing, reply)
            ending = _ENDINGS[command]
            if command == "disarm" and self.machine.firmware.disarm_waits:
                # EIGER2 no longer stops a running trigger (users' reports since 2020.1).
                ending = Ending.AFTER_TRIGGER
            acquisition.end(ending)
        # Nothing is left to write after an abort.
        done = acquisition.closed if ending is Ending.DROP_ALL else acquisition.settled
        return after(done, reply, lambda: acquisition.failure)

    def _wait(self, _argument: Argument) -> "Future[Any] | None":
        with self.machine.lock:
            acquisition = self.acquisition
            # Without waits, one for a trigger that has not come is over too.
            waits = self.machine.clock.scale or self._state.now is not State.READY
        return after(acquisition.settled, None) if acquisition is not None and waits else None

    def _report(self, acquisition: Acquisition) -> None:
        if acquisition is self.acquisition:
            if acquisition.phase is Phase.FAILED:
                self._state.fail(acquisition.failure)
            else:
                self._state.enter(_STATE_OF[acquisition.phase])
