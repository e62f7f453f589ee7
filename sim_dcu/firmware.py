"""What differs between the two generations' firmware, each in one object.

The resources are data in `sim_dcu.tables`, the spelling is in `sim_dcu.spelling`, what follows from
what in `sim_dcu.rules_eiger1` and `sim_dcu.rules_eiger2`; here are the habits.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from sim_dcu import geometry, rules_eiger1, rules_eiger2, spelling
from sim_dcu.clock import local_time, local_time_with_milliseconds
from sim_dcu.dependencies import Rules
from sim_dcu.models import Model
from sim_dcu.spelling import Spelling
from sim_dcu.tables import eiger1, eiger2


@dataclass(frozen=True)
class Firmware:
    """One generation's firmware.

    Attributes
    ----------
    api_version : str
        What `version` answers.
    api_versions : frozenset of str
        The versions that URLs may have.
    tables : module
        The resources of each subsystem (`sim_dcu.tables`).
    spelling : Spelling
        How replies are written.
    rules : Rules
        What follows from what in detector/config.
    takes_any_body : bool
        Whether a command's body may be anything. EIGER2 answers 404 to all but none and `{}`.
    reads_text : bool
        Whether a put of text that spells a number is taken (LImA sent such to EIGER1).
    names_unknown_paths : bool
        Whether the text of a 404 is EIGER2's, which repeats the path.
    clear_disables : bool
        Whether the filewriter's `clear` puts its mode to disabled (users of EIGER1).
    initialize_reply, trigger_reply : dict or None
        What these commands answer; None is an empty body. EIGER1's trigger answers -1, which is no
        series' id.
    disarm_waits : bool
        Whether disarm lets the images of a running trigger be taken first (EIGER2 since 2020.1).
    measures_always : bool
        Whether measured values are fresh whenever asked outside an acquisition. EIGER1's are those
        of the last `status_update`.
    masks_stay : bool
        Whether a user's mask outlives initialize (API reference 1.8: "persistent").
    bytes_free : bool
        Whether `buffer_free` is in bytes; in KB otherwise.
    stamp : callable
        Returns the local time as `data_collection_date` has it.
    """

    api_version: str
    api_versions: frozenset[str]
    tables: ModuleType
    spelling: Spelling
    rules: Rules
    takes_any_body: bool
    reads_text: bool
    names_unknown_paths: bool
    clear_disables: bool
    initialize_reply: dict[str, Any] | None
    trigger_reply: dict[str, Any]
    disarm_waits: bool
    measures_always: bool
    masks_stay: bool
    bytes_free: bool
    stamp: Callable[[], str]

    def answering(self, version: str) -> "Firmware":
        """Return the same firmware with another version number, beside its own ones."""
        return replace(self, api_version=version, api_versions=self.api_versions | {version})


EIGER1 = Firmware(
    api_version=eiger1.API_VERSION,
    api_versions=eiger1.API_VERSIONS,
    tables=eiger1,
    spelling=spelling.EIGER1,
    rules=rules_eiger1.RULES,
    takes_any_body=True,
    reads_text=True,
    names_unknown_paths=False,
    clear_disables=True,
    initialize_reply=None,
    trigger_reply={"sequence id": -1},
    disarm_waits=False,
    measures_always=False,
    masks_stay=False,
    bytes_free=False,
    stamp=local_time,
)
EIGER2 = Firmware(
    api_version=eiger2.API_VERSION,
    api_versions=eiger2.API_VERSIONS,
    tables=eiger2,
    spelling=spelling.EIGER2,
    rules=rules_eiger2.RULES,
    takes_any_body=False,
    reads_text=False,
    names_unknown_paths=True,
    clear_disables=False,
    initialize_reply={},
    trigger_reply={},
    disarm_waits=True,
    measures_always=True,
    masks_stay=True,
    bytes_free=True,
    stamp=local_time_with_milliseconds,
)


def firmware_of(model: Model, api_version: str | None = None) -> Firmware:
    """Return the firmware of a model, with another version number where one is given.

    Raises
    ------
    ValueError
        Where that is no number such as 1.8.0.
    """
    if api_version is not None and not re.fullmatch(r"\d+(\.\d+){0,3}", api_version):
        raise ValueError(f"API version {api_version!r} is not a number such as 1.8.0")
    firmware = EIGER2 if model.generation is geometry.EIGER2 else EIGER1
    return firmware if api_version is None else firmware.answering(api_version)
