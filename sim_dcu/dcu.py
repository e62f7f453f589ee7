"""A whole DCU: its subsystems, and who may be asked what when.

Pure Python: no HTTP, no event loop. What takes time returns a `concurrent.futures.Future`.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sim_dcu.beam import DEFAULT_BEAM, Beam
from sim_dcu.clock import Clock
from sim_dcu.detector import Detector
from sim_dcu.faults import Faults
from sim_dcu.filestore import CAPACITY, FileStore, Filewriter
from sim_dcu.firmware import firmware_of
from sim_dcu.models import MODELS
from sim_dcu.monitor import Monitor
from sim_dcu.parameters import MissingError, RefusedError, UnknownResourceError
from sim_dcu.scene.recording import recording
from sim_dcu.scene.sensor import Planted
from sim_dcu.series_control import SIGNAL_OF_MODE
from sim_dcu.states import State
from sim_dcu.stream import Stream
from sim_dcu.subsystem import Argument, Machine, Subsystem
from sim_dcu.system import ApiLog, System
from sim_dcu.tables.eiger2 import OLDER_API_VERSIONS
from sim_dcu.tables.interfaces import interfaces_of


class Dcu:
    """A simulated detector control unit.

    Parameters
    ----------
    model : str
        A name of `sim_dcu.models.MODELS`.
    folder : Path
        Where the files go; made where it does not exist.
    clock : Clock
        Waits for the detector.
    seed : int
        Of every random number, 0 or more.
    initialized : bool
        Whether to start in state idle instead of na.
    api_version : str or None
        The version number it answers with, beside those of its generation; None is the
        generation's own.
    data_quota : int
        What the files may take together, in bytes.
    beam : Beam
        What shines on the detector.

    Attributes
    ----------
    faults : Faults
        Those on request.
    """

    def __init__(
        self,
        model: str,
        folder: Path,
        clock: Clock,
        *,
        seed: int = 0,
        initialized: bool = False,
        api_version: str | None = None,
        data_quota: int = CAPACITY,
        beam: Beam = DEFAULT_BEAM,
    ):
        if model not in MODELS:
            raise ValueError(f"model {model!r} is not one of {', '.join(MODELS)}")
        if seed < 0:
            raise ValueError(f"seed {seed} is negative")
        self.firmware = firmware_of(MODELS[model], api_version)
        self.faults = Faults()
        self._machine = Machine(clock, self.firmware, self.faults)
        if data_quota < 1:
            raise ValueError(f"data quota {data_quota} is not a number of bytes")
        self.store = FileStore(folder, data_quota)
        self.filewriter = Filewriter(self._machine, self.store)
        interfaces = interfaces_of(MODELS[model])
        self.monitor = Monitor(self._machine, interfaces)
        self.stream = Stream(self._machine, interfaces)
        self.detector = Detector(self._machine, MODELS[model], seed, self.filewriter)
        self.detector.series.takers = (self.monitor, self.stream)
        self.set_beam(beam)
        self.system = System(self._machine, interfaces, ApiLog(), self._restart)
        self._subsystems: dict[str, Subsystem] = {
            "detector": self.detector,
            "filewriter": self.filewriter,
            "monitor": self.monitor,
            "stream": self.stream,
            "system": self.system,
        }
        if initialized:
            self.detector.start_initialized()

    def subsystem(self, name: str) -> Subsystem:
        """Return a subsystem, for whoever looks behind the API."""
        return self._subsystems[name]

    def keys(self, subsystem: str, section: str | None = None) -> list[str]:
        """Return the names of the sections of a subsystem, or of what is in one of them."""
        chosen = self._open_to(subsystem)
        if section is None:
            # The monitor's and the file writer's own sections are not among the tasks.
            return ["command", "config", "status"]
        if section == "config":
            self._check_initialized(subsystem, "keys")
        return chosen.keys(section)

    def read_config(self, subsystem: str, key: str) -> dict[str, Any]:
        """Return the reply of a GET of config `key`, or of the whole config for an empty key."""
        chosen = self._open_to(subsystem)
        self._check_initialized(subsystem, key or "config")
        return chosen.read_config(key) if key else chosen.read_whole_config()

    def read_status(self, subsystem: str, key: str, version: str = "") -> dict[str, Any]:
        """Return the reply of a GET of status `key`, or of every status for an empty key.

        The detector's state is always told.
        """
        if (subsystem, key) == ("detector", "state"):
            return self.detector.read_status(key)
        chosen = self._open_to(subsystem)
        self._check_initialized(subsystem, key or "status")
        reply = chosen.read_status(key) if key else chosen.read_whole_status()
        is_older = version in OLDER_API_VERSIONS and self.firmware.bytes_free
        if subsystem != "filewriter" or not is_older:
            return reply
        # The room is in KB at these versions whatever the generation (areaDetector).
        if key == "buffer_free":
            return _in_kb(reply)
        return reply if key else {**reply, "buffer_free": _in_kb(reply["buffer_free"])}

    def put_config(self, subsystem: str, key: str, value: object) -> Any:
        """Set config `key`.

        Returns
        -------
        list of str, None, or a Future of these
            The names of what changed, None where the reply is empty.
        """
        return self._open_to(subsystem).put_config(key, value)

    def put_whole_config(self, subsystem: str, entries: Mapping[str, object]) -> Any:
        """Set a whole config; returns as `put_config` does."""
        return self._open_to(subsystem).put_whole_config(entries)

    def delete_config(self, subsystem: str, key: str) -> Any:
        """Bring the factory's value of config `key` back; returns as `put_config` does."""
        return self._open_to(subsystem).delete_config(key)

    def command(self, subsystem: str, name: str, argument: Argument = lambda: None) -> Any:
        """Run a command.

        Parameters
        ----------
        subsystem, name : str
            Which one.
        argument : callable
            Returns the value sent with it, or None; called only by a command that takes one.

        Returns
        -------
        dict, None, or a Future of these (or of another such Future)
            The reply; None where it is empty.
        """
        return self._open_to(subsystem).run(name, argument)

    def files(self, version: str) -> Any:
        """Return the reply of a GET of the published files: before API 1.8 a bare list of names."""
        filewriter = self._open_to("filewriter")
        if version in OLDER_API_VERSIONS or "files" not in filewriter.keys("status"):
            return self.store.names()
        return filewriter.read_status("files")

    def version(self, subsystem: str) -> dict[str, str]:
        """Return the API version of a subsystem."""
        self._open_to(subsystem)
        return {"value": self.firmware.api_version, "value_type": "string"}

    def image(self, series_id: int, number: int) -> np.ndarray:
        """Return the image (from 1) that the newest series of that id must hold; (y, x), counts.

        Raises
        ------
        KeyError, IndexError
            Where no such series was armed, or it has no such image.
        """
        return self.detector.series.image(series_id, number)

    def planted(self, series_id: int) -> Planted:
        """Return what is planted in the pixels that the newest series of that id reads out.

        Raises
        ------
        KeyError
            Where no such series was armed.
        """
        return self.detector.series.planted(series_id)

    @property
    def beam(self) -> Beam:
        """What shines on the detector from the next arm on."""
        with self.lock:
            return self.detector.series.beam

    def set_beam(self, beam: Beam) -> None:
        """Have another beam shine on the detector from the next arm on.

        Raises
        ------
        ValueError
            Where its scene is a file without images, or there is nothing to read it with.
        """
        if beam.is_recorded:
            recording(beam.scene)
        with self.lock:
            self.detector.series.beam = beam
            # As much is to be made ready as after a change of the configuration.
            self.detector.series.note_change()

    def pulse(self) -> bool:
        """Give an external trigger (exts); return whether the detector took it."""
        return self.detector.series.signal("pulse")

    def gate(self, seconds: float) -> bool:
        """Open an external gate for `seconds` (exte); return whether the detector took it.

        Raises
        ------
        ValueError
            Where `seconds` is not a finite number of 0 or more.
        """
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"a gate of {seconds} s is not a finite number of 0 or more")
        return self.detector.series.signal("gate", seconds)

    def input_state(self) -> str:
        """Return what decides whether a signal at the trigger input is taken, as text."""
        with self.lock:
            mode = self.detector.config["trigger_mode"]
            text = f"state is {self.detector.state.now}, trigger_mode is {mode}"
            if SIGNAL_OF_MODE.get(mode) == "gate":
                text += f", the shortest gate is {self.detector.series.shortest_gate:g} s"
            return text

    @property
    def lock(self) -> "threading.RLock":
        """The one lock under which values are read and set."""
        return self._machine.lock

    def close(self) -> None:
        """End every wait and thread; nobody asks the DCU any more."""
        self.detector.close()
        self.filewriter.late.drop()
        # Whoever still waits for a fault to end is answered.
        self.faults.clear()
        self.store.close()

    def log_text(self) -> str:
        """Return the log of requests."""
        self._open_to("system")
        return self.system.log.text()

    def log_tarball(self) -> bytes:
        """Return the log that was packed last."""
        self._open_to("system")
        return self.system.tarball()

    def images_open(self) -> Monitor:
        """Return the monitor, for a question about its images."""
        self._open_to("monitor")
        return self.monitor

    def power_up(self, files_are_lost: bool) -> None:
        """Be as after power was off and on; files that were not whole then are lost."""
        with self.filewriter.losing_power():
            self.detector.power_up().result()
        self.filewriter.reset()
        self.monitor.reset()
        self.stream.reset()
        self.filewriter.late.drop()
        if files_are_lost:
            self.store.clear(folders=True)

    def _restart(self, files_are_lost: bool) -> Any:
        self.filewriter.reset()
        self.monitor.reset()
        self.stream.reset()
        if files_are_lost:
            self.filewriter.late.drop()
            self.store.clear(folders=False)
        return self.detector.restart()

    def _open_to(self, subsystem: str) -> Subsystem:
        if subsystem not in self._subsystems:
            raise UnknownResourceError(f"Subsystem {subsystem} does not exist")
        # "No other API operation may be performed until successful completion" (API reference 1.3).
        if self.detector.state.now is State.INITIALIZE:
            raise RefusedError("not possible in state initialize")
        return self._subsystems[subsystem]

    def _check_initialized(self, subsystem: str, key: str) -> None:
        # Until then the DCU does not know its detector; the text is the reference's own.
        if subsystem == "detector" and self.detector.state.now is State.NA:
            raise MissingError(f"Parameter {key} does not exist")


def _in_kb(reply: Mapping[str, Any]) -> dict[str, Any]:
    return {**reply, "value": reply["value"] // 1024}
