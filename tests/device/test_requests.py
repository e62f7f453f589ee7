"""The ordered list of requests that the verbs send, as the simulator saw them."""

import bluesky.plans as bp
import pytest

RELIED_ON = [
    "GET detector config/nimages",
    "GET detector config/ntrigger",
    "GET detector config/count_time",
    "GET detector config/frame_time",
    "GET detector config/trigger_mode",
    "GET detector config/photon_energy",
    "GET detector config/threshold_energy",
    "GET detector config/beam_center_x",
    "GET detector config/beam_center_y",
    "GET detector config/detector_distance",
    "GET detector config/x_pixels_in_detector",
    "GET detector config/y_pixels_in_detector",
    "GET filewriter config/nimages_per_file",
    "GET filewriter config/mode",
    "GET filewriter config/name_pattern",
]
NAME_PATTERN = ["PUT filewriter config/name_pattern", "GET filewriter config/name_pattern"]
NAME_BACK = ["GET filewriter config/name_pattern", *NAME_PATTERN]
SHARED = [
    "GET detector config/nimages",
    "GET detector config/ntrigger",
    "GET detector config/trigger_mode",
    "GET filewriter config/nimages_per_file",
    "GET filewriter config/mode",
    "GET filewriter config/name_pattern",
]
NAMED_BY = [
    "GET filewriter config/mode",
    "GET filewriter config/name_pattern",
    "GET filewriter config/nimages_per_file",
]
ARM = ["PUT detector command/arm", *NAMED_BY, "GET detector config/bit_depth_image"]
ARM_AGAIN = ["PUT detector command/arm", *SHARED, "GET detector config/bit_depth_image"]
TRIGGER = ["PUT detector command/trigger"]
DISARM = ["GET detector status/state", "PUT detector command/disarm"]
BUFFER = "GET filewriter status/buffer_free"
DATE = "GET detector config/data_collection_date"
STAGE = ["GET detector status/state", *RELIED_ON, BUFFER, *NAME_PATTERN, *ARM, DATE]


def test_a_series_a_point(RE, eiger, requests_sent):
    requests_sent.clear()
    RE(bp.count([eiger], 2))
    point = TRIGGER + DISARM
    assert requests_sent() == STAGE + point + ARM_AGAIN + point + NAME_BACK


def test_armed_once(RE, eiger, requests_sent):
    eiger.detector.ntrigger.set(2).wait(10)
    requests_sent.clear()
    RE(bp.count([eiger], 2))
    assert requests_sent() == STAGE + TRIGGER + TRIGGER + DISARM + NAME_BACK


def test_armed_for_more_than_is_taken(RE, eiger, requests_sent):
    eiger.detector.ntrigger.set(4).wait(10)
    requests_sent.clear()
    RE(bp.count([eiger], 2))
    end = ["PUT detector command/cancel", "PUT detector command/disarm"]
    files_closed = ["GET filewriter status/state"]
    assert requests_sent() == STAGE + TRIGGER + TRIGGER + end + files_closed + NAME_BACK


def test_the_file_writer_is_switched_on_and_off_again(RE, eiger, requests_sent):
    eiger.filewriter.mode.set("disabled").wait(10)
    requests_sent.clear()
    RE(bp.count([eiger], 1))
    mode = ["PUT filewriter config/mode", "GET filewriter config/mode"]
    stage = ["GET detector status/state", *RELIED_ON, BUFFER, *mode, *NAME_PATTERN, *ARM, DATE]
    assert requests_sent() == stage + TRIGGER + DISARM + NAME_BACK + mode
    assert eiger.filewriter.mode.get() == "disabled"


def test_files(RE, eiger, requests_sent):
    requests_sent.clear()
    RE(bp.count([eiger], 1))
    names = [file.path.name for file in eiger.fetched]
    (stem,) = (name.removesuffix("_master.h5") for name in names if name.endswith("_master.h5"))
    listed, *fetched = requests_sent(files=True)
    assert listed == "GET filewriter files"
    # Both at once, and either may come first.
    assert sorted(fetched) == [
        f"GET /data/{stem}_data_000001.h5",
        f"GET /data/{stem}_master.h5",
    ]


def test_no_list_is_asked_for_that_can_tell_nothing_new(RE, dcu, eiger, requests_sent):
    """All files are listed and on their way, for longer than from one list to the next."""
    dcu.faults.set("late", path="GET data/*", seconds=1.5)
    requests_sent.clear()
    RE(bp.count([eiger], 1))
    assert requests_sent(files=True).count("GET filewriter files") == 1


def test_a_put_reads_back_what_its_reply_names(eiger, requests_sent):
    requests_sent.clear()
    eiger.detector.photon_energy.set(12400).wait(10)
    assert requests_sent()[:2] == [
        "PUT detector config/photon_energy",
        "GET detector config/photon_energy",
    ]
    # The arrays are named too, and are left until somebody asks for them.
    assert set(requests_sent()[2:]) == {
        "GET detector config/element",
        "GET detector config/threshold_energy",
        "GET detector config/wavelength",
    }
    assert eiger.detector.threshold_energy.last == pytest.approx(6200)


def test_what_the_run_engine_asks_sends_nothing(RE, eiger, requests_sent):
    RE(bp.count([eiger], 1))
    eiger.stage().wait(10)
    eiger.trigger().wait(10)
    requests_sent.clear()
    eiger.read()
    eiger.describe()
    eiger.read_configuration()
    eiger.describe_configuration()
    list(eiger.collect_asset_docs())
    eiger.detector.count_time.read()
    eiger.detector.count_time.describe()
    eiger.pause()
    eiger.resume()
    assert requests_sent() == []
    eiger.unstage().wait(10)
