"""What the subsystems of the SIMPLON API have in common: their signals, asked and asked again."""

import contextvars
import difflib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ophyd import Device

from ophyd_eiger.array_signals import EigerArray
from ophyd_eiger.commands import EigerCommand
from ophyd_eiger.errors import NotServedError, RefusedError, ReplyError
from ophyd_eiger.link import Link
from ophyd_eiger.replies import names_listed
from ophyd_eiger.signals import EigerSignal

logger = logging.getLogger(__name__)

_A = TypeVar("_A")
_R = TypeVar("_R")

SECTIONS = ("config", "status", "command")
# Connections that `refresh` uses at once. areaDetector keeps five to real detectors; Lima asks an
# EIGER2 one after the other, because it choked on more than it could take.
CONNECTIONS = 4
# EIGER2 from this API version on answer more than they list under `keys`: wavelength and error were
# found so on a real EIGER2 XE 16M (fastcs-eiger). What else they answer is found out once.
FIRST_API_THAT_LISTS_LESS = (1, 8)
# EIGER1 list what they answer, but for this one.
UNLISTED = ("config/countrate_correction_table",)
# What else a PUT's reply calls a resource (fastcs-eiger, the same detector).
OTHER_NAMES = {"difference_mode": "threshold/difference/mode"}
_PLACED = ("detector_translation",)
_EXCLUDED = ("number_of_excluded_pixels", "threshold/1/number_of_excluded_pixels")
_EXCLUDED_2 = ("threshold/2/number_of_excluded_pixels",)
# What changes with these beside what the reply names: with a region Lima and areaDetector read it
# again, of the others no reply of an EIGER2 tells (tickit-devices, made after a real one).
UNNAMED = {
    "roi_mode": (
        *("x_pixels_in_detector", "y_pixels_in_detector", "beam_center_x", "beam_center_y"),
        *("bit_depth_image", "flatfield", "pixel_mask"),
        *(*_EXCLUDED, *_EXCLUDED_2, *_PLACED),
        *("threshold/1/flatfield", "threshold/1/pixel_mask"),
        *("threshold/2/flatfield", "threshold/2/pixel_mask"),
    ),
    "beam_center_x": _PLACED,
    "beam_center_y": _PLACED,
    "detector_distance": _PLACED,
    "pixel_mask": _EXCLUDED,
    "threshold/1/pixel_mask": _EXCLUDED,
    "threshold/2/pixel_mask": _EXCLUDED_2,
}


class NoSuchNameError(AttributeError):
    """A device has nothing of that name; the near ones are looked for when somebody reads it.

    bluesky asks every device for many things that it may not have.
    """

    def __init__(self, device: Device, name: str, names: Iterable[str]) -> None:
        super().__init__(name=name, obj=device)
        self._asked = device, name, names

    def __str__(self) -> str:
        """Return it in words."""
        device, name, names = self._asked
        near = difflib.get_close_matches(name, names)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return f"{device.name} has nothing named {name!r}{hint}"


class Subsystem(Device):
    """One subsystem of the SIMPLON API; its signals are its resources.

    Attributes
    ----------
    subsystem : str
        Its name on the wire.
    names_changes : bool
        Whether a PUT's reply names what changed; others answer nothing, and change nothing else.
    """

    subsystem = ""
    names_changes = False

    def __init__(self, prefix: str = "", *, parent: Any = None, **kwargs: Any) -> None:
        self.owner = parent
        self._undeclared: dict[str, EigerSignal] = {}
        super().__init__(prefix, parent=parent, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if "." in name or name.startswith("_"):
            return super().__getattr__(name)
        raise NoSuchNameError(self, name, self.component_names)

    @property
    def link(self) -> Link:
        """What the signals of the detector share."""
        return self.owner.link

    @property
    def signals(self) -> Iterator[EigerSignal]:
        """Every declared config and status resource, and those that were asked for by `[...]`."""
        for name in self.component_names:
            signal = getattr(self, name)
            if isinstance(signal, EigerSignal):
                yield signal
        yield from tuple(self._undeclared.values())

    def __getitem__(self, resource: str) -> EigerSignal | EigerCommand:
        """Return the signal of a resource by section and key, declared or not.

        Parameters
        ----------
        resource : str
            As in "config/count_time" or, for one that firmware newer than this package has,
            "config/new_key".
        """
        for name in self.component_names:
            signal = getattr(self, name)
            if signal.resource == resource:
                return signal
        if resource not in self._undeclared:
            name = f"{self.name}_{resource.partition('/')[2].replace('/', '_')}"
            self._undeclared[resource] = EigerSignal(resource, name=name, parent=self)
        return self._undeclared[resource]

    def refresh(self) -> None:
        """Ask the DCU for every value it has but the big arrays, and tell the subscribers.

        What the DCU does not serve is marked so and left out of the readings.

        Raises
        ------
        DcuError
            If the DCU cannot be asked at all.
        """
        refresh([self])

    def undeclared(self) -> list[str]:
        """Ask the DCU which resources it lists that have no attribute here.

        A DCU without such lists has none.

        Returns
        -------
        list of str
            As in "config/new_key": what `self[...]` takes.

        Raises
        ------
        DcuError
            If the DCU cannot be asked.
        """
        declared = {getattr(self, name).resource for name in self.component_names}
        listed = []
        for section in SECTIONS:
            listed += [f"{section}/{key}" for key in sorted(self._listed(section) or ())]
        return [resource for resource in listed if resource not in declared]

    def read_again(self, keys: Iterable[str], signal: EigerSignal) -> None:
        """Ask again for the config values that a PUT's reply names, and for the one put.

        A big array is asked for again only if somebody listens to it; else it is stale. Where the
        detector subsystem names nothing, as some firmware does after `initialize`, everything that
        it answered before is asked for again: what changed is not known.
        """
        signal.ask()
        told = {OTHER_NAMES.get(key, key) for key in keys}
        self.link.changed(self.subsystem, {*told, signal.key})
        follows = UNNAMED.get(signal.key, ())
        untold = self.names_changes and not told
        for other in self.signals:
            if other is signal or other.section != "config":
                continue
            is_there = other.key in follows and other.served is not False
            if other.key in told or is_there or (untold and other.served):
                _answers(other.note_changed, other)

    def to_refresh(self) -> list[EigerSignal]:
        """Ask the DCU what it lists, and return the signals of all that it may answer."""
        listed = {section: self._listed(section) for section in ("config", "status")}
        lists_less = _numbers(self.link.client.api_version) >= FIRST_API_THAT_LISTS_LESS
        chosen = []
        for signal in self.signals:
            if isinstance(signal, EigerArray) or signal.section not in listed:
                continue
            keys = listed[signal.section]
            is_new = signal.served is None and (lists_less or signal.resource in UNLISTED)
            if keys is None or signal.key in keys or signal.served or is_new:
                chosen.append(signal)
            elif signal.served is None:
                signal.served = False
        return chosen

    def _listed(self, section: str) -> set[str] | None:
        """Return the names that the DCU lists; None if it has no such list."""
        try:
            keys = names_listed(self.link.client.get(self.subsystem, f"{section}/keys"))
        except (RefusedError, ReplyError):
            return None
        return set(keys) if keys else None

    def stage(self) -> list:
        """Do nothing: the detector stages itself as a whole."""
        return []

    unstage = stage


def refresh(subsystems: Iterable[Subsystem]) -> None:
    """Ask the DCU for every value of these subsystems, over a few connections at once.

    Raises
    ------
    DcuError
        If the DCU cannot be asked at all; what came before has its new value.
    """
    subsystems = tuple(subsystems)
    if subsystems:
        # Once, and not once in each thread.
        subsystems[0].link.client.api_version  # noqa: B018 - asked of the DCU
    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="eiger refresh") as threads:
        lists = tuple(threads.map(_in_context(Subsystem.to_refresh), subsystems))
        signals = [signal for chosen in lists for signal in chosen]
        errors = tuple(threads.map(_in_context(_error_of_asking), signals))
    failed = {s: error for s, error in zip(signals, errors, strict=True) if error is not None}
    absent = [s.name for s, error in failed.items() if isinstance(error, NotServedError)]
    if absent:
        logger.info("not served by this DCU now: %s", ", ".join(absent))
    _report([signal for signal in failed if signal.name not in absent], failed, len(signals))


def _report(
    unreadable: list[EigerSignal], errors: Mapping[EigerSignal, Exception], asked: int
) -> None:
    """Tell of resources that the DCU has and does not give.

    Raises
    ------
    DcuError
        If it gives none, or not the detector's state, without which nothing can be done.
    """
    if not unreadable:
        return
    for signal in unreadable:
        is_vital = (signal.subsystem, signal.resource) == ("detector", "status/state")
        if is_vital or len(unreadable) == asked:
            raise errors[signal]
    names = ", ".join(signal.name for signal in unreadable[:5])
    more = f" and {len(unreadable) - 5} more" if unreadable[5:] else ""
    logger.warning(
        "left out, because the DCU did not give them: %s%s: %s", names, more, errors[unreadable[0]]
    )


def _in_context(function: Callable[[_A], _R]) -> Callable[[_A], _R]:
    """Return the function as called in this context: requests count for the work they are for."""
    context = contextvars.copy_context()
    return lambda argument: context.copy().run(function, argument)


def _error_of_asking(signal: EigerSignal) -> Exception | None:
    """Ask for a value; return what was wrong with this one, if it was this one alone."""
    try:
        signal.ask()
    except (RefusedError, ReplyError) as error:
        signal.served = False
        return error
    return None


def _answers(ask: Callable[[], None], signal: EigerSignal) -> bool:
    try:
        ask()
    except (RefusedError, ReplyError) as error:
        # One that never answered is not missed, whatever the DCU says instead.
        if signal.has_value and not isinstance(error, NotServedError):
            raise
        signal.served = False
        return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
