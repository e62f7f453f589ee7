"""The 2024.2 layout as it is described, written with plain h5py."""

import h5py
import hdf5plugin
import numpy as np

CHANNELS = ("threshold_1", "threshold_2")


def write_nexus(folder, stack, per_file, *, together):
    """Write what the 2024.2 layout is described as: data files, and a master that maps them."""
    images, channels = stack.shape[:2]
    shape = stack.shape[2:]
    folder.mkdir(exist_ok=True)
    master = folder / "n_master.h5"
    with h5py.File(master, "w", libver=("v110", "v110")) as file:
        layout = h5py.VirtualLayout(stack.shape, stack.dtype)
        for number, first in enumerate(range(0, images, per_file), 1):
            part = stack[first : first + per_file]
            name = f"n_data_{number:06d}.h5"
            with h5py.File(folder / name, "w") as data_file:
                data_file.create_dataset(
                    "entry/data/data",
                    data=part,
                    chunks=(1, channels if together else 1, *shape),
                    **hdf5plugin.Bitshuffle(),
                )
            layout[first : first + len(part)] = h5py.VirtualSource(
                name, "entry/data/data", shape=part.shape
            )
        file.create_virtual_dataset("entry/data/data", layout)
        file["entry/data/channel"] = list(CHANNELS)
        for number, channel in enumerate(CHANNELS, 1):
            group = file.create_group(f"entry/instrument/detector/{channel}_channel")
            group["pixel_mask"] = np.full(shape, number, np.uint32)
            group["threshold_energy"] = 4000.0 * number
            group["threshold_energy"].attrs["units"] = "eV"
    return master
