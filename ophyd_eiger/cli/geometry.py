"""`--geometry`: what a master file does not say of where the beam was, or says wrongly."""

from collections.abc import Callable
from typing import Any

import click

from ophyd_eiger.cli.common import Failed


class Part(click.ParamType):
    """One number of a geometry: NAME=NUMBER."""

    name = "name=number"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, float]:
        """Return its name and the number."""
        from ophyd_eiger.geometry import PARTS

        name, _, text = str(value).partition("=")
        try:
            number = float(text)
        except ValueError:
            self.fail(f"{value!r} is no number by its name, as distance=0.2", param, ctx)
        if name not in PARTS:
            self.fail(f"{name!r} is none of {', '.join(PARTS)}", param, ctx)
        return name, number


def geometry_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option `--geometry`, as often as wanted."""
    help_text = (
        "Where the beam was, in place of what the master file says: distance=, pixel_size_x=, "
        "pixel_size_y= in m, beam_center_x=, beam_center_y= in pixels, wavelength= in angstrom."
    )
    return click.option("--geometry", type=Part(), multiple=True, help=help_text)(command)


def unknown_geometry(error: Exception, otherwise: str = "") -> Failed:
    """Return what to tell where a master file does not say all of a geometry."""
    reason = str(error).partition("; give ")[0]
    return Failed(
        f"{reason}; give it, as --geometry distance=0.2{otherwise}; of the next series the "
        "detector can tell it: ophyd-eiger set URL detector_distance=... beam_center_x=...",
        type(error).__name__,
    )
