"""The detector subsystem: the state machine, from initialize to the last image.

Knows nothing of HTTP; the exposures themselves are `acquisition`'s.
"""

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from sim_dcu.clock import local_time, local_time_with_zone
from sim_dcu.detector_config import DetectorConfig
from sim_dcu.filestore import Filewriter
from sim_dcu.high_voltage import HighVoltage
from sim_dcu.models import Model
from sim_dcu.parameters import ApiError, MissingError, RefusedError, UnknownPathError
from sim_dcu.sensors import Sensors
from sim_dcu.series_control import SeriesControl
from sim_dcu.states import DetectorState, State
from sim_dcu.status import Status
from sim_dcu.subsystem import Argument, Command, Machine, Subsystem


class Detector(Subsystem):
    """The detector subsystem.

    Where the references are silent or at odds, this is what it does: a config put needs state
    idle, and is refused with 400 while armed or exposing; initialize of an EIGER1 restores the
    factory's pixel mask too. What it does with a series is `SeriesControl`'s.

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

    Attributes
    ----------
    sensors : Sensors
        What it measures of itself.
    """

    def __init__(self, machine: Machine, model: Model, seed: int, filewriter: Filewriter):
        self.model = model
        self.state = DetectorState()
        tables = machine.firmware.tables
        self._settings = DetectorConfig(model, machine.firmware, seed)
        self.series = SeriesControl(
            machine, self.state, self._settings, filewriter, model.durations, seed
        )
        self.sensors = Sensors(
            tables.LINKS[: model.links], filewriter.free_percent, seed, machine.faults
        )
        self._voltage = HighVoltage(machine)
        commands: dict[str, Command] = {
            "initialize": self._request_initialize,
            "status_update": self._status_update,
            "hv_reset": self._hv_reset,
            "check_connections": self._check_connections,
            **self.series.commands,
        }
        super().__init__(
            machine,
            self._settings.store,
            tables.detector_status(model),
            {name: commands[name] for name in tables.DETECTOR_COMMANDS},
            not_fitted=tables.LINKS[model.links :],
        )
        self._filewriter = filewriter
        self._measured = self.sensors.measure()
        self._measured_at = local_time()

    # -- reading ----------------------------------------------------------------------------------

    def read_config(self, key: str) -> dict[str, Any]:
        """Return the reply of a GET of config `key`; an array stays an array."""
        return super().read_config(self._settings.name(key))

    def status_value(self, key: str) -> Any:
        """Return the value of status resource `key`."""
        status = self._status[key]
        if status.sensor:
            if self.machine.firmware.measures_always:
                self._measure()
            return self._measured[status.sensor]
        if key == "error":
            return self._errors()
        values = {
            "state": str(self.state.now),
            "time": local_time_with_zone(),
            "high_voltage/state": self._voltage.state,
            "series_unique_id": self.series.unique_id,
        }
        return values[key]

    def _errors(self) -> list[str]:
        # The status resources that are critical, and why the state is error. An EIGER2's list is
        # always empty (API reference 1.8).
        if self.machine.firmware.measures_always:
            return []
        critical = [
            key
            for key, status in self._status.items()
            if status.sensor and status.is_critical(self._measured[status.sensor])
        ]
        return ([self.state.fault] if self.state.fault else []) + critical

    def status_time(self, status: Status) -> str:
        """Return when the value of `status` was taken."""
        return self._measured_at if status.sensor else super().status_time(status)

    def _measure(self) -> None:
        # "The values are only updated if there is no actual acquisition active" (API reference
        # 1.3, 2): they stand still while exposing.
        if self.state.now is not State.ACQUIRE:
            self._measured = self.sensors.measure()
            self._measured_at = local_time()

    def _status_update(self, _argument: Argument) -> None:
        with self.machine.lock:
            self._measure()

    # -- initialize and restart -------------------------------------------------------------------

    def _request_initialize(self, _argument: Argument) -> "Future[Any]":
        self.series.end_all()
        return self.machine.submit(self.initialize)

    def initialize(self) -> dict[str, Any] | None:
        """Bring everything to its default and the detector to state idle; return the reply."""
        self._reset(State.INITIALIZE, self.model.durations.initialize, State.IDLE)
        return self.machine.firmware.initialize_reply

    def restart(self) -> "Future[Any]":
        """Restart the acquisition service: the state is na afterwards."""
        self.series.end_all()
        return self.machine.submit(self._reset, State.NA, self.model.durations.restart, State.NA)

    def power_up(self) -> "Future[Any]":
        """Be as after power-up: what was under way is lost and the state is na."""
        self.series.end_all()

        def start_anew() -> None:
            self._reset(State.NA, 0.0, State.NA)
            self.series.unique_id = ""

        return self.machine.submit(start_anew)

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
            self._settings.reset()
            self._filewriter.forget_failure()
            self.machine.faults.forget_series()
            self.series.forget()
            self.state.enter(then)
            self._voltage.switch(then is State.IDLE)
            self._measure()

    def _check_connections(self, _argument: Argument) -> "Future[Any]":
        with self.machine.lock:
            self.state.require("check_connections", State.IDLE)
        return self.machine.submit(self._read_links)

    def _read_links(self) -> list[str]:
        # The detector has to be initialized afterwards (API reference 1.8).
        with self.machine.lock:
            self.state.require("check_connections", State.IDLE)
            self.state.enter(State.NA)
            return list(self.sensors.links.values())

    def _hv_reset(self, argument: Argument) -> "Future[Any]":
        seconds = self._voltage.duration(argument())
        with self.machine.lock:
            self.state.require("hv_reset", State.IDLE)
        return self.machine.submit(self._voltage.reset, seconds, self.state)

    # -- commands ---------------------------------------------------------------------------------

    def run(self, command: str, argument: Argument) -> Any:
        """Run `command`; return its reply or a future of it.

        Raises
        ------
        UnknownPathError
            Where the firmware takes no body and there is one.
        """
        if command in self._commands and not self.machine.firmware.takes_any_body:
            self._check_body(command, argument)
        return super().run(command, argument)

    def _check_body(self, command: str, argument: Argument) -> None:
        # A fault of real EIGER2 that its users mirror: a body that is not wanted makes the path
        # unknown. Only a gated trigger and hv_reset have a value.
        with self.machine.lock:
            gated = command == "trigger" and self.config["trigger_mode"] == "inte"
        try:
            given = argument()
        except ApiError as error:
            raise UnknownPathError(f"detector/command/{command}") from error
        if given is not None and not (gated or command == "hv_reset"):
            raise UnknownPathError(f"detector/command/{command}")

    # -- config -----------------------------------------------------------------------------------

    def put_config(self, key: str, value: object) -> "Future[list[str]]":
        """Set config `key` to `value` once no other change is under way.

        Returns
        -------
        Future of list of str
            The names of what changed or may have, sorted.
        """
        name = self._settings.name(key)
        return self.machine.submit(
            self._put, name, lambda: self._settings.change(name, self._settings.check(name, value))
        )

    def put_whole_config(self, entries: Mapping[str, object]) -> "Future[list[str]]":
        """Set every entry that can be set, or none where one is refused."""
        named = {self._settings.name(key): value for key, value in entries.items()}
        return self.machine.submit(self._put, "config", lambda: self._settings.change_all(named))

    def delete_config(self, key: str) -> "Future[list[str]]":
        """Bring the factory's mask back."""
        return self.machine.submit(self._put, key, lambda: self._settings.delete(key))

    def _put(self, key: str, work_out: Any) -> list[str]:
        interrupt = self.machine.begin_wait()
        with self.machine.lock:
            if self.state.now is State.NA:
                raise MissingError(f"Parameter {key} does not exist")
            changed, names = work_out()
            if self.state.now is not State.IDLE:
                way_out = "initialize" if self.state.now is State.ERROR else "disarm"
                raise RefusedError(
                    f"{key} cannot be put in state {self.state.now}; {way_out} first"
                )
            rules = self.machine.firmware.rules
            slow = key in rules.slow or (key == "config" and not rules.slow.isdisjoint(changed))
            if slow:
                self.state.enter(State.CONFIGURE)
        durations = self.model.durations
        self.machine.clock.wait(durations.slow_put if slow else durations.put, interrupt)
        with self.machine.lock:
            self._settings.apply(changed)
            if changed:
                self.series.note_change()
            # (Not where the files of the series before have failed meanwhile.)
            if self.state.now is State.CONFIGURE:
                self.state.enter(State.IDLE)
        return names

    def close(self) -> None:
        """End what is under way, so that nobody waits for it any longer."""
        self.series.close()
