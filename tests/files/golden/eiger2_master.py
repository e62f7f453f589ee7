"""What an EIGER2's master file says, written down from what is known of real ones.

No master file of an EIGER2 was at hand, so this table stands for one. Each group of lines names
its evidence:

neggia    the values and types that neggia's tests expect of five real EIGER2 master files
header    the stream header of a real EIGER2 Si 16M with firmware 2020.2.1
NSLS-II   the fields that NSLS-II's compression script takes over from its EIGER2's masters
ARINA     the fields that a site with an ARINA, which has the same file writer, shows
DIALS     what DIALS' class for these files and nxmx read
XE 9M     what a user of DIALS printed of a real EIGER2 XE 9M's master
notes     the vendor's release notes
EIGER1    nothing contradicts the real EIGER 9M's master, so it is taken to hold
"""

from dataclasses import dataclass, field

FLOAT, UNSIGNED, SIGNED, TEXT = "<f8", "<u8", "<i4", "text"


@dataclass(frozen=True)
class Row:
    """A group or a dataset below /entry.

    Attributes
    ----------
    path : str
        Below /entry.
    kind : str
        A dataset's type, or a group's NeXus class.
    rank : int
        0 is a scalar.
    units : str or None
        Its `units`.
    key : str
        The detector/config key whose value it holds, where that is not its name.
    attributes : mapping
        Further attributes; numbers are float64.
    """

    path: str
    kind: str
    rank: int = 0
    units: str | None = None
    key: str = ""
    attributes: dict = field(default_factory=dict)


DET = "instrument/detector"
SPEC = f"{DET}/detectorSpecific"
TRANSLATION = "/entry/instrument/detector/transformations/translation"


def step(vector: object, before: str) -> dict:
    """Return the attributes of a translation after the one at `before`."""
    return {
        "transformation_type": "translation",
        "vector": vector,
        "offset": [0.0, 0.0, 0.0],
        "depends_on": before,
    }


GROUPS = (
    # EIGER1
    Row("", "NXentry"),
    Row("data", "NXdata"),
    Row("instrument", "NXinstrument"),
    Row("instrument/beam", "NXbeam"),
    Row(DET, "NXdetector"),
    Row(SPEC, "NXcollection"),
    Row("sample", "NXsample"),
    # NSLS-II
    Row(f"{DET}/geometry", "NXgeometry"),
    Row(f"{DET}/geometry/orientation", "NXorientation"),
    Row(f"{DET}/geometry/translation", "NXtranslation"),
    Row(f"{DET}/goniometer", "NXtransformations"),
    Row("sample/goniometer", "NXtransformations"),
    # DIALS
    Row(f"{DET}/module", "NXdetector_module"),
    Row(f"{DET}/transformations", "NXtransformations"),
    Row("sample/transformations", "NXtransformations"),
)
DATASETS = (
    # DIALS, NSLS-II, ARINA
    Row("definition", TEXT),
    # header for what there is, EIGER1 for names and units, neggia for the types
    Row("instrument/beam/incident_wavelength", FLOAT, units="angstrom", key="wavelength"),
    Row(f"{DET}/beam_center_x", FLOAT, units="pixel"),
    Row(f"{DET}/beam_center_y", FLOAT, units="pixel"),
    Row(f"{DET}/bit_depth_image", UNSIGNED),
    Row(f"{DET}/bit_depth_readout", UNSIGNED),
    Row(f"{DET}/count_time", FLOAT, units="s"),
    Row(f"{DET}/frame_time", FLOAT, units="s"),
    Row(f"{DET}/detector_readout_time", FLOAT, units="s"),
    Row(f"{DET}/countrate_correction_applied", SIGNED),
    Row(f"{DET}/flatfield_correction_applied", SIGNED),
    Row(f"{DET}/pixel_mask_applied", SIGNED),
    Row(f"{DET}/virtual_pixel_correction_applied", SIGNED),
    Row(f"{DET}/description", TEXT),
    Row(f"{DET}/detector_number", TEXT),
    Row(f"{DET}/detector_distance", FLOAT, units="m"),
    Row(f"{DET}/sensor_material", TEXT),
    Row(f"{DET}/sensor_thickness", FLOAT, units="m"),
    Row(f"{DET}/threshold_energy", FLOAT, units="eV"),
    Row(f"{DET}/x_pixel_size", FLOAT, units="m"),
    Row(f"{DET}/y_pixel_size", FLOAT, units="m"),
    # NSLS-II; the sign of the distance is the header's
    Row(f"{DET}/geometry/orientation/value", FLOAT, 1, key="detector_orientation"),
    Row(f"{DET}/geometry/translation/distances", FLOAT, 1, key="detector_translation"),
    # header, NSLS-II, ARINA
    Row(f"{SPEC}/auto_summation", SIGNED),
    Row(f"{SPEC}/compression", TEXT),
    Row(f"{SPEC}/countrate_correction_count_cutoff", UNSIGNED),
    Row(f"{SPEC}/data_collection_date", TEXT),
    Row(f"{SPEC}/eiger_fw_version", TEXT),
    Row(f"{SPEC}/element", TEXT),
    Row(f"{SPEC}/frame_count_time", FLOAT, units="s"),
    Row(f"{SPEC}/frame_period", FLOAT, units="s"),
    Row(f"{SPEC}/nimages", UNSIGNED),
    Row(f"{SPEC}/ntrigger", UNSIGNED),
    Row(f"{SPEC}/photon_energy", FLOAT, units="eV"),
    Row(f"{SPEC}/roi_mode", TEXT),
    Row(f"{SPEC}/software_version", TEXT),
    Row(f"{SPEC}/trigger_mode", TEXT),
    # EIGER1, with an EIGER2's type
    Row(f"{SPEC}/number_of_excluded_pixels", UNSIGNED),
    # neggia
    Row(f"{SPEC}/x_pixels_in_detector", UNSIGNED),
    Row(f"{SPEC}/y_pixels_in_detector", UNSIGNED),
    Row(f"{SPEC}/pixel_mask", "<u4", 2),
    Row(f"{SPEC}/flatfield", "<f4", 2),
    # NSLS-II; no half modules, so that it lies here
    Row(f"{SPEC}/countrate_correction_table", "<u4", 1),
    # NSLS-II, DIALS
    Row(f"{DET}/distance", FLOAT, units="m", key="detector_distance"),
    Row(f"{DET}/saturation_value", UNSIGNED, key="countrate_correction_count_cutoff"),
    # ARINA (NSLS-II looks for it in detectorSpecific)
    Row(f"{DET}/type", TEXT),
    # DIALS for names and attributes; notes for depends_on of the fast axis and for the order of
    # data_size from firmware 2022.1.2 on
    Row(f"{DET}/depends_on", TEXT),
    Row(f"{DET}/module/data_origin", UNSIGNED, 1),
    Row(f"{DET}/module/data_size", UNSIGNED, 1),
    Row(f"{DET}/module/module_index", UNSIGNED),
    Row(
        f"{DET}/module/module_offset",
        FLOAT,
        units="m",
        attributes=step([-1.0, 0.0, 0.0], TRANSLATION),
    ),
    Row(
        f"{DET}/module/fast_pixel_direction",
        FLOAT,
        units="m",
        attributes=step([-1.0, 0.0, 0.0], TRANSLATION),
    ),
    Row(
        f"{DET}/module/slow_pixel_direction",
        FLOAT,
        units="m",
        attributes=step([0.0, -1.0, 0.0], "/entry/instrument/detector/module/fast_pixel_direction"),
    ),
    Row(
        f"{DET}/transformations/translation",
        FLOAT,
        units="m",
        attributes=step([0.0, 0.0, 1.0], "."),
    ),
    Row("sample/depends_on", TEXT),
    Row(
        "sample/transformations/omega",
        FLOAT,
        1,
        "degree",
        attributes={
            "transformation_type": "rotation",
            "vector": [-1.0, 0.0, 0.0],
            "depends_on": ".",
        },
    ),
    # NSLS-II, header
    *(
        Row(f"{place}/{axis}{end}", FLOAT, rank, "degree")
        for place, axes in (
            (f"{DET}/goniometer", ("two_theta",)),
            ("sample/goniometer", ("chi", "kappa", "omega", "phi")),
        )
        for axis in axes
        for end, rank in (("", 1), ("_end", 1), ("_range_average", 0), ("_range_total", 0))
    ),
)
# What `vector` and the value of transformations/translation are follows from the series: together
# they are the first pixel's place (API reference 1.8, section 4).

# XE 9M
LINK_TARGET = "/entry/data/data"
# neggia
SUPERBLOCK = "02080800"


def attribute(value: object) -> dict:
    """Return the description of an attribute."""
    if isinstance(value, str):
        kind = f"ASCII string of {len(value)} bytes, null-terminated"
        return {"type": kind, "rank": "scalar", "value": value}
    return {"type": "<f8", "rank": 1, "value": value}


def described() -> dict[str, dict]:
    """Return the objects by path as `make.describe` would describe a real file's, without links.

    What depends on the series is missing: values, shapes and the sizes of strings.
    """
    objects: dict[str, dict] = {"/": {"kind": "group", "attributes": {}}}
    for row in GROUPS:
        path = "/" + "/".join(filter(None, ("entry", row.path)))
        objects[path] = {"kind": "group", "attributes": {"NX_class": attribute(row.kind)}}
    for row in DATASETS:
        told = dict(row.attributes)
        if row.units is not None:
            told["units"] = row.units
        entry = {
            "kind": "dataset",
            "type": row.kind,
            "rank": row.rank or "scalar",
            "chunks": None,
            "layout": "contiguous",
            "allocation": "late",
            "fill_time": "if set",
            "fill_value": "user",
            "filters": [],
            "attributes": {name: attribute(value) for name, value in told.items()},
        }
        if row.kind != TEXT:
            entry["fill"] = 0
        objects[f"/entry/{row.path}"] = entry
    return objects


KEYS = {f"/entry/{row.path}": row.key for row in DATASETS if row.key}
