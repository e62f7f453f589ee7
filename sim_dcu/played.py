"""Images of a recording, compressed one by one; knows nothing of files or time."""

from functools import lru_cache

import numpy as np

from sim_dcu import codec, scene
from sim_dcu.codec import Compression
from sim_dcu.series import ArmedSeries

# Chunks kept: a recording of few frames is compressed once.
KEPT = 16


class Played:
    """The images of a series whose scene is a recording, as chunks.

    Parameters
    ----------
    series : ArmedSeries
        The configuration the series was armed with.
    compression : Compression
        What the chunks are.
    """

    def __init__(self, series: ArmedSeries, compression: Compression) -> None:
        self._key = scene.PoolKey.of(series)
        self._path = series.beam.scene
        self._compression = compression
        self._made = lru_cache(maxsize=KEPT)(self._make)

    def build(self) -> None:
        """Look the recording through; compress a short one, whose images come again and again."""
        frames = len(scene.recording(self._path))
        if frames <= KEPT:
            for index in range(frames):
                self._made(index)

    def chunk(self, number: int) -> bytes:
        """Return the chunk of image `number`, from 1."""
        return self._made((number - 1) % len(scene.recording(self._path)))

    def _make(self, index: int) -> bytes:
        frame = scene.recording(self._path).frame(index + 1)
        key = self._key
        image = np.zeros(key.shape, dtype=f"<u{key.bits // 8}")
        here, there = [], []
        for size, has in zip(key.shape, frame.shape, strict=True):
            first = (size - has) // 2
            here.append(slice(max(0, first), max(0, min(size, first + has))))
            there.append(slice(max(0, -first), max(0, min(has, size - first))))
        image[tuple(here)] = frame[tuple(there)].clip(0, key.counting.most)
        if key.masked is not None:
            image[key.masked] = key.masked_count
        if self._compression is codec.NONE:
            return image.tobytes()
        return codec.compressed(image, self._compression)
