"""Draws what each scene of the simulated DCU shows: `python docs/make_scenes.py [RECORDING]`.

Takes one image of each scene from a simulated EIGER 1M, as any client would, and writes the
pictures of docs/scenes.md; that of a recording from an EIGER2 16M, where one is given.
"""

import argparse
import tempfile
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - reads the images' compression
import numpy as np
import requests
from PIL import Image

import sim_dcu
from sim_dcu.beam import SCENES

FOLDER = Path(__file__).with_name("scenes")
# In s; that of `flat` shows its noise.
EXPOSURE, EXPOSURE_FLAT = 10.0, 1.0
# One pixel of a picture is so many of the image; of the test pattern's corner it is the reverse.
REDUCED, REDUCED_16M, ENLARGED, CORNER = 2, 8, 4, 128
# Counts from here on are black.
BLACK = 100
MASKED = (150, 165, 190)


def taken(model: str, scene: str) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of a scene, (y, x), and which of its pixels are masked."""
    with (
        tempfile.TemporaryDirectory() as folder,
        sim_dcu.serve(model, initialized=True, scene=scene, data_dir=folder) as server,
    ):
        detector = f"{server.url}/detector/api/1.6.0"
        put(f"{server.url}/filewriter/api/1.6.0/config/mode", "enabled")
        settings = {
            "count_time": EXPOSURE_FLAT if scene == "flat" else EXPOSURE,
            "detector_distance": 0.06,
            "beam_center_x": 515.0,
            "beam_center_y": 560.0,
        }
        for key, value in settings.items():
            put(f"{detector}/config/{key}", value)
        for command in ("arm", "trigger", "disarm"):
            put(f"{detector}/command/{command}")
        with h5py.File(Path(folder) / "series_1_master.h5") as file:
            image = file["entry/data/data_000001"][0]
            mask = file["entry/instrument/detector/detectorSpecific/pixel_mask"][()]
    return image, mask != 0


def put(url: str, value: object = None) -> None:
    """Send a value or a command."""
    body = None if value is None else {"value": value}
    requests.put(url, json=body, timeout=60).raise_for_status()


def reduced(image: np.ndarray, masked: np.ndarray, by: int) -> Image.Image:
    """Return a picture of the largest count of every `by` x `by` pixels, by its logarithm."""
    shape = tuple(size // by for size in image.shape)
    counts = np.where(masked, 0, image)[: shape[0] * by, : shape[1] * by].astype(float)
    largest = counts.reshape(shape[0], by, shape[1], by).max(axis=(1, 3))
    gaps = masked[: shape[0] * by : by, : shape[1] * by : by]
    return coloured(1 - np.log1p(largest) / np.log1p(BLACK), gaps)


def corner(image: np.ndarray, masked: np.ndarray) -> Image.Image:
    """Return a picture of the first pixels, enlarged, by their value."""
    first = (slice(0, CORNER), slice(0, CORNER))
    values = np.where(masked, 0, image)[first] / image[first][~masked[first]].max()
    picture = coloured(values, masked[first])
    return picture.resize((ENLARGED * CORNER,) * 2, Image.Resampling.NEAREST)


def coloured(brightness: np.ndarray, masked: np.ndarray) -> Image.Image:
    """Return a picture of brightness from 0 to 1, with what is masked in a colour."""
    grey = (255 * np.clip(brightness, 0, 1)).astype(np.uint8)
    picture = np.stack([grey] * 3, axis=-1)
    picture[masked] = MASKED
    return Image.fromarray(picture).quantize(32)


def main() -> None:
    """Write every picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", nargs="?", help="file or folder of images of a 16M")
    recording = parser.parse_args().recording
    FOLDER.mkdir(exist_ok=True)
    for scene in SCENES:
        image, masked = taken("eiger-1m", scene)
        pattern = scene == "test-pattern"
        picture = corner(image, masked) if pattern else reduced(image, masked, REDUCED)
        picture.save(FOLDER / f"{scene}.png", optimize=True)
    if recording is not None:
        picture = reduced(*taken("eiger2-16m", recording), REDUCED_16M)
        picture.save(FOLDER / "recording.png", optimize=True)


if __name__ == "__main__":
    main()
