"""Is a series possible before it is armed: does it fit, is it fast enough, is it allowed.

Pure: no requests, no files. `ophyd_eiger.clearance` gathers the facts.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ophyd_eiger.errors import PreflightError
from ophyd_eiger.settings import table
from ophyd_eiger.triggering import Scheme

OK, WARN, REFUSE = "ok", "warn", "refuse"
DCU = "room on the DCU"

# The format of LZ4 blocks has nothing come out smaller than 1/255 of what went in; that is all that
# is certain before images are taken. Images without a single photon come close to it.
LARGEST_RATIO = 255.0
# What images with two photons a pixel were found to shrink to under plain lz4, which is the worse
# of the two compressions: by bits of a pixel. Fewer photons shrink better.
CAUTIOUS_RATIOS = {8: 1.6, 16: 2.2, 32: 3.1}
# Bytes a pixel of the detector in a master file: flat field and mask, four bytes each.
MASTER_PIXEL = 8
# Firmware from 2020.2.2 on refuses to arm for longer (EIGER2 release notes).
LONGEST_SERIES_S = 7 * 24 * 3600.0
# Firmware before 2022.1.2 takes no more (EIGER2 release notes).
MOST_IMAGES = 2_000_000_000
# `nimages_per_file` 0 is for small series only (SIMPLON API 1.6); data files hold so many images
# where nobody says otherwise.
MOST_IN_MASTER = 1000
# To what part of it times are the same: the firmware keeps them in single precision.
SAME_TIME = 1e-6


@dataclass(frozen=True)
class Facts:
    """What is known of a series that is about to be armed; None for what is not.

    Attributes
    ----------
    device : str
        Name of the device.
    scheme : Scheme
        How its images are taken.
    shape : tuple of int
        Of an image, (y, x) in pixels.
    bits : int or None
        Of a pixel, as long as the detector is not armed.
    count_time, frame_time, readout_time, shortest_frame_time : float or None
        In s; the last is the detector's own limit.
    compressed : bool
        Whether files hold compressed images.
    seen : float or None
        Bytes an image in the newest files of such images.
    images_per_file : int
        `nimages_per_file`.
    dcu_free : float or None
        Room for files on the DCU, in bytes.
    directory : Path
        Where the files go.
    disk_free : float or None
        Room there, in bytes.
    copied : bool
        Whether files are copied to `directory`, and not read where the DCU's disk is mounted.
    deleted : bool
        Whether each is deleted on the DCU as soon as its copy is proven good.
    limits_week : bool
        Whether the firmware may refuse series of more than a week.
    dcu_files : float or None
        Bytes of the files on the DCU, which clearing it would bring.
    """

    device: str
    scheme: Scheme
    shape: tuple[int, int]
    bits: int | None
    count_time: float | None
    frame_time: float | None
    readout_time: float | None
    shortest_frame_time: float | None
    compressed: bool
    seen: float | None
    images_per_file: int
    dcu_free: float | None
    directory: Path
    disk_free: float | None
    copied: bool
    deleted: bool
    limits_week: bool
    dcu_files: float | None = None

    @property
    def plain_image(self) -> float | None:
        """Bytes of an image without compression."""
        return None if not self.bits else self.shape[0] * self.shape[1] * self.bits / 8

    @property
    def least_image(self) -> float | None:
        """Bytes below which no image can be."""
        plain = self.plain_image
        return plain if plain is None or not self.compressed else plain / LARGEST_RATIO

    @property
    def likely_image(self) -> float | None:
        """Bytes of an image: of those seen last, or by a cautious guess."""
        plain = self.plain_image
        if plain is None or not self.compressed:
            return plain
        return self.seen or plain / CAUTIOUS_RATIOS.get(self.bits or 0, 1.0)

    @property
    def assumption(self) -> str:
        """What `likely_image` is based on."""
        if not self.compressed:
            return "not compressed"
        if self.seen:
            return "as in the last files of such images"
        ratio = CAUTIOUS_RATIOS.get(self.bits or 0, 1.0)
        return f"a guess: 1/{ratio:g} of {_bytes(self.plain_image)}, as of two photons a pixel"

    @property
    def seconds(self) -> float | None:
        """What the series takes at least, in s; None where signals or exposures make its times."""
        if self.frame_time is None or self.scheme.mode.takes_one_image:
            return None
        return self.scheme.total * self.frame_time


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    subject : str
        What, in a word or two.
    needs, there_is : str
        With units.
    severity : {"ok", "warn", "refuse"}
        What comes of it.
    sentence : str
        What is wrong, with figures, and what to change; empty if nothing is.
    """

    subject: str
    needs: str
    there_is: str
    severity: str = OK
    sentence: str = ""


class Preflight:
    """What a pre-flight check found; prints as a table, and is true if the series may be armed.

    Attributes
    ----------
    device : str
        Name of the device.
    facts : Facts or None
        What was known; None where the settings make no series.
    checks : tuple of Check
        What was looked at, in order.
    """

    def __init__(self, device: str, facts: Facts | None, checks: Iterable[Check]) -> None:
        self.device = device
        self.facts = facts
        self.checks = tuple(checks)

    def __bool__(self) -> bool:
        return not self.refusals

    @property
    def refusals(self) -> list[str]:
        """Why it cannot be armed; empty if it can."""
        return [check.sentence for check in self.checks if check.severity == REFUSE]

    @property
    def warnings(self) -> list[str]:
        """What may go wrong."""
        return [check.sentence for check in self.checks if check.severity == WARN]

    def raise_refusals(self) -> None:
        """Raise what was refused, if anything was.

        Raises
        ------
        PreflightError
            With every reason.
        """
        if self.refusals:
            raise PreflightError(f"{self.device}: not armed: {'; '.join(self.refusals)}")

    def __repr__(self) -> str:
        rows = [(c.subject, c.needs, c.there_is, c.severity) for c in self.checks]
        head = ("check", "needs", "there is", "verdict")
        lines = [f"{self.device}: pre-flight of {self._series()}", table(head, rows)]
        lines += [f"{c.severity}: {c.sentence}" for c in self.checks if c.sentence]
        return "\n".join(lines)

    def _series(self) -> str:
        facts = self.facts
        if facts is None:
            return "a series that cannot be"
        scheme, (y, x) = facts.scheme, facts.shape
        text = f"{scheme.ntrigger} x {scheme.nimages} images of {x} x {y} pixels"
        text += f" of {facts.bits} bit" if facts.bits else ""
        if facts.seconds is not None:
            text += f", {_seconds(facts.seconds)} at least"
        if facts.likely_image:
            text += f"; about {_bytes(facts.likely_image)} an image ({facts.assumption})"
        return text


def checks(facts: Facts) -> Iterator[Check]:
    """Give what is to be looked at before a series is armed, and what comes of it."""
    clear = (
        f"fetch what you need and clear it ({facts.device}.filewriter.clear.set(1) deletes every "
        "file on the DCU)"
    )
    yield from _room(facts, DCU, facts.dcu_free, "for files on the DCU", clear)
    if facts.copied:
        elsewhere = f"make room, or give {facts.device} another directory"
        yield from _room(facts, "room at home", facts.disk_free, f"in {facts.directory}", elsewhere)
    if not facts.scheme.mode.takes_one_image:
        yield from _times(facts)
    yield from _numbers(facts)


def _room(
    facts: Facts, subject: str, free: float | None, where: str, what_to_do: str
) -> Iterator[Check]:
    least, likely = facts.least_image, facts.likely_image
    if free is None or least is None or likely is None:
        return
    total, (y, x) = facts.scheme.total, facts.shape
    wanted = total * likely + y * x * MASTER_PIXEL
    needs, there_is = f"about {_bytes(wanted)}", _bytes(free)
    least_wanted = total * least
    must = least_wanted if least_wanted > free and not facts.deleted else wanted
    cure = what_to_do if total == 1 else f"{what_to_do}, or take fewer images a series"
    if subject == DCU and facts.dcu_files is not None and free + facts.dcu_files < must:
        brings = f"clearing the DCU would bring no more than {_bytes(facts.dcu_files)}"
        cure = brings if total == 1 else f"take fewer images a series; {brings}"
    if facts.deleted and subject == DCU and wanted > free:
        sentence = (
            f"{there_is} are free {where}, and {_images(total)} need about {_bytes(wanted)} "
            f"({_bytes(likely)} an image, {facts.assumption}): they fit only if files come home, "
            f"and are deleted, as fast as images are taken; else {cure}"
        )
        yield Check(subject, needs, there_is, WARN, sentence)
    elif least_wanted > free:
        how = f" even if each shrank to 1/{LARGEST_RATIO:g}, the most that LZ4 can"
        sentence = (
            f"{there_is} are free {where}, and {_images(total)} of {x} x {y} pixels of "
            f"{facts.bits} bit need {_bytes(least_wanted)}"
            f"{how if facts.compressed else ', as they are not compressed'}: {cure}"
        )
        yield Check(subject, needs, there_is, REFUSE, sentence)
    elif wanted > free:
        sentence = (
            f"{there_is} are free {where}, and {_images(total)} with their master file need about "
            f"{_bytes(wanted)} ({_bytes(likely)} an image, {facts.assumption}); what does not fit "
            f"{'is lost' if subject == DCU else 'stays on the DCU'}: {cure}"
        )
        yield Check(subject, needs, there_is, WARN, sentence)
    else:
        yield Check(subject, needs, there_is)


def _times(facts: Facts) -> Iterator[Check]:
    frame_time, shortest = facts.frame_time, facts.shortest_frame_time
    if frame_time is None:
        return
    if shortest is not None:
        needs, there_is = f"{frame_time:.6g} s a frame", f"{shortest:.6g} s at least"
        if frame_time < shortest * (1 - SAME_TIME):
            sentence = (
                f"frame_time is {frame_time:.6g} s ({1 / frame_time:.4g} Hz), and the detector "
                f"says that it needs {shortest:.6g} s ({1 / shortest:.4g} Hz) as it is set now: "
                f"set frame_time to {shortest:.6g} s or more"
            )
            yield Check("frame rate", needs, there_is, REFUSE, sentence)
        else:
            yield Check("frame rate", needs, there_is)
    if facts.count_time is None or facts.readout_time is None:
        return
    least = facts.count_time + facts.readout_time
    needs, there_is = f"{least:.6g} s exposed and read out", f"{frame_time:.6g} s a frame"
    if least > frame_time * (1 + SAME_TIME):
        sentence = (
            f"count_time {facts.count_time:.6g} s and {facts.readout_time:.3g} s of read-out do "
            f"not fit into frame_time {frame_time:.6g} s: images may come every {least:.6g} s, or "
            f"be exposed for less; set count_time to {frame_time - facts.readout_time:.6g} s or "
            f"frame_time to {least:.6g} s"
        )
        yield Check("exposure", needs, there_is, WARN, sentence)
    else:
        yield Check("exposure", needs, there_is)


def _numbers(facts: Facts) -> Iterator[Check]:
    total, seconds = facts.scheme.total, facts.seconds
    if facts.limits_week and seconds is not None and seconds > LONGEST_SERIES_S:
        sentence = (
            f"the series takes {_seconds(seconds)} at least, and firmware from 2020.2.2 on does "
            "not arm for more than 7 days: take fewer images a series"
        )
        yield Check("duration", _seconds(seconds), "7 days", WARN, sentence)
    if total > MOST_IMAGES:
        sentence = (
            f"nimages x ntrigger is {total}, and firmware before 2022.1.2 takes no more than "
            f"{MOST_IMAGES} images a series: take fewer"
        )
        yield Check("images", str(total), str(MOST_IMAGES), WARN, sentence)
    if facts.images_per_file == 0 and total > MOST_IN_MASTER:
        sentence = (
            f"nimages_per_file is 0, so that all {total} images go into the master file, which "
            f"is for small series: set {facts.device}.filewriter.nimages_per_file to "
            f"{MOST_IN_MASTER}"
        )
        yield Check("images a file", str(total), str(MOST_IN_MASTER), WARN, sentence)


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _bytes(count: float | None) -> str:
    """Return a size as people say it, in powers of 1000."""
    if count is None:
        return "?"
    power = 0 if count < 1 else min(int(math.log10(count) // 3), 5)
    # 999.7 kB is 1 MB.
    if power < 5 and float(f"{count / 1000**power:.3g}") >= 1000:
        power += 1
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"


def _seconds(seconds: float) -> str:
    """Return a time as people say it."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
