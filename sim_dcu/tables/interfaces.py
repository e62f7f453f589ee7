"""Every resource of monitor, stream and system, of both generations, as data.

EIGER1: API reference 1.3, 3.2 and 3.4, with the types it prints; it has no stream subsystem, whose
names are those that clients of late EIGER1 firmware use. EIGER2: API reference 1.8 and the
resources that fastcs-eiger found on a real EIGER2 XE 16M.
"""

from dataclasses import dataclass

from sim_dcu import geometry
from sim_dcu.models import Model
from sim_dcu.parameters import Parameter
from sim_dcu.status import Status

ON_OFF = ("enabled", "disabled")
# 100 is EIGER2's; taken for EIGER1 too, an estimate. The largest is one: 10,000 images of a 4M at
# 32 bits are 180 GB, more than the memory of any DCU.
BUFFER_SIZE = 100
LARGEST_BUFFER = 10_000
# What EIGER2's `buffer_free` starts from, in bytes: an estimate, the default buffer filled with
# images of a 16M at 32 bits.
BUFFER_BYTES = 8 * 2**30

MONITOR_COMMANDS = ("clear", "initialize")
STREAM_COMMANDS = ("initialize",)


@dataclass(frozen=True)
class Interfaces:
    """One generation's monitor, stream and system.

    Attributes
    ----------
    monitor_config, stream_config, system_config : tuple of Parameter
        Their config.
    monitor_status, stream_status : tuple of Status
        Their status.
    system_commands : tuple of str
        The system's commands.
    newest_is_taken : bool
        Whether `images/monitor` takes the image out of the buffer. (API reference 1.3: it does;
        1.8: it does not, and serves the newest image even where the buffer does not hold it.)
    always_32_bit : bool
        Whether images have 32 bits whatever the bit depth of the files.
    private_tags : bool
        Whether the TIFF tells what it was taken with (API reference 1.8, table 5.10).
    names_thresholds : bool
        Whether an image's path may end in a threshold's number.
    """

    monitor_config: tuple[Parameter, ...]
    monitor_status: tuple[Status, ...]
    stream_config: tuple[Parameter, ...]
    stream_status: tuple[Status, ...]
    system_config: tuple[Parameter, ...]
    system_commands: tuple[str, ...]
    newest_is_taken: bool
    always_32_bit: bool
    private_tags: bool
    names_thresholds: bool


_MODE = Parameter("mode", "string", "disabled", allowed=ON_OFF)
# Any text: it is the clients' own, and need not be JSON.
_APPENDICES = (
    Parameter("header_appendix", "string", ""),
    Parameter("image_appendix", "string", ""),
)
_MONITOR_STATES = ("normal", "overflow")
_STREAM_STATES = ("disabled", "ready", "acquire", "error")

EIGER1 = Interfaces(
    monitor_config=(
        _MODE,
        Parameter("buffer_size", "int", BUFFER_SIZE, minimum=1, maximum=LARGEST_BUFFER),
    ),
    monitor_status=(
        Status("state", "string"),
        Status("error", "string", brief=True),
        Status("buffer_fill_level", "int"),
        Status("dropped", "int"),
        Status("next_image_number", "int"),
        Status("monitor_image_number", "int"),
    ),
    stream_config=(
        _MODE,
        Parameter("header_detail", "string", "basic", allowed=("all", "basic", "none")),
        *_APPENDICES,
    ),
    stream_status=(
        Status("state", "string", critical_values=("error",)),
        Status("error", "string", brief=True),
        Status("dropped", "int"),
    ),
    system_config=(),
    system_commands=("restart",),
    newest_is_taken=True,
    always_32_bit=True,
    private_tags=False,
    names_thresholds=False,
)

# Served, but not listed: stream's error and, as no client of the real one found them, the numbers
# of the images asked for last.
EIGER2 = Interfaces(
    monitor_config=(
        _MODE,
        Parameter("buffer_size", "uint", BUFFER_SIZE, minimum=1, maximum=LARGEST_BUFFER),
        Parameter("discard_new", "bool", default=False),
    ),
    monitor_status=(
        Status("state", "string", allowed=_MONITOR_STATES),
        Status("error", "string"),
        Status("buffer_fill_level", "uint"),
        Status("buffer_free", "uint"),
        Status("dropped", "uint"),
        Status("next_image_number", "uint", listed=False),
        Status("monitor_image_number", "uint", listed=False),
    ),
    stream_config=(
        _MODE,
        Parameter("format", "string", "legacy", allowed=("legacy", "cbor")),
        Parameter("header_detail", "string", "basic", allowed=("none", "basic", "all")),
        *_APPENDICES,
    ),
    stream_status=(
        Status("state", "string", allowed=_STREAM_STATES),
        Status("error", "string", listed=False),
        Status("dropped", "uint"),
    ),
    # datetime and network are left out: of what is below them only the groups' names are known.
    system_config=(Parameter("system_info/service_tag", "string", "SIM0000", access="r"),),
    system_commands=("create_log_tarball", "delete_logs", "reboot", "restart", "shutdown"),
    newest_is_taken=False,
    always_32_bit=False,
    private_tags=True,
    names_thresholds=True,
)


def interfaces_of(model: Model) -> Interfaces:
    """Return the interfaces of a model."""
    return EIGER2 if model.generation is geometry.EIGER2 else EIGER1
