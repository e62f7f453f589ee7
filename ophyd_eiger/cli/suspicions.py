"""Which settings are likely not meant so. Pure: no requests.

Source: EIGER2 user manual (thresholds of 50 to 80 % of the energy, 7.4 on times), SIMPLON API
Reference V1.3, and what users of real detectors report.
"""

from collections.abc import Iterator

from ophyd_eiger.cli.findings import Finding, Severity
from ophyd_eiger.cli.gathered import Replies
from ophyd_eiger.cli.words import duration, number, plural

# Of the energy: what lies between counts each photon once.
_THRESHOLDS = (0.5, 0.8)
# Energies are kept in single precision.
_ROUNDING = 1e-4
# Below this share of the time in which it exposes, somebody may have forgotten frame_time.
_LITTLE_EXPOSED = 0.5
_MANY_FILES = 1000
_MOST_IN_MASTER = 1000
_GATED = ("inte", "exte")
# Settings that are on unless somebody switched them off: what follows where they are off.
_CORRECTIONS = {
    "flatfield_correction_applied": "counts differ from pixel to pixel",
    "pixel_mask_applied": "bad pixels hold what they count",
    "countrate_correction_applied": "counts at high rates are too low",
    "auto_summation": "long exposures overflow early",
}


def suspicions(replies: Replies) -> Iterator[Finding]:
    """Yield what in the settings is likely to spoil data, or not to be meant so."""
    found = [
        *_destination(replies),
        *_file_settings(replies),
        *_times(replies),
        *_energies(replies),
        *_images(replies),
        *_geometry(replies),
    ]
    if not found and replies.setting("count_time") is not None:
        found = [Finding(Severity.OK, "settings", "nothing unusual")]
    yield from found


def _set(replies: Replies, assignment: str) -> str:
    return f"ophyd-eiger set {replies.url} {assignment}"


def _destination(replies: Replies) -> Iterator[Finding]:
    if replies.value("filewriter/config/mode") != "disabled":
        return
    streams = replies.value("stream/config/mode") == "enabled"
    where = "images go to the stream only" if streams else "images are kept nowhere"
    yield Finding(
        Severity.NOTE if streams else Severity.WARNING,
        "file writer",
        f"disabled: no files are written, {where}",
        advice=f"{_set(replies, 'filewriter.mode=enabled')} (EigerDetector does it when staged)",
    )


def _file_settings(replies: Replies) -> Iterator[Finding]:
    pattern = replies.value("filewriter/config/name_pattern")
    if isinstance(pattern, str) and "$id" not in pattern:
        yield Finding(
            Severity.WARNING,
            "file names",
            f"{pattern!r} has no $id: each series overwrites the files of the one before",
            advice=_set(replies, f"'filewriter.name_pattern={pattern}_$id'"),
        )
    first = replies.number("filewriter/config/image_nr_start")
    if first not in (None, 1):
        text = f"image_nr_start is {number(first or 0)}: images are not counted from 1"
        yield Finding(Severity.NOTE, "file names", text)
    if (
        replies.setting("compression") == "none"
        or replies.value("filewriter/config/compression_enabled") is False
    ):
        yield Finding(
            Severity.NOTE,
            "compression",
            "off: files are several times as large, and the DCU's disk fills up sooner",
            advice=_set(replies, "compression=bslz4 filewriter.compression_enabled=true"),
        )
    per_file = replies.number("filewriter/config/nimages_per_file")
    images = replies.series_images()
    if per_file is None or images is None:
        return
    if per_file == 0 and images > _MOST_IN_MASTER:
        text = f"nimages_per_file is 0: all {number(images)} images go into the master file"
        advice = _set(replies, "filewriter.nimages_per_file=1000")
        yield Finding(Severity.WARNING, "files", text, advice=advice)
    if per_file and images / per_file > _MANY_FILES:
        text = f"a series makes {plural(int(-(-images // per_file)), 'file')}"
        advice = "a larger filewriter.nimages_per_file makes fewer"
        yield Finding(Severity.NOTE, "files", text, advice=advice)


def _times(replies: Replies) -> Iterator[Finding]:
    exposure = replies.number("detector/config/count_time")
    period = replies.number("detector/config/frame_time")
    if exposure is None or period is None or period <= 0:
        return
    if period < exposure:
        yield Finding(
            Severity.WARNING,
            "times",
            f"frame_time {number(period)} s is shorter than count_time {number(exposure)} s",
            advice=_set(replies, f"frame_time={number(period)}")
            + "; the detector trims count_time",
        )
    elif exposure / period < _LITTLE_EXPOSED and replies.setting("trigger_mode") not in _GATED:
        share = 100 * exposure / period
        yield Finding(
            Severity.NOTE,
            "times",
            f"exposes {share:.2g} % of the time: count_time {number(exposure)} s, "
            f"frame_time {number(period)} s",
            advice="a shorter frame_time takes images faster",
        )
    images = replies.series_images()
    if images is not None and images > 1 and images * period > 86400:
        text = f"the series that is set up takes {duration(images * period)}"
        yield Finding(Severity.NOTE, "times", text)


def _energies(replies: Replies) -> Iterator[Finding]:
    energy = replies.number("detector/config/photon_energy")
    threshold = replies.number("detector/config/threshold_energy")
    if not energy or threshold is None:
        return
    share = threshold / energy
    words = f"threshold {number(threshold)} eV is {100 * share:.0f} % of {number(energy)} eV"
    advice = _set(replies, f"threshold_energy={number(round(energy / 2, 2))}")
    if share >= 1:
        text = f"{words}: photons of the beam are not counted"
        yield Finding(Severity.WARNING, "threshold", text, advice=advice)
    elif not _THRESHOLDS[0] - _ROUNDING <= share <= _THRESHOLDS[1] + _ROUNDING:
        text = f"{words}; 50 to 80 % counts each photon once"
        yield Finding(Severity.NOTE, "threshold", text, advice=advice)
    if replies.setting("threshold/1/mode") == "disabled":
        text = "threshold 1 is disabled: it has no images"
        advice = _set(replies, "threshold/1/mode=enabled")
        yield Finding(Severity.WARNING, "threshold", text, advice=advice)


def _images(replies: Replies) -> Iterator[Finding]:
    pattern = replies.setting("test_image_mode") or replies.setting("test_mode")
    if pattern:
        text = f"{pattern!r}: images are a test pattern, not counts"
        advice = f"ophyd-eiger initialize {replies.url}"
        yield Finding(Severity.WARNING, "test image", text, advice=advice)
    for key, consequence in _CORRECTIONS.items():
        if replies.setting(key) is False:
            text = f"{key} is false: {consequence}"
            advice = _set(replies, f"{key}=true")
            yield Finding(Severity.NOTE, "corrections", text, advice=advice)
    region = replies.setting("roi_mode")
    if region not in (None, "", "disabled"):
        text = f"{region}: a part of the detector is read out"
        yield Finding(Severity.NOTE, "region", text, advice=_set(replies, "roi_mode=disabled"))
    mode = replies.setting("trigger_mode")
    images = replies.number("detector/config/nimages") or 1
    if mode in _GATED and images != 1:
        text = f"nimages is {number(images)}, and in trigger_mode {mode} each trigger is one image"
        yield Finding(Severity.WARNING, "triggers", text, advice=_set(replies, "nimages=1"))


def _geometry(replies: Replies) -> Iterator[Finding]:
    names = ("beam_center_x", "beam_center_y", "detector_distance")
    unset = [name for name in names if replies.number(f"detector/config/{name}") == 0]
    if unset:
        # That is how a detector comes up; files are processed by it.
        text = f"{', '.join(unset)} {'is' if len(unset) == 1 else 'are'} 0, also in the files"
        advice = _set(replies, " ".join(f"{name}=..." for name in unset))
        yield Finding(Severity.NOTE, "geometry", text, advice=advice)
