"""Images in time: counted when they are due, made before, and how late they are told to be."""

import math
import threading
from collections.abc import Sequence
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - registers the filter that the data files name
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_client import Client, until

import sim_dcu
from sim_dcu import made_ahead
from sim_dcu.acquisition import Acquisition, Ending, Phase, Sink
from sim_dcu.clock import Clock
from sim_dcu.exposures import Train
from sim_dcu.images import ImageSource
from sim_dcu.made_ahead import Made, MadeAhead


class HandClock(Clock):
    """A clock that is turned by hand."""

    def __init__(self, scale: float = 1.0):
        super().__init__(scale)
        self.time = 100.0

    def now(self) -> float:
        return self.time


class Shelf:
    """A sink that takes as long as it is told, by the clock, and keeps what it was given."""

    def __init__(self, clock: HandClock, seconds: float):
        self._clock, self._seconds = clock, seconds
        self.chunks: list[bytes] = []
        self.closed = False

    def add(self, number: int, chunk: bytes) -> None:
        assert number == len(self.chunks) + 1
        self._clock.time += self._seconds
        self.chunks.append(chunk)

    def close(self) -> None:
        self.closed = True


class Numbers:
    """A source whose images are their numbers."""

    def __init__(self, size: int = 1, failing: int = 0):
        self._size, self._failing = size, failing
        self.made: list[int] = []
        self.by: list[str] = []
        self.each = threading.Semaphore(0)

    def chunk(self, number: int) -> bytes:
        if number == self._failing:
            raise ValueError(f"image {number} cannot be made")
        self.made.append(number)
        self.by.append(threading.current_thread().name)
        self.each.release()
        return bytes([number]) * self._size

    def wait_for(self, images: int) -> None:
        for _ in range(images):
            assert self.each.acquire(timeout=10)


def acquisition(
    clock: Clock,
    images: int,
    sinks: Sequence[Sink] = (),
    made: MadeAhead | None = None,
    buffer: int | None = None,
) -> Acquisition:
    return Acquisition(images, made, sinks, clock, threading.RLock(), lambda _: None, buffer=buffer)


def turn(series: Acquisition, clock: HandClock, time: float) -> None:
    clock.time = time
    series.wake()


# -- counted when they are due --------------------------------------------------------------------

SECONDS = st.floats(0, 1e4, allow_subnormal=False)


@given(
    images=st.integers(1, 40),
    exposure=SECONDS,
    period=st.floats(1e-6, 1e3),
    delay=SECONDS,
    share=st.floats(-0.1, 1.1),
)
def test_as_many_are_exposed_as_ends_have_passed(
    images: int, exposure: float, period: float, delay: float, share: float
) -> None:
    train = Train(images, exposure, period, delay)
    ends = [delay + index * period + exposure for index in range(images)]
    before = [math.nextafter(end, -math.inf) for end in ends]
    for now in (*ends, *before, delay + exposure + share * images * period):
        assert train.exposed(now) == sum(end <= now for end in ends)


def test_images_of_one_signal_are_exposed_at_once() -> None:
    train = Train(2, exposure=0.5, period=0.0)
    assert [train.exposed(now) for now in (0.0, 0.4, 0.5, 9.0)] == [0, 0, 2, 2]


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_each_is_counted_at_its_own_distance_from_the_trigger(scale: float) -> None:
    """Whoever asks, and however late whatever asked before was."""
    clock = HandClock(scale)
    series = acquisition(clock, 4)
    train = Train(4, exposure=0.5, period=2.0, delay=1.0)
    series.trigger(train)
    found = []
    for seconds in (0.0, 1.4921875, 1.5, 3.4921875, 7.4921875):
        clock.time = 100.0 + seconds * scale
        found.append((series.exposed, series.missing))
    assert found == [(0, 4), (0, 4), (1, 3), (1, 3), (3, 1)]
    assert not train.done.done()
    turn(series, clock, 100.0 + 7.5 * scale)
    train.done.result(timeout=10)
    series.closed.result(timeout=10)
    assert series.exposed == 4


@pytest.mark.parametrize(
    ("how", "left"),
    [(Ending.AT_ONCE, 2), (Ending.DROP_ALL, 2), (Ending.AFTER_IMAGE, 3), (Ending.AFTER_TRIGGER, 4)],
)
def test_an_ending_counts_what_was_due_and_what_it_lets_finish(how: Ending, left: int) -> None:
    clock = HandClock()
    series = acquisition(clock, 8)
    train = Train(4, exposure=1.0, period=1.0)
    series.trigger(train)
    # Nobody has looked at the clock since.
    clock.time = 102.5
    series.end(how)
    turn(series, clock, 110.0)
    train.done.result(timeout=10)
    series.closed.result(timeout=10)
    assert series.exposed == left


def test_without_waiting_two_thousand_million_images_are_counted_at_once() -> None:
    series = acquisition(HandClock(0.0), 2_000_000_000)
    train = Train(2_000_000_000, exposure=1.0, period=1.0)
    series.trigger(train)
    assert train.done.done()
    assert series.exposed == 2_000_000_000


def test_of_images_that_nobody_takes_no_times_are_kept() -> None:
    clock = HandClock()
    series = acquisition(clock, 1000)
    series.trigger(Train(1000, exposure=1.0, period=1.0))
    clock.time = 600.0
    assert series.exposed == 500
    assert not series._exposures.due
    series.end(Ending.AT_ONCE)


@pytest.mark.parametrize("how", list(Ending))
def test_no_trigger_comes_between_an_ending_and_the_end(how: Ending) -> None:
    series = acquisition(HandClock(), 4)
    series.end(how)
    assert series.phase is Phase.ENDED
    series.closed.result(timeout=10)
    assert series.exposed == 0


class Weather:
    """A disturbance that comes and goes."""

    expected = False

    def failure(self, exposed: int) -> str:
        return ""

    def stalls(self, exposed: int, delivered: int) -> bool:
        return self.expected


def test_no_image_passes_a_stall_that_nobody_has_looked_at_yet() -> None:
    clock, weather, lock = HandClock(), Weather(), threading.RLock()
    series = Acquisition(9, None, (), clock, lock, lambda _: None, disturbance=weather)
    train = Train(9, exposure=1.0, period=1.0)
    series.trigger(train)
    with lock:
        clock.time = 102.5
        weather.expected = True
        series.wake()
        clock.time = 108.0
        assert series.exposed == 2
    with lock:
        weather.expected = False
        series.end(Ending.AT_ONCE)
    train.done.result(timeout=10)
    assert series.exposed == 2


class Stuck(Shelf):
    """One that takes nothing until it is told."""

    def __init__(self, clock: HandClock):
        super().__init__(clock, 0.0)
        self.free = threading.Event()

    def add(self, number: int, chunk: bytes) -> None:
        assert self.free.wait(timeout=10)
        super().add(number, chunk)


def test_one_image_more_than_the_buffer_takes_is_lost() -> None:
    clock = HandClock()
    shelf = Stuck(clock)
    series = acquisition(clock, 9, [shelf], buffer=3)
    train = Train(9, exposure=1.0, period=1.0)
    series.trigger(train)
    turn(series, clock, 103.0)
    assert (series.exposed, series.failure) == (3, "")
    turn(series, clock, 107.0)
    until(lambda: series.exposed == 3)
    shelf.free.set()
    with pytest.raises(OSError, match="image 4 is lost: the buffer is full of 3 images"):
        train.done.result(timeout=10)
    assert len(shelf.chunks) == 3


def test_what_is_lost_is_noticed_where_the_train_is_over_before_anyone_looks() -> None:
    clock, lock = HandClock(), threading.RLock()
    shelf = Stuck(clock)
    series = Acquisition(9, None, [shelf], clock, lock, lambda _: None, buffer=3)
    train = Train(9, exposure=1.0, period=1.0)
    with lock:
        series.trigger(train)
        clock.time = 200.0
    until(lambda: series.exposed == 3)
    shelf.free.set()
    with pytest.raises(OSError, match="image 4 is lost: the buffer is full of 3 images"):
        train.done.result(timeout=10)
    assert len(shelf.chunks) == 3


def test_what_is_lost_is_noticed_when_it_is_due() -> None:
    shelf = Stuck(HandClock())
    series = acquisition(Clock(), 10**6, [shelf], buffer=3)
    train = Train(10**6, exposure=0.01, period=0.01)
    series.trigger(train)
    # Not at the end of the train, hours later.
    until(lambda: series._exposures.last == 3)
    shelf.free.set()
    with pytest.raises(OSError, match="image 4 is lost"):
        train.done.result(timeout=10)


# -- how late they are ----------------------------------------------------------------------------


def test_an_image_made_ahead_is_not_late_however_slow_the_files_are() -> None:
    clock, source = HandClock(), Numbers()
    shelf = Shelf(clock, 5.0)
    made = MadeAhead(source, clock.now, 2, ahead=2)
    made.allow(2)
    source.wait_for(2)
    series = acquisition(clock, 2, [shelf], made=made)
    series.trigger(Train(2, exposure=1.0, period=1.0))
    turn(series, clock, 102.0)
    series.closed.result(timeout=10)
    # Due at 101 and 102, in the file at 107 and 112.
    assert (series.latest_made, series.latest) == (0.0, 10.0)
    assert (shelf.chunks, shelf.closed) == ([b"\x01", b"\x02"], True)


def test_an_image_made_after_its_exposure_is_as_late() -> None:
    clock = HandClock()

    class Slow(Numbers):
        def chunk(self, number: int) -> bytes:
            clock.time = 104.0
            return super().chunk(number)

    source = Slow()
    made = MadeAhead(source, clock.now, 2, ahead=2)
    series = acquisition(clock, 2, [Shelf(clock, 0.5)], made=made)
    series.trigger(Train(2, exposure=1.0, period=1.0))
    source.wait_for(2)
    series.wake()
    series.closed.result(timeout=10)
    # Due at 101 and 102, both made at 104, in the file at 104.5 and 105.
    assert (series.latest_made, series.latest) == (3.0, 3.5)


def test_images_are_counted_in_time_while_none_can_be_made(
    timed_client: Client, timed: sim_dcu.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, make = threading.Event(), ImageSource.chunk

    def held(source: ImageSource, number: int) -> bytes:
        assert free.wait(timeout=30)
        return make(source, number)

    def state() -> dict[str, Any]:
        return timed_client.session.get(f"{timed.url}/sim/state", timeout=10).json()["series"]

    timed_client.config(count_time=0.5, frame_time=1.0, nimages=3)
    with monkeypatch.context() as patched:
        patched.setattr(ImageSource, "tried_rate", lambda _: 1.0)
        patched.setattr(ImageSource, "chunk", held)
        timed_client.arm()
        assert timed_client.command("trigger").status_code == 200
        assert (state()["exposed"], state()["delivered"]) == (3, 0)
        free.set()
        assert timed_client.command("disarm").status_code == 200
    after = state()
    assert after["delivered"] == 3
    assert 0 < after["latest_made"] <= after["latest"]


@pytest.mark.parametrize("mode", ["ints", "inte"])
def test_an_image_is_of_the_exposure_that_its_trigger_brings(
    timed_client: Client, timed: sim_dcu.Server, mode: str
) -> None:
    timed_client.config(trigger_mode=mode, count_time=0.5, frame_time=1.0, nimages=1, ntrigger=2)
    timed_client.arm()
    for exposure in (2.0, 0.25):
        assert timed_client.command("trigger", exposure).status_code == 200
        until(lambda: timed_client.state != "acquire")
    assert timed_client.command("disarm").status_code == 200
    with h5py.File(timed.dcu.store.folder / "series_1_data_000001.h5") as file:
        found = np.asarray(file["entry/data/data"])
    expected = [timed.image(1, number) for number in (1, 2)]
    np.testing.assert_array_equal(found, expected)
    # Without the masked pixels.
    first, second = (image[image < 2**31].sum() for image in expected)
    assert (first > 4 * second) == (mode == "inte")


# -- made ahead -----------------------------------------------------------------------------------


def end(made: MadeAhead) -> None:
    """Return when nothing more will be made."""
    made.close()
    until(lambda: "sim-dcu-maker" not in [thread.name for thread in threading.enumerate()])


def test_no_more_is_made_than_may_be_kept() -> None:
    source = Numbers()
    made = MadeAhead(source, lambda: 7.0, 100, ahead=3)
    made.allow(100)
    source.wait_for(3)
    for number in (1, 2, 3, 4):
        assert made.take(number) == Made(bytes([number]), 7.0)
    source.wait_for(4)
    end(made)
    assert source.made == list(range(1, 8))


def test_what_is_kept_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_ahead, "MOST_BYTES", 250)
    source = Numbers(size=100)
    made = MadeAhead(source, lambda: 0.0, 100, ahead=50)
    made.allow(100)
    source.wait_for(3)
    end(made)
    assert source.made == [1, 2, 3]


def test_an_image_larger_than_all_that_may_be_kept_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(made_ahead, "MOST_BYTES", 1)
    made = MadeAhead(Numbers(size=2), lambda: 0.0, 3, ahead=3)
    made.allow(3)
    assert [made.take(number).chunk[0] for number in (1, 2, 3)] == [1, 2, 3]
    end(made)


def test_nothing_is_made_before_its_exposure_is_known() -> None:
    source = Numbers()
    made = MadeAhead(source, lambda: 0.0, 9, ahead=9)
    made.allow(2)
    assert [made.take(number).chunk for number in (1, 2)] == [b"\x01", b"\x02"]
    end(made)
    assert source.made == [1, 2]


def test_a_trigger_takes_no_allowance_back() -> None:
    made = MadeAhead(Numbers(), lambda: 0.0, 3, ahead=1)
    made.allow(3)
    made.allow(1)
    assert [made.take(number).chunk[0] for number in (1, 2, 3)] == [1, 2, 3]


def test_what_goes_wrong_is_told_in_its_turn() -> None:
    source = Numbers(failing=3)
    made = MadeAhead(source, lambda: 0.0, 9, ahead=9)
    made.allow(9)
    source.wait_for(2)
    assert [made.take(number).chunk for number in (1, 2)] == [b"\x01", b"\x02"]
    with pytest.raises(ValueError, match="image 3 cannot be made"):
        made.take(3)


def test_without_anything_ahead_whoever_takes_makes() -> None:
    source = Numbers()
    made = MadeAhead(source, lambda: 3.0, 9, ahead=0)
    assert (made.take(1).chunk, made.take(2).at) == (b"\x01", 3.0)
    assert set(source.by) == {threading.current_thread().name}
