"""The scene FILE: images that were recorded, played one after the other and then over again.

They are taken as they are, whatever the exposure, the threshold and the corrections: only the
detector's own mask and its depth bear on them. What is negative, as gaps are in many formats, is 0;
the frame's middle is put on the detector's, and what it does not reach is 0.
"""

import functools
import threading
from pathlib import Path

import numpy as np

_reading = threading.Lock()


class Recording:
    """The frames of a file, or of the files of a folder in the order of their names.

    Parameters
    ----------
    path : str
        What fabio reads.

    Raises
    ------
    ValueError
        Where fabio is not installed, or reads no images there.
    """

    def __init__(self, path: str) -> None:
        try:
            import fabio
        except ImportError as error:
            raise ValueError(
                f"scene {path}: recorded images are read by fabio: "
                f"pip install 'ophyd-eiger[recordings]' ({error})"
            ) from error
        place = Path(path)
        files = sorted(place.iterdir()) if place.is_dir() else [place]
        self._frames: list[tuple[str, int]] = []
        for file in files:
            try:
                with fabio.open(str(file)) as image:
                    self._frames += [(str(file), number) for number in range(image.nframes)]
            except Exception as error:
                raise ValueError(f"scene {file}: fabio reads no image there: {error}") from error
        if not self._frames:
            raise ValueError(f"scene {path}: the folder is empty")
        self._open = fabio.open

    def __len__(self) -> int:
        return len(self._frames)

    def frame(self, number: int) -> np.ndarray:
        """Return the frame that image `number`, from 1, plays: int64, (y, x) of the file."""
        file, index = self._frames[(number - 1) % len(self._frames)]
        with _reading, self._open(file) as image:
            data = image.data if image.nframes == 1 else image.get_frame(index).data
        return np.asarray(data).astype(np.int64)


@functools.lru_cache(maxsize=4)
def recording(path: str) -> Recording:
    """Return the recording at a path, looked through once."""
    return Recording(path)
