"""An image that was read and found whole, and is decompressed where and when that suits.

Knows nothing of files: it has the bytes of one chunk.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ophyd_eiger.chunks import Blocks, Chunk
from ophyd_eiger.codecs import Codec
from ophyd_eiger.master import HDF5_ERRORS


@dataclass(frozen=True, slots=True)
class Packed:
    """The bytes of an image, compressed.

    Attributes
    ----------
    raw : bytes or memoryview
        Its chunk.
    pieces : list of Blocks
        What it is decompressed in: one after the other, or all of it at once.
    size : int
        Bytes of the image in memory.
    itemsize : int
        Bytes of a pixel.
    before : int
        Bytes of the first piece that are of another image.
    broken : callable
        Makes the error that names file and image of a codec's.
    """

    raw: Chunk
    pieces: list[Blocks]
    size: int
    itemsize: int
    before: int
    broken: Callable[[BaseException], Exception]

    @property
    def is_alone(self) -> bool:
        """Whether the pieces are this image and nothing of another."""
        last = self.pieces[-1]
        return not self.before and last.first + last.size == self.size

    def begins_at(self, firsts: list[int]) -> bool:
        """Return whether the pieces begin at these bytes of the image and make all of it."""
        return self.is_alone and [piece.first for piece in self.pieces] == firsts

    def unpack(self, piece: Blocks, out: np.ndarray, codec: Codec) -> None:
        """Decompress a piece into an array of uint8, of its size.

        Raises
        ------
        ChunkError
            Naming file and image.
        """
        if piece.filter is None:
            out[...] = np.frombuffer(self.raw, np.uint8, piece.size, piece.begin)
            return
        try:
            codec.decode(self.raw, piece, self.itemsize, out)
        except HDF5_ERRORS as error:
            raise self.broken(error) from error

    def unpack_all(self, out: np.ndarray, codec: Codec) -> None:
        """Decompress all pieces into an array of uint8, of the image's size.

        Raises
        ------
        ChunkError
            Naming file and image.
        """
        if self.is_alone:
            for piece in self.pieces:
                self.unpack(piece, out[piece.first : piece.first + piece.size], codec)
            return
        (piece,) = self.pieces
        more = np.empty(piece.size, np.uint8)
        self.unpack(piece, more, codec)
        out[...] = more[self.before : self.before + self.size]
