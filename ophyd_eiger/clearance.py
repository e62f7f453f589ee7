"""Asks what a pre-flight check needs to know: the DCU, the disk, and the files that came home.

Of the DCU it asks for `filewriter status/buffer_free` alone, and where that is too little for the
sizes of the files there; the settings were read before.
What comes of it is `ophyd_eiger.preflight`'s to say.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ophyd_eiger.arming import Arming
from ophyd_eiger.deliveries import Delivery
from ophyd_eiger.errors import DcuError, NotServedError, RefusedError, ReplyError, StateError
from ophyd_eiger.points import Staging
from ophyd_eiger.policy import FilePolicy
from ophyd_eiger.preflight import DCU, OK, REFUSE, WARN, Check, Facts, Preflight, checks
from ophyd_eiger.replies import number_of
from ophyd_eiger.required import require_whole
from ophyd_eiger.signals import EigerSignal
from ophyd_eiger.states import States
from ophyd_eiger.triggering import Scheme
from ophyd_eiger.writing import free_at

logger = logging.getLogger(__name__)

# So many files on the DCU are asked for their sizes, which takes a request each.
MOST_SIZES = 100


class Clearance:
    """Sees before arm that a series is possible.

    Parameters
    ----------
    states : States
        Asks the detector.
    arming : Arming
        Knows what a series is made of.
    """

    def __init__(self, states: States, arming: Arming) -> None:
        self.states = states
        self.name = states.name
        self.arming = arming
        # Bytes an image of the newest files, by the images' shape and type.
        self._seen: dict[tuple[tuple[int, int], np.dtype], float] = {}
        self._told: set[tuple[str, Scheme]] = set()

    def begin(self, before: Iterable[Delivery]) -> None:
        """Begin a staging: learn from the files of the one before."""
        self._learn(before)
        self._told = set()

    def require(self, scheme: Scheme, directory: Path, policy: FilePolicy) -> None:
        """See that a series can be armed; warnings are logged, once a staging.

        Raises
        ------
        PreflightError
            If it cannot.
        DcuError
            If the DCU cannot be asked.
        """
        found = self._look(scheme, directory, policy)
        if not found:
            # It may not have followed the last setting at once.
            self._ask(self.states.detector.bit_depth_image)
            found = self._look(scheme, directory, policy)
        if not found or (DCU, scheme) not in self._told:
            found = self._with_dcu_files(found)
        for check in found.checks:
            if check.severity == WARN and (check.subject, scheme) not in self._told:
                self._told.add((check.subject, scheme))
                logger.warning("%s: %s", self.name, check.sentence)
        found.raise_refusals()

    def report(
        self,
        staging: Staging | None,
        directory: Path,
        policy: FilePolicy,
        deliveries: Iterable[Delivery],
    ) -> Preflight:
        """Ask for all that the next series depends on, and return what stage would find.

        Parameters
        ----------
        staging : Staging or None
            What is staged, so that the detector need not be idle.
        directory : Path
            Where the files will go.
        policy : FilePolicy
            What becomes of them.
        deliveries : iterable of Delivery
            The files that came home so far.

        Raises
        ------
        DcuError
            If the DCU cannot be asked.
        """
        self._learn(deliveries)
        refusals: list[Check] = []

        def allowed(subject: str, ask: Callable[[], object]) -> bool:
            try:
                ask()
            except (StateError, NotServedError, ReplyError) as error:
                sentence = str(error).removeprefix(f"{self.name}: ")
                refusals.append(Check(subject, "", "", REFUSE, sentence))
                return False
            return True

        if staging is None:
            allowed("state", self.states.require_idle)
        if not allowed("settings", self.arming.read_what_is_relied_on):
            return Preflight(self.name, None, refusals)
        self._ask(self.states.detector.bit_depth_image)
        if not allowed("settings", lambda: self.arming.scheme(staging)):
            return Preflight(self.name, None, refusals)
        found = self._with_dcu_files(self._look(self.arming.scheme(staging), directory, policy))
        return Preflight(self.name, found.facts, (*refusals, *found.checks))

    def _look(self, scheme: Scheme, directory: Path, policy: FilePolicy) -> Preflight:
        facts = self._facts(scheme, directory, policy)
        return Preflight(self.name, facts, checks(facts))

    def _with_dcu_files(self, found: Preflight) -> Preflight:
        """Return what was found with what clearing the DCU would bring, if there is too little."""
        is_short = any(check.subject == DCU and check.severity != OK for check in found.checks)
        if found.facts is None or not is_short:
            return found
        facts = replace(found.facts, dcu_files=self._bytes_on_dcu())
        return Preflight(self.name, facts, checks(facts))

    def _bytes_on_dcu(self) -> float | None:
        """Return how large the files on the DCU are; None if it does not say, or they are many.

        Whatever fails ends the asking, and nothing else: it is for a sentence of advice.
        """
        client = self.states.link.client
        total = 0.0
        try:
            names = client.files()
            if len(names) > MOST_SIZES:
                return None
            for name in names:
                size = client.file_size(name)
                if size is None:
                    return None
                total += size
        except DcuError as error:
            logger.debug("%s; clearing the DCU may bring anything", error)
            return None
        return total

    def _facts(self, scheme: Scheme, directory: Path, policy: FilePolicy) -> Facts:
        detector, filewriter = self.states.detector, self.states.filewriter
        shape = (
            require_whole(detector.y_pixels_in_detector, 1),
            require_whole(detector.x_pixels_in_detector, 1),
        )
        bits = number_of(detector.bit_depth_image.last)
        whole_bits = int(bits) if bits in (8, 16, 32) else None
        kind = np.dtype(f"<u{whole_bits // 8}") if whole_bits else None
        return Facts(
            device=self.name,
            scheme=scheme,
            shape=shape,
            bits=whole_bits,
            count_time=number_of(detector.count_time.last),
            frame_time=number_of(detector.frame_time.last),
            readout_time=number_of(detector.detector_readout_time.last),
            shortest_frame_time=detector.frame_time.limits[0],
            compressed=(
                detector.compression.last != "none"
                and filewriter.compression_enabled.last is not False
            ),
            seen=None if kind is None else self._seen.get((shape, kind)),
            images_per_file=require_whole(filewriter.nimages_per_file),
            dcu_free=self._free_on_dcu(),
            directory=directory,
            disk_free=free_at(directory),
            copied=policy.mount is None,
            deleted=policy.delete_on_dcu,
            limits_week=self.states.needs_more_than_disarm(),
        )

    def _free_on_dcu(self) -> float | None:
        """Return the room for files on the DCU in bytes; None if it does not say."""
        signal = self.states.filewriter.buffer_free
        return self.states.in_bytes(signal.last) if self._ask(signal) else None

    def _ask(self, signal: EigerSignal) -> bool:
        """Ask for what a series does not depend on: a DCU need not have it, nor answer sensibly."""
        if signal.served is False:
            return False
        try:
            signal.get()
        except (RefusedError, ReplyError) as error:
            logger.debug("%s; left out of the pre-flight check", error)
            return False
        return True

    def _learn(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            files = [file for file in tuple(delivery.home.values()) if file.images]
            size = sum(file.bytes for file in files)
            if files:
                kind = (delivery.shape, np.dtype(delivery.dtype))
                self._seen[kind] = size / sum(file.images for file in files)
