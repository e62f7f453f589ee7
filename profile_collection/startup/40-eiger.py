"""The detector, and what each run notes of it."""

import contextlib
import os

from bluesky.preprocessors import SupplementalData
from eiger_plans import files_home

from ophyd_eiger import EigerDetector, EigerError

# Run again in the same prompt, this file makes the detector anew.
if "eiger_ends" in globals():
    eiger_ends.close()
eiger_ends = at_exit.enter_context(contextlib.ExitStack())


def detector_at(address):
    return EigerDetector(
        address,
        name="eiger",
        directory=data_folder,
        labels={"detectors"},
        live=True,  # the sum of each point's image, which is plotted
    )


def end_paused(engine):
    """Abort what is paused when the prompt ends, so that the detector is left in good order."""
    if engine.state == "paused":
        engine.abort("the prompt ended")


try:
    eiger = detector_at(simulator.url if simulator else os.environ["EIGER_URL"])
except EigerError as error:
    print(f"EIGER_URL: {error}; give the DCU's and start again")
    eiger = detector_at("http://dcu.invalid")
eiger_ends.callback(eiger.destroy)
eiger_ends.callback(end_paused, RE)

# Temperature, humidity, room for files, and motors, before and after each run; beside what a
# beamline has there already.
if "sd" not in globals():
    sd = SupplementalData()
sd.baseline = [each for each in sd.baseline if each.name not in (eiger.care.name, motor.name)]
sd.baseline += [eiger.care, motor]


def note_baseline(plan):
    """What sd says, without a detector that never answered: other runs go on without it."""
    known = [device for device in sd.baseline if device is not eiger.care or eiger.care.signals]
    return SupplementalData(baseline=known, monitors=sd.monitors, flyers=sd.flyers)(plan)


# In place of those that this file put there before, and of sd, which is in the first of them.
replaced = [sd, *globals().get("eiger_preprocessors", [])]
eiger_preprocessors = [note_baseline, files_home(eiger)]
RE.preprocessors[:] = [each for each in RE.preprocessors if each not in replaced]
RE.preprocessors += eiger_preprocessors
if "BlueskyMagics" in globals():
    # %ct has a RunEngine of its own, and no catalog: it tells which series its image is.
    BlueskyMagics.RE.preprocessors[:] = [files_home(eiger, times=False)]

try:
    eiger.connect()
except EigerError as error:
    print(f"eiger is not connected ({error}); when it is on: eiger.connect(), suspenders_on()")
