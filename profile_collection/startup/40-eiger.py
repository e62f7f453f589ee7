"""The detector, and what each run notes of it."""

from bluesky.preprocessors import SupplementalData
from eiger_plans import files_home

from ophyd_eiger import EigerDetector, EigerError

# Run again in the same prompt, this file makes the detector anew.
if "eiger_ends" in globals():
    eiger_ends.close()
eiger_ends = at_exit.enter_context(contextlib.ExitStack())

eiger = EigerDetector(
    simulator.url if simulator else os.environ["EIGER_URL"],
    name="eiger",
    directory=data_folder,
    labels={"detectors"},
    live=True,  # the sum of each point's image, which is plotted
)
eiger_ends.callback(eiger.destroy)
eiger_ends.callback(end_paused, RE)

# Temperature, humidity, room for files, and motors, before and after each run.
sd = SupplementalData(baseline=[eiger.care, motor])


def note_baseline(plan):
    """What sd says, without a detector that never answered: other runs go on without it."""
    known = [device for device in sd.baseline if device is not eiger.care or eiger.care.signals]
    return SupplementalData(baseline=known, monitors=sd.monitors, flyers=sd.flyers)(plan)


RE.preprocessors[:] = [note_baseline, files_home(eiger)]
if "BlueskyMagics" in globals():
    # %ct has a RunEngine of its own, and no catalog: it tells which series its image is.
    BlueskyMagics.RE.preprocessors[:] = [files_home(eiger, times=False)]

try:
    eiger.connect()
except EigerError as error:
    print(f"eiger is not connected ({error}); when it is on: eiger.connect(), suspenders_on()")
