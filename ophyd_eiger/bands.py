"""Some images at a time, band by band: what is made of many images stays in a processor's cache.

An image of millions of pixels does not, and is written to memory and read again. So a few images
are read, and of all of them a band of pixels is decompressed and used before the next. Knows
nothing of files: compressed images come from whoever read them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from ophyd_eiger.codecs import Codec
from ophyd_eiger.image_file import Geometry
from ophyd_eiger.packed import Packed

# Images that are gone through together, at most, and the bytes of a band of each of them.
# With bands of a quarter two threads sum a fifth slower, though one thread does not (measured).
TOGETHER = 8
BAND_BYTES = 2**19
# Bytes of compressed images that are kept at a time; and of whole ones, of which no band can be
# decompressed by itself.
_MOST_PACKED, _MOST_WHOLE = 2**25, 2**25

# Takes which pixels, counted along the rows, and their values, of shape (images, pixels).
Use = Callable[[slice, np.ndarray], None]


class Bands:
    """Memory of one thread, which goes through images.

    Parameters
    ----------
    geometry : Geometry
        Of each image.
    codec : Codec
        What decompresses them.
    """

    def __init__(self, geometry: Geometry, codec: Codec) -> None:
        itemsize = geometry.dtype.itemsize
        step = BAND_BYTES // itemsize
        self._codec, self._dtype = codec, geometry.dtype
        self._pixels = geometry.shape[0] * geometry.shape[1]
        self._bands = [
            slice(start, min(start + step, self._pixels)) for start in range(0, self._pixels, step)
        ]
        self._firsts = [band.start * itemsize for band in self._bands]
        self._some = np.empty((TOGETHER, min(step, self._pixels)), self._dtype)
        self._whole: np.ndarray | None = None

    def go_through(self, images: Iterable[Packed], use: Use) -> None:
        """Call `use` with each band of some of the images, until it had every pixel of all.

        The array is used again for the next band.

        Raises
        ------
        ChunkError
            Naming file and image.
        """
        for some in _in_groups(images):
            if self._codec.by_blocks and all(image.begins_at(self._firsts) for image in some):
                self._by_bands(some, use)
            else:
                self._by_images(some, use)

    def _by_bands(self, images: Sequence[Packed], use: Use) -> None:
        for number, band in enumerate(self._bands):
            some = self._some[: len(images), : band.stop - band.start]
            for image, pixels in zip(images, some, strict=True):
                image.unpack(image.pieces[number], pixels.view(np.uint8), self._codec)
            use(band, some)

    def _by_images(self, images: Sequence[Packed], use: Use) -> None:
        if self._whole is None:
            most = max(1, _MOST_WHOLE // (self._pixels * self._dtype.itemsize))
            self._whole = np.empty((min(most, TOGETHER), self._pixels), self._dtype)
        most = len(self._whole)
        for start in range(0, len(images), most):
            some = images[start : start + most]
            for image, pixels in zip(some, self._whole, strict=False):
                image.unpack_all(pixels.view(np.uint8), self._codec)
            for band in self._bands:
                use(band, self._whole[: len(some), band])


def _in_groups(images: Iterable[Packed]) -> Iterator[list[Packed]]:
    group: list[Packed] = []
    packed = 0
    for image in images:
        group.append(image)
        packed += len(image.raw)
        if len(group) == TOGETHER or packed >= _MOST_PACKED:
            yield group
            group, packed = [], 0
    if group:
        yield group
