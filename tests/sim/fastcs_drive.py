"""Drive a simulated EIGER2 with fastcs-eiger, unchanged, and say as JSON what it found.

Run by `test_fastcs.py` with the Python that has fastcs-eiger: `fastcs_drive.py PORT VERSION`.
"""

import asyncio
import json
import sys

from fastcs.connections import IPConnectionSettings
from fastcs.logging import logger
from fastcs_eiger.controllers.eiger_controller import EigerController


async def drive(port: int, version: str) -> dict[str, object]:
    errors: list[str] = []
    logger.remove()
    logger.enable("fastcs")
    logger.enable("fastcs_eiger")
    logger.add(errors.append, level="ERROR", format="{message} {exception}")
    root = EigerController(IPConnectionSettings("127.0.0.1", port), version)
    # What fastcs' own start-up does.
    await root.initialise()
    root.post_initialise()
    _, scans, initial = root.create_api_and_tasks()
    await root.connect()
    await asyncio.gather(*(read() for read in initial))
    scanning = [asyncio.ensure_future(scan()) for scan in scans]
    detector, stream = root.sub_controllers["detector"], root.sub_controllers["stream"]
    puts = {"count_time": 0.25, "nimages": 2, "ntrigger": 1, "photon_energy": 9000.0}
    for key, value in puts.items():
        await detector.attributes[key].put(value)
    await detector.attributes["threshold_difference_mode"].put("disabled")
    await stream.attributes["mode"].put("enabled")
    await root.arm_when_ready()
    await detector.attributes["state"].wait_for_value("ready", timeout=5)
    await detector.trigger()
    await detector.disarm()
    await detector.attributes["state"].wait_for_value("idle", timeout=5)
    for scan in scanning:
        scan.cancel()
    await asyncio.gather(*scanning, return_exceptions=True)
    await root.connection.close()
    return {
        "errors": errors,
        "attributes": {
            name: sorted(controller.attributes) for name, controller in root.sub_controllers.items()
        },
        "values": {key: detector.attributes[key].get() for key in (*puts, "bit_depth_image")},
    }


if __name__ == "__main__":
    result = asyncio.run(drive(int(sys.argv[1]), sys.argv[2]))
    sys.stdout.write("\n" + json.dumps(result) + "\n")
