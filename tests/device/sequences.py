"""The requests that each verb sends in each mode, in order; docs/sequences.md is made of them.

`python tests/device/sequences.py > docs/sequences.md` writes it. A request that is sent again and
again until its answer changes ends in a star.
"""

RELIED_ON = "GET what `ophyd_eiger.arming.RELIED_ON` lists"
SHARED = "GET what `ophyd_eiger.arming.SHARED` lists"
NAME = ["PUT filewriter config/name_pattern", "GET filewriter config/name_pattern"]
# What another client has put since is left.
NAME_BACK = [NAME[1], *NAME]
NAMED_BY = [f"GET filewriter config/{key}" for key in ("mode", "name_pattern", "nimages_per_file")]
# Another client may have set the detector up at the same time.
ARM = ["PUT detector command/arm", *NAMED_BY, "GET detector config/bit_depth_image"]
# What somebody may have changed since the series before.
ARM_AGAIN = [ARM[0], SHARED, ARM[-1]]
BUFFER = "GET filewriter status/buffer_free"
STATE = "GET detector status/state"
POLL = STATE + "*"
DISARM = "PUT detector command/disarm"
TRIGGER = "PUT detector command/trigger"
DATE = "GET detector config/data_collection_date"
STAGE = [STATE, RELIED_ON, BUFFER, *NAME, *ARM, DATE]
# With external triggers the monitor may tell of images, so its mode is asked for.
EXTERNAL_STAGE = [STATE, RELIED_ON, "GET monitor config/mode", BUFFER, *NAME, *ARM, DATE]


def put_and_back(*keys):
    return [f"{verb} detector config/{key}" for key in keys for verb in ("PUT", "GET")]


# Title: the settings, and (verbs, requests) in the order of the verbs. A fly scan's kickoff sends
# its trigger, and is done before the DCU answers: what comes of it is between the two verbs.
SEQUENCES = {
    "ints, a series a point": (
        {"nimages": 2, "ntrigger": 1},
        [
            ("stage", STAGE),
            ("trigger", [TRIGGER, STATE, DISARM]),
            ("trigger", [*ARM_AGAIN, TRIGGER, STATE, DISARM]),
            ("unstage", NAME_BACK),
        ],
    ),
    "ints, armed once for two points": (
        {"nimages": 2, "ntrigger": 2},
        [
            ("stage", STAGE),
            ("trigger", [TRIGGER]),
            ("trigger", [TRIGGER, STATE, DISARM]),
            ("unstage", NAME_BACK),
        ],
    ),
    "inte, armed once for two points": (
        {"trigger_mode": "inte", "ntrigger": 2},
        [
            ("stage", STAGE),
            ("trigger", [TRIGGER, POLL]),
            ("trigger", [TRIGGER, POLL, DISARM]),
            ("unstage", NAME_BACK),
        ],
    ),
    "exts, a series a point": (
        {"trigger_mode": "exts", "ntrigger": 1},
        [
            ("stage", EXTERNAL_STAGE),
            ("trigger", [POLL, DISARM]),
            ("trigger", [*ARM_AGAIN, POLL, DISARM]),
            ("unstage", NAME_BACK),
        ],
    ),
    "exts, armed once for two points, seen by their files": (
        {"trigger_mode": "exts", "ntrigger": 2, "filewriter.nimages_per_file": 1},
        [
            ("stage", EXTERNAL_STAGE),
            ("trigger", [POLL]),
            ("trigger", [POLL, DISARM]),
            ("unstage", NAME_BACK),
        ],
    ),
    "exte, a series a point": (
        {"trigger_mode": "exte", "ntrigger": 1},
        [
            ("stage", EXTERNAL_STAGE),
            ("trigger", [POLL, DISARM]),
            ("unstage", NAME_BACK),
        ],
    ),
    "fly, one series of four images": (
        {"nimages": 4, "ntrigger": 1},
        [
            ("stage", STAGE),
            ("kickoff, complete", [TRIGGER, STATE, DISARM]),
            ("unstage", NAME_BACK),
        ],
    ),
    "fly exts, prepared for two points": (
        {},
        [
            ("stage", STAGE),
            ("prepare", [DISARM, *put_and_back("trigger_mode", "ntrigger"), BUFFER, *ARM_AGAIN]),
            ("kickoff, complete", [POLL, DISARM]),
            ("unstage", [NAME[1], *put_and_back("ntrigger", "trigger_mode"), *NAME]),
        ],
    ),
}


def as_markdown():
    """Return docs/sequences.md."""
    lines = [
        "# What each verb sends",
        "",
        "The requests of the device's verbs in order, without those of the files, which go home "
        "beside them (`GET filewriter files`, `GET /data/<name>`).",
        "A star marks a request that is sent again and again until its answer changes.",
        "A series that nobody looked at for over a second is asked for its name pattern before it "
        "is triggered or ended, for somebody may have taken the detector over.",
        "This page is made of the list that the tests hold the requests against: "
        "`python tests/device/sequences.py > docs/sequences.md`.",
    ]
    for title, (settings, verbs) in SEQUENCES.items():
        told = ", ".join(f"`{key}` {value}" for key, value in settings.items())
        lines += ["", f"## {title}", ""]
        lines += [f"With {told}.", ""] if told else []
        lines += ["```mermaid", "sequenceDiagram", "    participant R as RunEngine"]
        lines += ["    participant E as EigerDetector", "    participant D as DCU"]
        for verb, requests in verbs:
            lines.append(f"    R->>E: {verb}")
            lines += [f"    E->>D: {request.replace('`', '')}" for request in requests]
        lines.append("```")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(as_markdown())
