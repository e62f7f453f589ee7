"""Whole configurations as JSON files: save, restore, compare.

A file holds every config value that can be written, by subsystem and wire key, with its unit, but
the big arrays. Knows the way to the DCU by `ophyd_eiger.configuration` only.
"""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ophyd_eiger import settings
from ophyd_eiger.array_signals import EigerArray
from ophyd_eiger.configuration import Configuration
from ophyd_eiger.errors import (
    ConfigurationFileError,
    RefusedError,
    ReplyError,
    StateError,
    UnknownSettingError,
)
from ophyd_eiger.event_loop import in_event_loop
from ophyd_eiger.settings import Difference, Differences, Report
from ophyd_eiger.signals import EigerSignal
from ophyd_eiger.subsystems import Subsystem
from ophyd_eiger.writing import new_file

logger = logging.getLogger(__name__)

FORMAT = "ophyd-eiger configuration"
FORMAT_VERSION = 1
# Can be written on some firmware, and says nothing of how the detector is set up.
NOT_SETTINGS = ("data_collection_date",)
IDENTITY = ("description", "detector_number", "software_version")


def save(configuration: Configuration, path: str | os.PathLike) -> Path:
    """Ask the DCU for every setting and write them to a new file.

    Raises
    ------
    ConfigurationFileError
        If the file exists, or cannot be written; nothing is left of it then. Or if the DCU has no
        settings.
    StateError
        While the device is staged, when the file writer's settings are those of the run.
    """
    _not_in_a_plan(configuration, "save")
    if configuration.is_staged:
        raise StateError(
            f"{configuration.device}: staged, so the file writer's settings are those of the run; "
            "unstage it before saving its configuration"
        )
    target = Path(path).expanduser()
    if target.exists():
        raise ConfigurationFileError(f"{target} exists and is not overwritten; give another name")
    found = {
        name: {signal.key: _entry(signal) for signal in _settings_of(subsystem)}
        for name, subsystem in configuration.subsystems.items()
    }
    if not found["detector"]:
        raise ConfigurationFileError(
            f"{target}: nothing to save: {configuration.device} gave none of its settings; is it "
            f"initialized, and is {configuration.link.client.url} a DCU?"
        )
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "saved": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "device": configuration.device,
        "address": configuration.link.client.url,
        **_identity(configuration),
        "settings": found,
    }
    _write(target, json.dumps(document, indent=2) + "\n")
    return target


def restore(
    configuration: Configuration, path: str | os.PathLike, *, other_detector: bool = False
) -> Report:
    """Put what differs from a file, in a safe order.

    Parameters
    ----------
    configuration : Configuration
        Of the device to set up.
    path : path
        A file that `save` wrote.
    other_detector : bool
        Whether a file of another model or generation is taken too, without the settings that this
        one does not have.

    Raises
    ------
    ConfigurationFileError
        If the file cannot be used; nothing is put.
    """
    _not_in_a_plan(configuration, "restore")
    document = _document(path)
    here = _identity(configuration)
    for key, generation in (("description", str), ("api_version", _generation)):
        if generation(document.get(key)) != generation(here[key]) and not other_detector:
            raise ConfigurationFileError(
                f"{path}: saved from {document.get('description')!r} with API "
                f"{document.get('api_version')}, and {configuration.device} is "
                f"{here['description']!r} with API {here['api_version']}; other_detector=True "
                "puts what both have"
            )
    values = {}
    for name, entries in document["settings"].items():
        chosen = settings.without_followers(entries) if name == "detector" else entries
        values.update(
            {
                f"{name}.{key}": entry["value"]
                for key, entry in chosen.items()
                if entry["value"] is not None
            }
        )
    if other_detector:
        values = {name: value for name, value in values.items() if _is_here(configuration, name)}
    configuration.set(values, exact_is_enough=True).wait()
    if configuration.last is None:
        raise StateError(f"{configuration.device}: nothing was restored")
    return configuration.last


def differences(
    configuration: Configuration, other: str | os.PathLike | Mapping[Any, Any]
) -> Differences:
    """Ask the DCU and return what differs from a file, or from values by name as for `configure`.

    Raises
    ------
    ConfigurationFileError
        If the file cannot be used.
    """
    _not_in_a_plan(configuration, "compare")
    if isinstance(other, Mapping):
        return configuration.differences(other)
    document = _document(other)
    found = Differences()
    for name, entries in document["settings"].items():
        for key, entry in entries.items():
            try:
                found += configuration.differences({f"{name}.{key}": entry["value"]})
            except UnknownSettingError:
                unit = str(entry.get("unit", ""))
                found.append(Difference(f"{name}.{key}", "not served", entry["value"], unit))
    found.there = "in the file"
    return found


def _identity(configuration: Configuration) -> dict[str, Any]:
    found: dict[str, Any] = {"api_version": configuration.link.client.api_version}
    for key in IDENTITY:
        signal = getattr(configuration.detector, key)
        try:
            found[key] = signal.get()
        except (RefusedError, ReplyError):
            found[key] = None
    return found


def _settings_of(subsystem: Subsystem) -> Iterator[EigerSignal]:
    try:
        undeclared = [subsystem[n] for n in subsystem.undeclared() if n.startswith("config/")]
    except RefusedError:
        # A subsystem that the DCU does not have.
        undeclared = []
    unreadable: dict[str, ReplyError] = {}
    for signal in dict.fromkeys((*subsystem.signals, *undeclared)):
        if not isinstance(signal, EigerSignal) or signal.section != "config":
            continue
        if isinstance(signal, EigerArray) or signal.key in NOT_SETTINGS:
            continue
        try:
            value = signal.get()
        except RefusedError:
            continue
        except ReplyError as error:
            unreadable[signal.name] = error
            continue
        writable = signal.dcu_metadata is not None and signal.dcu_metadata.writable
        # What has no value has none that could be put.
        if writable and value is not None and settings.is_plain(value):
            yield signal
    if unreadable:
        name, error = next(iter(unreadable.items()))
        logger.warning(
            "%s: %d settings not saved, as %s: %s", subsystem.name, len(unreadable), name, error
        )


def _entry(signal: EigerSignal) -> dict[str, Any]:
    unit = signal.dcu_metadata.unit if signal.dcu_metadata is not None else ""
    return {"value": signal.last, "unit": unit} if unit else {"value": signal.last}


def _write(path: Path, text: str) -> None:
    try:
        with new_file(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise ConfigurationFileError(
            f"{path}: the configuration could not be saved: {error.strerror}"
        ) from error


def _document(path: str | os.PathLike) -> dict[str, Any]:
    source = Path(path).expanduser()
    try:
        document = json.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationFileError(f"{source}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationFileError(
            f"{source}: is no saved configuration: not JSON ({error})"
        ) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ConfigurationFileError(
            f"{source}: is no saved configuration: it does not say that its format is {FORMAT!r}"
        )
    if document.get("format_version") != FORMAT_VERSION:
        raise ConfigurationFileError(
            f"{source}: format_version {document.get('format_version')!r} is none that this "
            f"version of ophyd-eiger reads ({FORMAT_VERSION})"
        )
    groups = document.get("settings")
    if not isinstance(groups, dict) or not all(
        isinstance(entries, dict)
        and all(isinstance(entry, dict) and "value" in entry for entry in entries.values())
        for entries in groups.values()
    ):
        raise ConfigurationFileError(
            f"{source}: is damaged: 'settings' holds no values by subsystem and key"
        )
    return document


def _generation(api_version: Any) -> str:
    numbers = [int(part) for part in str(api_version).split(".") if part.isdigit()]
    return "EIGER2" if numbers >= [1, 8] else "EIGER"


def _is_here(configuration: Configuration, name: str) -> bool:
    try:
        configuration.differences({name: None})
    except UnknownSettingError as error:
        logger.info("%s: left out: %s", configuration.device, error)
        return False
    return True


def _not_in_a_plan(configuration: Configuration, verb: str) -> None:
    if in_event_loop():
        raise StateError(
            f"{configuration.device}: {verb} a configuration before or after the plan; in it this "
            "would hold up the RunEngine"
        )
