"""The light on the simulated detector, and a shutter before it; of a real one there is neither."""

import requests
from ophyd import Signal

from ophyd_eiger import EigerError


class LightError(EigerError, ValueError):
    """There is no such light, or nothing that shines."""


class SimulatedShutter(Signal):
    """A shutter before the simulated detector, "open" or "close"; closed, the flux is 0.

    Parameters
    ----------
    url : str
        Address of the simulated DCU.
    """

    def __init__(self, url, *, name, **kwargs):
        self._beam = f"{url}/sim/beam"
        self._flux = 0.0  # of an open shutter, while it is closed
        super().__init__(name=name, value="open", **kwargs)

    @property
    def is_closed(self):
        """Whether it is closed."""
        return self.get() == "close"

    def put(self, value, **kwargs):
        """Open or close it, from the next arm on."""
        if value not in ("open", "close"):
            raise LightError(f"{self.name} can be set to 'open' and 'close', and not to {value!r}")
        if value == "close" and not self.is_closed:
            self._flux = self._change()["flux"]
            self._change(flux=0)
        elif value == "open" and self.is_closed:
            self._change(flux=self._flux)
        super().put(value, **kwargs)

    def shine(self, **changes):
        """Change the light from the next arm on; return it as it is before the shutter."""
        now = self._change(**changes)
        if self.is_closed:
            self._flux = changes.get("flux", self._flux)
            now = {**self._change(flux=0), "flux": self._flux}
        return now

    def _change(self, **changes):
        try:
            reply = requests.put(self._beam, json=changes, timeout=10)
        except requests.RequestException as error:
            raise LightError(f"the simulated detector does not answer: {error}") from error
        if not reply.ok:
            raise LightError(f"there is no such light: {reply.text}")
        return reply.json()


if simulator:
    if "shutter" not in globals():
        shutter = SimulatedShutter(simulator.url, name="shutter", labels={"shutters"})

    def light(scene=None, flux=None, energy=None):
        """Change what shines on the simulated detector, and tell it; light() only tells it.

        Parameters
        ----------
        scene : str, optional
            "scatter", "rings", "crystal", "flat" or "test-pattern".
        flux : float, optional
            Factor on the scene's photons.
        energy : float, optional
            Of the photons, in eV.
        """
        asked = {"scene": scene, "flux": flux, "energy": energy}
        now = shutter.shine(**{name: given for name, given in asked.items() if given is not None})
        of = "the detector's photon_energy" if now["energy"] is None else f"{now['energy']:g} eV"
        closed = "; the shutter is closed" if shutter.is_closed else ""
        print(f"light: {now['scene']}, flux {now['flux']:g}, photons of {of}{closed}")
