"""What an EIGER1 does with a series: arm it, trigger it, end it.

Between the commands and `acquisition`, which exposes. Knows nothing of HTTP or of config puts.
"""

from concurrent.futures import Future, wait
from types import MappingProxyType
from typing import Any

import numpy as np

from sim_dcu import dependencies, oracle
from sim_dcu.acquisition import Acquisition, Ending, Phase, Train
from sim_dcu.clock import local_time
from sim_dcu.filestore import Filewriter
from sim_dcu.images import ImageSource
from sim_dcu.models import Durations
from sim_dcu.parameters import ParameterStore, RefusedError
from sim_dcu.series import ArmedSeries
from sim_dcu.states import DetectorState, State
from sim_dcu.subsystem import Argument, Command, Machine, after

# Series whose oracle stays at hand; they share their arrays.
REMEMBERED_SERIES = 10_000
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
_SIGNAL_OF_MODE = {"exts": "pulse", "exte": "gate"}


class SeriesControl:
    """The series of one detector.

    Where the references are silent or at odds, this is what it does: arm needs state idle; a
    trigger that waits when another connection ends its series replies 200 as if it had ended by
    itself; abort, cancel and disarm are refused in states na and error, which only initialize
    leaves; a disarm, also in idle, replies when the files are closed.

    Parameters
    ----------
    machine : Machine
        Shared with the other subsystems.
    state : DetectorState
        The detector's.
    config : ParameterStore
        The detector's.
    filewriter : Filewriter
        Takes the images.
    durations : Durations
        Of arming.
    seed : int
        Of the images.
    """

    def __init__(
        self,
        machine: Machine,
        state: DetectorState,
        config: ParameterStore,
        filewriter: Filewriter,
        durations: Durations,
        seed: int,
    ):
        self.machine = machine
        self.acquisition: Acquisition | None = None
        self._state = state
        self._config = config
        self._filewriter = filewriter
        self._durations = durations
        self._seed = seed
        self._series_id = 0
        self._changed_since_arm = True
        self._armed: dict[int, ArmedSeries] = {}

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
        self._series_id = 0
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
            wait([self.acquisition.closed], timeout=LONGEST_CLOSE)

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

    def _arm(self) -> dict[str, int]:
        interrupt = self.machine.begin_wait()
        with self.machine.lock:
            self._state.require("arm", State.IDLE)
            dependencies.check_series(self._armed_values())
            self._state.enter(State.CONFIGURE)
            changed = self._changed_since_arm
            seconds = self._durations.arm if changed else self._durations.arm_again
        try:
            if self.acquisition is not None:
                self.acquisition.closed.result()
            if self.acquisition is not None and self.acquisition.failure:
                raise RefusedError(self.acquisition.failure)
            if not self.machine.clock.wait(seconds, interrupt):
                raise RefusedError("arm was interrupted by another command")
            series_id = self._open_series()
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

    def _open_series(self) -> int:
        with self.machine.lock:
            self._config.update({"data_collection_date": local_time()})
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
            self._changed_since_arm = False
            self.acquisition = Acquisition(
                series.images, source, sinks, self.machine.clock, self.machine.lock, self._report
            )
            self._state.enter(State.READY)
        return series.series_id

    def _armed_values(self) -> dict[str, Any]:
        values = self._config.values()
        if values["trigger_mode"] in ("inte", "exte"):
            # One image a trigger or gate, whatever nimages says (user manual of EIGER2).
            values["nimages"] = 1
        return values

    def _trigger(self, argument: Argument) -> Any:
        with self.machine.lock:
            self._state.require("trigger", State.READY)
            mode = self._config["trigger_mode"]
            if mode in _SIGNAL_OF_MODE:
                raise RefusedError(f"trigger: trigger_mode {mode} waits for a signal")
            exposure = self._config["count_time"]
            if mode == "inte" and (given := argument()) is not None:
                exposure = self._config.accepted("count_time", given)
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
            if self._state.now is not State.READY:
                return False
            if _SIGNAL_OF_MODE.get(self._config["trigger_mode"]) != kind:
                return False
            self._start(self._config["count_time"] if seconds is None else seconds)
            return True

    def _start(self, exposure: float) -> Train:
        if self.acquisition is None:
            raise RefusedError("trigger: no series is armed")
        images = self._armed_values()["nimages"]
        train = Train(images, exposure, self._config["frame_time"])
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
            reply = {"sequence id": self._series_id}
            acquisition = self.acquisition
            if acquisition is None:
                nothing: Future[None] = Future()
                nothing.set_result(None)
                return after(nothing, reply)
            acquisition.end(_ENDINGS[command])
        return after(acquisition.closed, reply, lambda: acquisition.failure)

    def _wait(self, _argument: Argument) -> "Future[Any] | None":
        with self.machine.lock:
            acquisition = self.acquisition
        return None if acquisition is None else after(acquisition.closed, None)

    def _report(self, acquisition: Acquisition) -> None:
        if acquisition is self.acquisition:
            if acquisition.phase is Phase.FAILED:
                self._state.fail(acquisition.failure)
            else:
                self._state.enter(_STATE_OF[acquisition.phase])
