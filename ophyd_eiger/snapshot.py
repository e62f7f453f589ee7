"""The settings as they were last known, to be put back after a detector lost them."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ophyd.utils.errors import WaitTimeoutError

from ophyd_eiger import settings
from ophyd_eiger.array_signals import EigerArray
from ophyd_eiger.configuration import Configuration
from ophyd_eiger.configuration_files import NOT_SETTINGS
from ophyd_eiger.errors import EigerError
from ophyd_eiger.settings import Report
from ophyd_eiger.signals import EigerSignal
from ophyd_eiger.subsystems import Subsystem

logger = logging.getLogger(__name__)


class Snapshot:
    """Every setting that can be written, as it was read last.

    Parameters
    ----------
    configuration : Configuration
        Whose settings.
    originals : mapping
        By signal what a setting is to be, where a staging has put something else for a while.

    Attributes
    ----------
    values : dict
        What each setting was, by signal.
    arrays : dict
        The flat fields and masks that were read or put from here and still held, by signal.
    """

    def __init__(self, configuration: Configuration, originals: Mapping[EigerSignal, Any]) -> None:
        self.values: dict[EigerSignal, Any] = {}
        self.arrays: dict[EigerArray, np.ndarray] = {}
        for name, subsystem in configuration.subsystems.items():
            found = {signal.key: signal for signal in _settings_of(subsystem)}
            values = {key: originals.get(signal, signal.last) for key, signal in found.items()}
            if name == "detector":
                values = settings.without_followers(values)
            self.values.update({found[key]: value for key, value in values.items()})
            self.arrays.update(
                {
                    signal: signal.last
                    for signal in subsystem.signals
                    if isinstance(signal, EigerArray) and signal.has_value
                }
            )

    def restore(self, configuration: Configuration, timeout: float) -> Report | None:
        """Put what differs, in a safe order, within `timeout` s; return what was done.

        Raises
        ------
        EigerError
            If a setting could not be put; those after it were not.
        """
        wanted = {s: value for s, value in self.values.items() if s.served is not False}
        if not wanted:
            return None
        configuration.set(wanted, exact_is_enough=True).wait(timeout)
        return configuration.last

    def restore_arrays(self, timeout: float) -> tuple[list[str], list[str]]:
        """Put back the flat fields and masks that were put from here, after the settings.

        Parameters
        ----------
        timeout : float
            For each, in s.

        Returns
        -------
        put, lost : list of str
            The names of those that were put back, and of those that are not as they were: found
            there by this device, or refused now.
        """
        put, lost = [], []
        for signal, kept in self.arrays.items():
            try:
                if np.array_equal(signal.get(), kept):
                    continue
                if not signal.put_at:
                    lost.append(signal.name)
                    continue
                signal.set(kept).wait(timeout)
                put.append(signal.name)
            except (EigerError, WaitTimeoutError) as error:
                logger.warning("%s: not put back: %s", signal.name, error)
                lost.append(signal.name)
        return put, lost

    def gone(self) -> list[str]:
        """Return the names of settings that the DCU does not have any more."""
        return [signal.name for signal in self.values if signal.served is False]


def _settings_of(subsystem: Subsystem) -> Iterator[EigerSignal]:
    for signal in subsystem.signals:
        if signal.section != "config" or isinstance(signal, EigerArray):
            continue
        known = signal.dcu_metadata is not None and signal.dcu_metadata.writable
        # What has no value has none that could be put.
        kept = known and signal.last is not None and settings.is_plain(signal.last)
        if kept and signal.key not in NOT_SETTINGS:
            yield signal
