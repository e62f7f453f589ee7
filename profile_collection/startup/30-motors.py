"""Motors: a simulated one, in the place of those of a beamline."""

from eiger_plans import SimulatedMotor

motor = SimulatedMotor(
    name="motor", velocity=5.0, limits=(-180.0, 180.0), egu="deg", labels={"motors"}
)
