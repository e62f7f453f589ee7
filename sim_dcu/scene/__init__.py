"""The definition of every pixel's count: from the beam's photons to the number in an image.

* The scene gives each pixel a *level*, and a level's expected photons are its rate times the flux,
  the exposure and the share that the threshold counts (`bands`; `scatter`, `rings`, `crystal`,
  `flat`; `spectrum`);
* pixels are of different *kinds*: of slightly different response, dead, or counting without a
  photon (`sensor`);
* level and kind make a table of thresholds, and a pixel's photons are the number of thresholds
  that a 32-bit random number reaches (`poisson`);
* the pixel loses some of them, and the detector corrects (`counting`); then comes the mask.

It is decided in integers, or in double precision with a stated order, so that an image depends on
no machine and no numpy version.

A *pool* of images is drawn so. Image n of a series takes each of its blocks of
`BLOCK_BYTES` bytes from the same place of one pool image, chosen anew for each block by the raw
output that belongs to (seed, series, n). The producer then has to compress the pool alone. An image
with an exposure of its own, as a trigger or gate may bring it, is put together in the same way from
the pool of that exposure. The spots of a crystal add their photons to those of such an image. A
`pattern` has a pool too, but no photons; a `recording` has neither.

This package holds the definition; `oracle` and `images` each follow it in their own way. It knows
nothing of codecs or files.
"""

from sim_dcu.random_numbers import Purpose, random_bytes
from sim_dcu.scene import crystal, flat, pattern, rings, scatter, sensor
from sim_dcu.scene.bands import Bands
from sim_dcu.scene.counting import Counting
from sim_dcu.scene.optics import Optics, beam_energy
from sim_dcu.scene.poisson import RANDOM_BITS, CountTable, count_table
from sim_dcu.scene.pool import (
    BLOCK_BYTES,
    PoolKey,
    block_choice,
    check_number,
)
from sim_dcu.scene.recording import recording
from sim_dcu.scene.spectrum import ENERGY_WIDTH, SHARED, counted_share

__all__ = [
    "BLOCK_BYTES",
    "ENERGY_WIDTH",
    "RANDOM_BITS",
    "SHARED",
    "Bands",
    "CountTable",
    "Counting",
    "Optics",
    "PoolKey",
    "Purpose",
    "beam_energy",
    "block_choice",
    "check_number",
    "count_table",
    "counted_share",
    "crystal",
    "flat",
    "pattern",
    "random_bytes",
    "recording",
    "rings",
    "scatter",
    "sensor",
]
