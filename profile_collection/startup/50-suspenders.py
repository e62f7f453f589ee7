"""Suspenders: scans wait while the detector is not well. suspenders_off() lets them run."""

from eiger_plans import suspenders

if "installed_suspenders" not in globals():
    installed_suspenders = []


def suspenders_on(**limits):
    """Hold scans while the detector is not well; limits as of eiger_plans.suspenders."""
    suspenders_off()
    for suspender in suspenders(eiger, **limits):
        RE.install_suspender(suspender)
        installed_suspenders.append(suspender)
        eiger_ends.callback(RE.remove_suspender, suspender)


def suspenders_off():
    """Let scans run whatever the detector says of itself."""
    while installed_suspenders:
        RE.remove_suspender(installed_suspenders.pop())
    eiger.care.stop()


if eiger.care.signals:
    suspenders_on()
