"""What keeps an EIGER well, at the prompt: a look before a series, a watch, and a way back."""

from typing import Any, cast

from ophyd.device import Staged

from ophyd_eiger.care import Care
from ophyd_eiger.destination import Destination
from ophyd_eiger.device import EigerDevice
from ophyd_eiger.preflight import Preflight
from ophyd_eiger.recovery import Recovery, RecoveryStatus
from ophyd_eiger.worker import EigerStatus


class TendedDevice(EigerDevice):
    """An EIGER that tells whether its next series is possible, and can be brought back.

    Attributes
    ----------
    care : Care
        What tells whether it is well: a baseline, a table, a watch.
    recovery : Recovery
        What `recover` climbs, as something that a plan can set.
    """

    def __init__(self, address: str, *, name: str, **kwargs: Any) -> None:
        self._was_connected = False
        super().__init__(address, name=name, **kwargs)
        states = self._acquisition.states
        self.care = Care(states, self.stream)
        self.recovery = Recovery(
            states,
            self.system,
            self.configuration,
            refresh=self.refresh,
            was_connected=lambda: self._was_connected,
            originals=lambda: self._acquisition.originals,
            unstage=self._unstage_if_staged,
        )

    def _after_command(self, subsystem: str, command: str) -> None:
        super()._after_command(subsystem, command)
        if (subsystem, command) == ("detector", "initialize") and not self.recovery.is_under_way:
            self.recovery.forget()

    def refresh(self) -> None:
        """Read every resource but the big arrays anew from the DCU; errors as of `connect`."""
        super().refresh()
        self._was_connected = True

    def preflight(self) -> Preflight:
        """Ask whether the next series can be taken as it is set up now; nothing is changed.

        Does it fit on the DCU and on the disk at home, is it fast enough, is it allowed. `stage`
        looks at the same, refuses what cannot be, and logs what may go wrong. A scan's number of
        points is not known before: it is about what one arm takes.

        Returns
        -------
        Preflight
            Prints as a table; true if nothing stands against it.

        Raises
        ------
        DcuError
            If the DCU cannot be asked.
        """
        self._connect_once()
        acquisition = self._acquisition
        staging = acquisition.staging
        if staging is None:
            where = Destination.of(self.name, self.directory, self.file_prefix).directory
            policy = self.file_policy
        else:
            where, policy = staging.directory, staging.policy
        return acquisition.clearance.report(staging, where, policy, acquisition.deliveries)

    def recover(self, up_to: str = "restart") -> RecoveryStatus:
        """Bring the detector back by the mildest means that helps; files on the DCU stay.

        What is staged is unstaged; then cancel, abort, disarm, initialize, and a restart of the
        DCU's software with initialize after it, until the detector is idle and can be used. After
        the last two the settings are put back as they were read last.

        Parameters
        ----------
        up_to : {"cancel", "abort", "disarm", "initialize", "restart"}
            The highest rung.

        Returns
        -------
        RecoveryStatus
            Tells which rung it is at, fails with a `RecoveryError` if none helped, and has the
            `report`, which prints as a table.
        """
        return self.recovery.set(up_to)

    def destroy(self) -> None:
        """End what runs, the device's threads and its connections; files stay on the DCU."""
        self.recovery.close()
        self.care.stop()
        super().destroy()

    def _unstage_if_staged(self) -> EigerStatus | None:
        return None if self._staged == Staged.no else cast("EigerStatus", self.unstage())
