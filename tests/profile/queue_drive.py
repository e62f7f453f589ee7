"""Has the queueserver run `series` of the profile: `queue_drive.py STARTUP_DIR FOLDER REDIS_PORT`.

Runs in an environment that has the queueserver. Prints as JSON which plans and devices it found,
and what became of the plan; `RE Manager` says the rest on stderr.
"""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

from bluesky_queueserver.manager.comms import zmq_single_request

PATIENCE_S = 240


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


def ask(address: str, method: str, **params: object) -> dict:
    reply, error = zmq_single_request(method, params, zmq_server_address=address, timeout=60000)
    if error or reply.get("success") is False:
        raise SystemExit(f"{method}: {error or reply['msg']}")
    return reply


def wait_for(address: str, what: str, value: object) -> None:
    until = time.monotonic() + PATIENCE_S
    while (status := ask(address, "status"))[what] != value:
        if time.monotonic() > until:
            raise SystemExit(f"{what} is not {value!r}: {status}")
        time.sleep(0.2)


def drive(address: str) -> dict:
    ask(address, "environment_open")
    wait_for(address, "worker_environment_exists", True)
    plans = ask(address, "plans_allowed", user_group="primary")["plans_allowed"]
    devices = ask(address, "devices_allowed", user_group="primary")["devices_allowed"]
    item = {"item_type": "plan", "name": "series", "args": ["eiger", 0.02, 3]}
    ask(address, "queue_item_add", item=item, user="test", user_group="primary")
    ask(address, "queue_start")
    wait_for(address, "items_in_history", 1)
    (done,) = ask(address, "history_get")["items"]
    ask(address, "environment_close")
    wait_for(address, "worker_environment_exists", False)
    ask(address, "manager_stop")
    return {
        "plans": {name: [p["name"] for p in plan["parameters"]] for name, plan in plans.items()},
        "devices": sorted(devices),
        "result": done["result"],
    }


def main() -> None:
    startup, folder, redis_port = sys.argv[1:]
    control = free_address()
    manager = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("start-re-manager")),
            *("--startup-dir", startup, "--zmq-control-addr", control),
            *("--redis-addr", f"127.0.0.1:{redis_port}"),
        ],
        cwd=folder,
        stdout=sys.stderr,
    )
    try:
        sys.stdout.write(json.dumps(drive(control)))
        manager.wait(60)
    finally:
        manager.terminate()
        manager.wait(20)


if __name__ == "__main__":
    main()
