"""The detector subsystem: the state machine, from initialize to the last image.

Knows nothing of HTTP; the exposures themselves are `acquisition`'s.
"""

import logging
from collections import deque
from concurrent.futures import Future, wait
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import numpy as np

from sim_dcu import dependencies, oracle
from sim_dcu.acquisition import Acquisition, Ending, Phase, Train
from sim_dcu.clock import local_time, local_time_with_zone
from sim_dcu.filestore import Filewriter
from sim_dcu.geometry import default_flatfield, default_pixel_mask
from sim_dcu.images import ImageSource
from sim_dcu.models import Model
from sim_dcu.parameters import MissingError, ParameterStore, RefusedError
from sim_dcu.series import ArmedSeries
from sim_dcu.subsystem import Argument, Machine, Subsystem, after
from sim_dcu.tables import eiger1
from sim_dcu.tables.eiger1 import Status

log = logging.getLogger(__name__)

# Series whose oracle stays at hand; they share their arrays.
REMEMBERED_SERIES = 10_000
REMEMBERED_STATES = 1000
# In s: how long closing waits for the image that is being written.
LONGEST_CLOSE = 1.0


class State(StrEnum):
    """What `status/state` says."""

    NA = "na"
    INITIALIZE = "initialize"
    IDLE = "idle"
    CONFIGURE = "configure"
    READY = "ready"
    ACQUIRE = "acquire"
    ERROR = "error"


_STATE_OF = {
    Phase.WAITING: State.READY,
    Phase.EXPOSING: State.ACQUIRE,
    Phase.ENDED: State.IDLE,
    Phase.FAILED: State.ERROR,
}
# disarm keeps what is exposed, cancel waits for the running image, abort drops what is under way
# (API reference 1.3, 3.1.3).
_ENDINGS = {
    "disarm": Ending.AT_ONCE,
    "cancel": Ending.AFTER_IMAGE,
    "abort": Ending.DROP_ALL,
}
_SIGNAL_OF_MODE = {"exts": "pulse", "exte": "gate"}


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


class Detector(Subsystem):
    """The detector subsystem.

    Where the references are silent or at odds, this is what it does: a config put needs state
    idle, and is refused with 400 while armed or exposing; arm needs state idle; a trigger that
    waits when another connection ends its series replies 200 as if it had ended by itself;
    initialize restores the factory's pixel mask; abort, cancel and disarm are refused in states na
    and error, which only initialize leaves.

    Parameters
    ----------
    machine : Machine
        Shared with the other subsystems.
    model : Model
        Which detector.
    seed : int
        Of every random number.
    filewriter : Filewriter
        Takes the images.
    """

    def __init__(self, machine: Machine, model: Model, seed: int, filewriter: Filewriter):
        self.model = model
        self._seed = seed
        self._flatfield = _read_only(default_flatfield(model.modules_x, model.modules_y))
        mask = _read_only(default_pixel_mask(model.modules_x, model.modules_y, seed))
        super().__init__(
            machine,
            ParameterStore(eiger1.detector_config(model, self._flatfield, mask)),
            eiger1.detector_status(model),
            {
                "initialize": self._request_initialize,
                "arm": lambda _: machine.submit(self._arm),
                "trigger": self._trigger,
                **{name: self._ending_command(name) for name in _ENDINGS},
                "status_update": self._status_update,
                "wait": self._wait,
            },
            not_fitted=eiger1.LINKS[model.links :],
        )
        self._filewriter = filewriter
        self.state = State.NA
        self.states: deque[State] = deque([State.NA], maxlen=REMEMBERED_STATES)
        self._error = ""
        self._series_id = 0
        self._measured = local_time()
        self._acquisition: Acquisition | None = None
        self._unchanged_since_arm = False
        self._armed: dict[int, ArmedSeries] = {}

    # -- reading ----------------------------------------------------------------------------------

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
        with self.machine.lock:
            series = self._armed.get(series_id)
        if series is None:
            raise KeyError(f"no series {series_id} was armed")
        return oracle.image(series, number)

    def read_config(self, key: str) -> dict[str, Any]:
        """Return the reply of a GET of config `key`; an array stays an array."""
        return super().read_config(eiger1.ALIASES.get(key, key))

    def status_value(self, key: str) -> Any:
        """Return the value of status resource `key`."""
        values = {
            "state": str(self.state),
            "error": [self._error] if self._error else [],
            "time": local_time_with_zone(),
        }
        if key in values:
            return values[key]
        return "up" if key in eiger1.LINKS else self._status[key].measured

    def status_time(self, status: Status) -> str:
        """Return when the value of `status` was taken; measured ones wait for a status_update."""
        if status.brief:
            return local_time_with_zone()
        return local_time() if status.measured is None else self._measured

    # -- initialize and restart -------------------------------------------------------------------

    def _request_initialize(self, _argument: Argument) -> "Future[Any]":
        self._end_everything()
        return self.machine.submit(self.initialize)

    def _end_everything(self) -> None:
        with self.machine.lock:
            self.machine.interrupt()
            if self._acquisition is not None:
                self._acquisition.end(Ending.DROP_ALL)

    def initialize(self) -> None:
        """Bring everything to its default and the detector to state idle."""
        self._reset(State.INITIALIZE, self.model.durations.initialize, State.IDLE)

    def restart(self) -> "Future[Any]":
        """Restart the acquisition service: the state is na afterwards."""
        self._end_everything()
        return self.machine.submit(self._reset, State.NA, self.model.durations.restart, State.NA)

    def _reset(self, meanwhile: State, seconds: float, then: State) -> None:
        self._end_everything()
        if self._acquisition is not None:
            self._acquisition.closed.result()
        interrupt = self.machine.begin_wait()
        with self.machine.lock:
            self._acquisition = None
            self._enter(meanwhile)
        self.machine.clock.wait(seconds, interrupt)
        self._set_defaults(then)

    def start_initialized(self) -> None:
        """Be initialized from the start, without its wait."""
        self._enter(State.INITIALIZE)
        self._set_defaults(State.IDLE)

    def _set_defaults(self, then: State) -> None:
        with self.machine.lock:
            self.config.reset()
            self.config.update(dependencies.derived(self.config.values()))
            self._filewriter.forget_failure()
            self._series_id = 0
            self._error = ""
            self._unchanged_since_arm = False
            self._measured = local_time()
            self._enter(then)

    # -- config -----------------------------------------------------------------------------------

    def put_config(self, key: str, value: object) -> "Future[list[str]]":
        """Set config `key` to `value` once no other change is under way.

        Returns
        -------
        Future of list of str
            The names of what changed or may have, sorted.
        """
        return self.machine.submit(self._put, eiger1.ALIASES.get(key, key), value)

    def _put(self, key: str, value: object) -> list[str]:
        slow = key in dependencies.SLOW
        interrupt = self.machine.begin_wait()
        with self.machine.lock:
            if self.state is State.NA:
                raise MissingError(f"Parameter {key} does not exist")
            value = self.config.accepted(key, value)
            if self.state is not State.IDLE:
                raise RefusedError(f"{key} cannot be put in state {self.state}; disarm first")
            if isinstance(value, np.ndarray):
                value = _read_only(value)
            changed = dependencies.settled(self.config.values(), key, value, self._flatfield)
            if slow:
                self._enter(State.CONFIGURE)
        durations = self.model.durations
        self.machine.clock.wait(durations.slow_put if slow else durations.put, interrupt)
        with self.machine.lock:
            self.config.update(changed)
            self._unchanged_since_arm &= not changed
            if slow:
                self._enter(State.IDLE)
        return dependencies.named_in_reply(key, changed)

    # -- arm, trigger, end ------------------------------------------------------------------------

    def _arm(self) -> dict[str, int]:
        interrupt = self.machine.begin_wait()
        with self.machine.lock:
            self._require("arm", State.IDLE)
            dependencies.check_series(self._armed_values())
            self._enter(State.CONFIGURE)
            durations = self.model.durations
            seconds = durations.arm_again if self._unchanged_since_arm else durations.arm
        try:
            if self._acquisition is not None:
                self._acquisition.closed.result()
            if self._acquisition is not None and self._acquisition.failure:
                raise RefusedError(self._acquisition.failure)
            if not self.machine.clock.wait(seconds, interrupt):
                raise RefusedError("arm was interrupted by another command")
            series_id = self._open_series()
        except (RefusedError, ValueError) as error:
            # Nothing is broken: the configuration cannot be armed, or another client said no.
            # (Unless the series before failed meanwhile: that is for initialize to mend.)
            with self.machine.lock:
                if self.state is State.CONFIGURE:
                    self._enter(State.IDLE)
            raise RefusedError(str(error)) from error
        except Exception as error:
            with self.machine.lock:
                self._error = str(error) or type(error).__name__
                self._enter(State.ERROR)
            raise RefusedError(f"arm failed: {error}") from error
        return {"sequence id": series_id}

    def _open_series(self) -> int:
        with self.machine.lock:
            self.config.update({"data_collection_date": local_time()})
            writes = self._filewriter.config["mode"] == "enabled"
            series = ArmedSeries(
                series_id=self._series_id + 1,
                seed=self._seed,
                detector=MappingProxyType(self._armed_values()),
                filewriter=MappingProxyType(self._filewriter.config.values()),
            )
        # Without a taker no image needs to be made.
        source = ImageSource(series) if writes else None
        sinks = [self._filewriter.open_series(series)] if writes else []
        with self.machine.lock:
            self._series_id = series.series_id
            self._armed.pop(series.series_id, None)
            self._armed[series.series_id] = series
            while len(self._armed) > REMEMBERED_SERIES:
                del self._armed[next(iter(self._armed))]
            self._unchanged_since_arm = True
            self._acquisition = Acquisition(
                series.images, source, sinks, self.machine.clock, self.machine.lock, self._report
            )
            self._enter(State.READY)
        return series.series_id

    def _armed_values(self) -> dict[str, Any]:
        values = self.config.values()
        if values["trigger_mode"] in ("inte", "exte"):
            # One image a trigger or gate, whatever nimages says (user manual of EIGER2).
            values["nimages"] = 1
        return values

    def _trigger(self, argument: Argument) -> Any:
        with self.machine.lock:
            self._require("trigger", State.READY)
            mode = self.config["trigger_mode"]
            if mode in _SIGNAL_OF_MODE:
                raise RefusedError(
                    f"trigger: trigger_mode {mode} waits for a signal"
                )
            exposure = self.config["count_time"]
            if mode == "inte" and (given := argument()) is not None:
                exposure = self.config.accepted("count_time", given)
            train = self._start(exposure)
        # ints replies when its images are exposed, inte at once (clients wait out the exposure).
        # -1 is what EIGER1 answers, and no series' id.
        reply = {"sequence id": -1}
        return reply if mode == "inte" else after(train.done, reply)

    def signal(self, kind: str, seconds: float | None = None) -> bool:
        """Give the detector an external signal.

        Parameters
        ----------
        kind : str
            `pulse` (trigger mode exts) or `gate` (exte).
        seconds : float or None
            How long the gate is open, in s.

        Returns
        -------
        bool
            Whether the detector took it: it does not unless it waits for that kind.
        """
        with self.machine.lock:
            if self.state is not State.READY:
                return False
            if _SIGNAL_OF_MODE.get(self.config["trigger_mode"]) != kind:
                return False
            self._start(self.config["count_time"] if seconds is None else seconds)
            return True

    def _start(self, exposure: float) -> Train:
        if self._acquisition is None:
            raise RefusedError("trigger: no series is armed")
        images = self._armed_values()["nimages"]
        train = Train(images, exposure, self.config["frame_time"])
        self._acquisition.trigger(train)
        return train

    def _ending_command(self, command: str) -> Any:
        def request(_argument: Argument) -> "Future[Any]":
            with self.machine.lock:
                if self.state is State.CONFIGURE:
                    # Arming, or a slow put: it is cut short and the command comes next.
                    self.machine.interrupt()
                    if self._acquisition is not None and command == "abort":
                        self._acquisition.end(Ending.DROP_ALL)
                    return self.machine.submit(self._end, command)
                return self._end(command)

        return request

    def _end(self, command: str) -> "Future[Any]":
        with self.machine.lock:
            self._require(command, State.IDLE, State.READY, State.ACQUIRE)
            reply = {"sequence id": self._series_id}
            acquisition = self._acquisition
            if acquisition is None:
                nothing: Future[None] = Future()
                nothing.set_result(None)
                return after(nothing, reply)
            acquisition.end(_ENDINGS[command])
        return after(acquisition.closed, reply, lambda: acquisition.failure)

    def _status_update(self, _argument: Argument) -> None:
        # Measured values cannot be refreshed while exposing (API reference 1.6).
        with self.machine.lock:
            if self.state is not State.ACQUIRE:
                self._measured = local_time()

    def _wait(self, _argument: Argument) -> "Future[Any] | None":
        with self.machine.lock:
            acquisition = self._acquisition
        return None if acquisition is None else after(acquisition.closed, None)

    # -- states -----------------------------------------------------------------------------------

    def close(self) -> None:
        """End what is under way, so that nobody waits for it any longer."""
        self._end_everything()
        self.machine.close()
        # A series that the worker was still arming.
        self._end_everything()
        if self._acquisition is not None:
            wait([self._acquisition.closed], timeout=LONGEST_CLOSE)

    def _require(self, command: str, *states: State) -> None:
        if self.state not in states:
            raise RefusedError(f"{command} is not possible in state {self.state}")

    def _report(self, acquisition: Acquisition) -> None:
        if acquisition is self._acquisition:
            if acquisition.failure:
                self._error = acquisition.failure
            self._enter(_STATE_OF[acquisition.phase])

    def _enter(self, state: State) -> None:
        if state is not self.state:
            log.info("state %s -> %s", self.state, state)
            self.state = state
            self.states.append(state)
