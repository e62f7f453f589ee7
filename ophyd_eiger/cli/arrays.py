"""Arrays that people give in files."""

from pathlib import Path
from typing import TYPE_CHECKING

from ophyd_eiger.cli.common import Failed

if TYPE_CHECKING:
    import numpy as np


def load_array(path: Path) -> "np.ndarray":
    """Return the array of a .npy file.

    Raises
    ------
    Failed
        If there is none in it.
    """
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise Failed(f"{path}: no array of numpy ({error})", type(error).__name__) from error
    if not isinstance(found, np.ndarray):
        found.close()
        raise Failed(f"{path}: several arrays; give a .npy file", "ValueError")
    return found
