"""Read series with DIALS and store what it finds: geometry as JSON, images as numpy arrays.

    python3 dials_read.py FOLDER MASTER...

Run by the Python that DIALS is installed for, so that nothing of ours is imported. For the n-th
master FOLDER gets n.json and n.npy.
"""

import json
import sys
from pathlib import Path

import numpy as np
from dxtbx.model.experiment_list import ExperimentListFactory


def main(folder: Path, masters: list[str]) -> None:
    for index, master in enumerate(masters):
        (experiment,) = ExperimentListFactory.from_filenames([master])
        images, (panel,) = experiment.imageset, experiment.detector
        found = {
            "format": images.get_format_class().__name__,
            "size": panel.get_image_size(),
            "distance": panel.get_distance(),
            "origin": panel.get_origin(),
            "fast": panel.get_fast_axis(),
            "slow": panel.get_slow_axis(),
            "pixel": panel.get_pixel_size(),
            "thickness": panel.get_thickness(),
            "material": panel.get_material(),
            "trusted": panel.get_trusted_range(),
            "beam_center": panel.get_ray_intersection_px(experiment.beam.get_s0()),
            "wavelength": experiment.beam.get_wavelength(),
            "oscillation": experiment.scan.get_oscillation(),
            "exposure": experiment.scan.get_exposure_times()[0],
            "axis": experiment.goniometer.get_rotation_axis(),
        }
        (folder / f"{index}.json").write_text(json.dumps(found))
        stack = [images.get_raw_data(i)[0].as_numpy_array() for i in range(len(images))]
        np.save(folder / f"{index}.npy", stack)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
