"""The detector subsystem: the state machine, from initialize to the last image.

Knows nothing of HTTP; the exposures themselves are `acquisition`'s.
"""

from concurrent.futures import Future
from typing import Any

import numpy as np

from sim_dcu import dependencies
from sim_dcu.clock import local_time, local_time_with_zone
from sim_dcu.filestore import Filewriter
from sim_dcu.geometry import default_flatfield, default_pixel_mask
from sim_dcu.models import Model
from sim_dcu.parameters import MissingError, ParameterStore, RefusedError
from sim_dcu.series_control import SeriesControl
from sim_dcu.states import DetectorState, State
from sim_dcu.subsystem import Argument, Machine, Subsystem
from sim_dcu.tables import eiger1
from sim_dcu.tables.eiger1 import Status


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


class Detector(Subsystem):
    """The detector subsystem.

    Where the references are silent or at odds, this is what it does: a config put needs state
    idle, and is refused with 400 while armed or exposing; initialize restores the factory's pixel
    mask too. What it does with a series is `SeriesControl`'s.

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
        self.state = DetectorState()
        self._flatfield = _read_only(default_flatfield(model.modules_x, model.modules_y))
        mask = _read_only(default_pixel_mask(model.modules_x, model.modules_y, seed))
        config = ParameterStore(eiger1.detector_config(model, self._flatfield, mask))
        self.series = SeriesControl(machine, self.state, config, filewriter, model.durations, seed)
        super().__init__(
            machine,
            config,
            eiger1.detector_status(model),
            {
                "initialize": self._request_initialize,
                "status_update": self._status_update,
                **self.series.commands,
            },
            not_fitted=eiger1.LINKS[model.links :],
        )
        self._filewriter = filewriter
        self._measured = local_time()

    # -- reading ----------------------------------------------------------------------------------

    def read_config(self, key: str) -> dict[str, Any]:
        """Return the reply of a GET of config `key`; an array stays an array."""
        return super().read_config(eiger1.ALIASES.get(key, key))

    def status_value(self, key: str) -> Any:
        """Return the value of status resource `key`."""
        values = {
            "state": str(self.state.now),
            "error": [self.state.fault] if self.state.fault else [],
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
        self.series.end_all()
        return self.machine.submit(self.initialize)

    def initialize(self) -> None:
        """Bring everything to its default and the detector to state idle."""
        self._reset(State.INITIALIZE, self.model.durations.initialize, State.IDLE)

    def restart(self) -> "Future[Any]":
        """Restart the acquisition service: the state is na afterwards."""
        self.series.end_all()
        return self.machine.submit(self._reset, State.NA, self.model.durations.restart, State.NA)

    def _reset(self, meanwhile: State, seconds: float, then: State) -> None:
        self.series.leave()
        interrupt = self.machine.begin_wait()
        with self.machine.lock:
            self.state.enter(meanwhile)
        self.machine.clock.wait(seconds, interrupt)
        self._set_defaults(then)

    def start_initialized(self) -> None:
        """Be initialized from the start, without its wait."""
        self.state.enter(State.INITIALIZE)
        self._set_defaults(State.IDLE)

    def _set_defaults(self, then: State) -> None:
        with self.machine.lock:
            self.config.reset()
            self.config.update(dependencies.derived(self.config.values()))
            self._filewriter.forget_failure()
            self.series.forget()
            self._measured = local_time()
            self.state.enter(then)

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
            if self.state.now is State.NA:
                raise MissingError(f"Parameter {key} does not exist")
            value = self.config.accepted(key, value)
            if self.state.now is not State.IDLE:
                raise RefusedError(f"{key} cannot be put in state {self.state.now}; disarm first")
            if isinstance(value, np.ndarray):
                value = _read_only(value)
            changed = dependencies.settled(self.config.values(), key, value, self._flatfield)
            if slow:
                self.state.enter(State.CONFIGURE)
        durations = self.model.durations
        self.machine.clock.wait(durations.slow_put if slow else durations.put, interrupt)
        with self.machine.lock:
            self.config.update(changed)
            if changed:
                self.series.note_change()
            # (Not where the files of the series before have failed meanwhile.)
            if self.state.now is State.CONFIGURE:
                self.state.enter(State.IDLE)
        return dependencies.named_in_reply(key, changed)

    def _status_update(self, _argument: Argument) -> None:
        # Measured values cannot be refreshed while exposing (API reference 1.6).
        with self.machine.lock:
            if self.state.now is not State.ACQUIRE:
                self._measured = local_time()

    def close(self) -> None:
        """End what is under way, so that nobody waits for it any longer."""
        self.series.close()
