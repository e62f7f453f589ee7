"""How each generation's firmware builds its files, each in one object.

EIGER1's is that of real files of firmware 1.6. EIGER2's data files are those of real files of
firmware 2020.2.2; its master file is described in `master_eiger2`. What a file says is in
`master_eiger1` and `master_eiger2`; here is how it is stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sim_dcu import codec, geometry, master_eiger1, master_eiger2
from sim_dcu.codec import Compression
from sim_dcu.master_file import Tree
from sim_dcu.series import ArmedSeries


@dataclass(frozen=True)
class FileLayout:
    """One generation's files.

    Attributes
    ----------
    formats : tuple of str
        The oldest and the newest format of HDF5 objects, h5py's `libver`. Both are read by every
        HDF5 since 1.8: the newest format would have HDF5 1.10 tools and neggia give up.
    master : Tree
        What a master file says.
    link_target : str
        Where the images lie in a data file, as a master file's links have it.
    class_sizes : tuple of int
        Bytes of the classes "NXentry" and "NXdata" in a data file.
    number_type : str
        The type of `image_nr_low` and `image_nr_high`.
    largest_number : int
        The largest image number that fits.
    fills_with_largest : bool
        Whether an image that was never written reads 2^bits - 1; 0 otherwise.
    compressions : mapping
        What `compression` may be, by name.
    bitshuffle_version : tuple of int
        The filter's version, which it writes into each dataset.
    """

    formats: tuple[str, str]
    master: Tree
    link_target: str
    class_sizes: tuple[int, int]
    number_type: str
    largest_number: int
    fills_with_largest: bool
    compressions: Mapping[str, Compression]
    bitshuffle_version: tuple[int, int]

    def compression(self, series: ArmedSeries) -> Compression:
        """Return how the images of a series are compressed.

        Raises
        ------
        ValueError
            Where the firmware has no such compression.
        """
        if not series.filewriter["compression_enabled"]:
            return codec.NONE
        name = series.detector["compression"]
        try:
            return self.compressions[name]
        except KeyError:
            raise ValueError(
                f'compression "{name}" is none of {", ".join(self.compressions)}'
            ) from None


EIGER1 = FileLayout(
    formats=("earliest", "v108"),
    master=master_eiger1.TREE,
    link_target="entry/data/data",
    class_sizes=(8, 6),
    number_type="<i4",
    largest_number=2**31 - 1,
    fills_with_largest=False,
    compressions={"bslz4": codec.BSLZ4, "lz4": codec.LZ4_WHOLE},
    bitshuffle_version=(0, 2),
)
EIGER2 = FileLayout(
    formats=("v108", "v108"),
    master=master_eiger2.TREE,
    # So a user of DIALS printed it of an EIGER2 XE 9M's master file.
    link_target="/entry/data/data",
    class_sizes=(8, 7),
    number_type="<u8",
    largest_number=2**64 - 1,
    fills_with_largest=True,
    compressions={"bslz4": codec.BSLZ4, "lz4": codec.LZ4_IN_BLOCKS, "none": codec.NONE},
    bitshuffle_version=(0, 3),
)
_LAYOUTS = {geometry.EIGER1: EIGER1, geometry.EIGER2: EIGER2}


def layout_of(series: ArmedSeries) -> FileLayout:
    """Return the layout of a series' files: that of the detector's generation.

    It does not follow from the API's version: EIGER2 writes the same files whichever it answers.

    Raises
    ------
    ValueError
        Where no whole number of either generation's modules makes up the images.
    """
    return _LAYOUTS[geometry.generation_of(series.shape)]
