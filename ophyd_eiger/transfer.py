"""Brings the files of series home while more data is taken: fetched, checked, then named.

Knows nothing of ophyd and nothing of the detector's states. One thread asks the DCU for its list
of files; a few others fetch those that are due, several at once. Nothing that exists is
overwritten; a file is deleted on the DCU only if its series' policy says so, and only after its
copy has its name, by one more thread, for which nobody's copies wait. What is left behind is owed,
and can be asked for again.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence

from ophyd_eiger.bringing import Bringer, make_folder_again, note_folder
from ophyd_eiger.client import DcuClient
from ophyd_eiger.deleting import Deletions
from ophyd_eiger.deliveries import Delivery, FetchedFile, briefly
from ophyd_eiger.errors import DcuError, TransferError
from ophyd_eiger.fetching import SMALLEST_PIECE
from ophyd_eiger.journal import Journal, Journals
from ophyd_eiger.last_words import tell_at_the_end
from ophyd_eiger.listing import Listing
from ophyd_eiger.missing import no_list, not_home
from ophyd_eiger.progress import Progress
from ophyd_eiger.telling import TellingCondition

logger = logging.getLogger(__name__)

# While a series runs, its files are asked for this often; after its end at once, then ever slower.
POLL_PERIOD_S = 1.0
WATCHED_PERIOD_S = 0.1
FIRST_POLL_S = 0.02
# How long what no event needs is waited for without anything coming: an aborted series may never
# get the master file that it is asked for.
PATIENCE_FOR_UNNEEDED_S = 2.0
# How long a file that is all here may be synced and checked: so many s, and what it takes at so
# many bytes a second, slower than any disk that works. One of the network may hang for ever.
SETTLES_S, SLOWEST_DISK = 60.0, 10e6
# For so long the list of files must be the same that tells which ones a series has, where nothing
# else does, in s.
SETTLED_S = 5.0


class Transfer:
    """Brings deliveries home, with threads of its own as long as there are any.

    Parameters
    ----------
    client : DcuClient
        The way to the DCU.
    name : str
        Name of the detector, for messages.
    later : str, optional
        What brings the files that did not come, for messages; the device's call if not given.
    """

    def __init__(self, client: DcuClient, name: str, later: str = "") -> None:
        self.client = client
        self.name = name
        self.later = later or f"{name}.fetch() or `ophyd-eiger fetch`"
        self.bringer = Bringer(client, name)
        self._open: list[Delivery] = []
        self._owed: list[Delivery] = []
        self.journals = Journals(client.url)
        self._state = TellingCondition()
        self.deletions = Deletions(client, name, self._state)
        self._progress = 0
        # When a byte of any series came last, on the monotonic clock.
        self._came = time.monotonic()
        self._news = False
        self._asked = 0
        self._dcu_error: DcuError | None = None
        self._thread: threading.Thread | None = None
        # Files that are due and not taken on, those under way, and the threads that bring them.
        self._queue: deque[tuple[Delivery, str]] = deque()
        self._under_way: set[tuple[Delivery, str]] = set()
        self._fetchers = 0
        self._wrong: list[str] = []
        self._failed: TransferError | None = None
        self._patience = float("inf")
        self._waits_no_more = False
        self._settled_s = SETTLED_S
        self._names: set[str] = set()
        self._listing = Listing()
        self._told = False
        self._period = POLL_PERIOD_S
        tell_at_the_end(self)

    def add(self, delivery: Delivery, *, seen_by_files: bool = False) -> None:
        """Take on a series whose first images are about to be exposed.

        Parameters
        ----------
        delivery : Delivery
            Its files.
        seen_by_files : bool
            Whether somebody waits for files to be published, so that the list is asked for often.
        """
        note_folder(delivery)
        with self._state:
            self._names.add(delivery.basename)
            self._listing.begin_anew()
            self._period = WATCHED_PERIOD_S if seen_by_files else POLL_PERIOD_S
            self._take_on(delivery)

    def has_had(self, delivery: Delivery) -> bool:
        """Return whether a series of this name was taken on before."""
        with self._state:
            return delivery.basename in self._names

    def adopt(self, delivery: Delivery, journal: Journal) -> None:
        """Take on a series of another process, which has ended.

        Parameters
        ----------
        delivery : Delivery
            Its files.
        journal : Journal
            Its journal, which this process has in hand.
        """
        delivery.ended = delivery.cut_short = delivery.interrupted = delivery.final = True
        delivery.may_be_empty = True
        note_folder(delivery)
        delivery.is_counted = delivery.begun > 0
        self.bringer.find_home(delivery)
        delivery.known = set(delivery.home)
        self.journals.keep(delivery, journal)
        with self._state:
            if not delivery.is_counted:
                self._period = WATCHED_PERIOD_S
            self._take_on(delivery)
            self._news = True
            self._state.notify_all()

    def take_up_again(self) -> list[Delivery]:
        """Take on again what was given up, and return it."""
        looked_at: list[Delivery] = []
        while new := [each for each in self._given_up() if each not in looked_at]:
            # Without the lock: a disk of the network may hang. They stay owed until they are taken
            # on, whoever asks meanwhile or ends the wait.
            for delivery in new:
                make_folder_again(delivery)
                self.bringer.find_again(delivery)
            looked_at += new
        with self._state:
            owed = [each for each in self._owed if each in looked_at]
            self._owed = [each for each in self._owed if each not in looked_at]
            self._listing.begin_anew()
            for delivery in owed:
                if not delivery.ended:
                    # Its end failed, and nobody waits for it any more.
                    delivery.ended = delivery.interrupted = True
                # What there is comes, also where a file is short for good: what lacks is told.
                delivery.cut_short = True
                delivery.errors.clear()
                delivery.reached.clear()
                delivery.restarts.clear()
                delivery.known = set(delivery.home)
                delivery.final = delivery.may_be_empty = True
                self._take_on(delivery)
            self._news = True
            self._state.notify_all()
        return owed

    def _given_up(self) -> list[Delivery]:
        with self._state:
            return list(self._owed)

    def _take_on(self, delivery: Delivery) -> None:
        self._open.append(delivery)
        self._note_turn(delivery)
        self._note_progress(delivery)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._run, name=f"{self.name} files", daemon=True
            )
            self._thread.start()

    def progress(self, deliveries: Sequence[Delivery]) -> Progress | None:
        """Return how many files are home of those there will be, as far as is known; or nothing.

        A file of which a part is here counts as that part.
        """
        files = [(each, name) for each in deliveries for name in each.expected(each.listed)]
        if not files:
            return None
        here = sum(
            1.0 if name in each.home else self.bringer.share(each, name) for each, name in files
        )
        return Progress(math.floor(10 * here) / 10, len(files), "files", "files")

    @property
    def owed(self) -> list[Delivery]:
        """The series that are over, and of which not all is home."""
        with self._state:
            return [*self._owed, *self.ended]

    @property
    def to_come(self) -> list[Delivery]:
        """The series of which not all is home, those that could not be ended among them."""
        with self._state:
            return [*self._owed, *self._open]

    @property
    def ended(self) -> list[Delivery]:
        """The series that are over and on their way home."""
        with self._state:
            return [delivery for delivery in self._open if delivery.ended]

    @property
    def finished(self) -> list[Delivery]:
        """Those of them of which no event will name images any more."""
        return [delivery for delivery in self.ended if delivery.final]

    def end(self, delivery: Delivery, *, cut_short: bool, interrupted: bool = False) -> None:
        """Note that a series is over and that its files are on the DCU."""
        with self._state:
            delivery.cut_short = cut_short
            delivery.interrupted = interrupted
            delivery.ended = True
            self._news = True
            self._note_progress(delivery)

    def forget(self, delivery: Delivery) -> None:
        """Owe a series no more that was given up; what came of it stays."""
        with self._state:
            if delivery not in self._owed:
                return
            self._owed.remove(delivery)
        self.journals.end(delivery)

    def finalize(self, delivery: Delivery) -> None:
        """Note that no event will name images of a series any more: its views can be written."""
        with self._state:
            if not delivery.final:
                delivery.final = True
                self._news = self._news or delivery.is_home
                self._note_progress(delivery)

    def wait_home(self, delivery: Delivery, patience: float) -> None:
        """Wait until every file of one series is home, whatever events will name of it.

        Parameters
        ----------
        delivery : Delivery
            Its files; it has ended.
        patience : float
            How long nothing may arrive, in s.

        Raises
        ------
        TransferError
            Naming what is missing and why; it is still awaited.
        """
        with self._state:
            self._ask_at_once()
            delivery.silence.break_off()
            while delivery in self._open and not delivery.is_home:
                if not self._wait_for_progress(patience, [delivery]):
                    raise self._missing([delivery], patience)

    def wait(self, patience: float, only: Collection[Delivery] | None = None) -> None:
        """Wait until every delivery is home, and its views are written.

        Parameters
        ----------
        patience : float
            How long nothing may arrive, in s; what no event needs is given up sooner.
        only : collection of Delivery, optional
            Those that are waited for; all if not given.

        Raises
        ------
        TransferError
            Naming what is missing and why; the transfer is given up, the files stay on the DCU.
            Or if what came home is not what was taken.
        """
        with self._state:
            self._ask_at_once()
            self._note_patience(patience)
            wanted = list(self._open if only is None else only)
            for each in wanted:
                each.silence.break_off()
            while awaited := [each for each in self._open if only is None or each in only]:
                if not self._wait_for_progress(patience, awaited, only_needed=True):
                    self._report(self._give_up(awaited), patience)
            wrong, self._wrong = self._wrong, []
            failed, self._failed = self._failed, None
            # Another one that waited for it may have given it up.
            lost = [each for each in wanted if each in self._owed and each.lacks()]
            if lost and failed is None:
                failed = self._missing(lost, patience)
        self.deletions.wait(patience)
        if failed is not None and wrong:
            raise TransferError(f"{self.name}: {'; '.join(wrong)}; {failed}") from failed
        if failed is not None:
            raise failed
        if wrong:
            raise TransferError(f"{self.name}: {'; '.join(wrong)}")

    def wait_no_longer(self, patience: float) -> None:
        """Let what is under way come by itself, and give up what nothing comes of.

        Parameters
        ----------
        patience : float
            How long nothing may arrive, in s; then it is logged, and `wait` raises it.
        """
        with self._state:
            self._patience = patience
            self._note_patience(patience)

    def _note_patience(self, patience: float) -> None:
        # Whoever waits less long is told the same, from what was seen by then.
        self._settled_s = min(SETTLED_S, 0.75 * patience)

    def break_off(self) -> None:
        """Let nobody wait any more: what is not home yet is given up by whoever waits for it."""
        with self._state:
            self._waits_no_more = True
            self._state.notify_all()
        self.deletions.break_off()

    def close(self) -> None:
        """Leave what is not home yet on the DCU, for another process, and let the threads end."""
        self._tell_what_is_to_come()
        with self._state:
            self._give_up(self._open)
        self.deletions.close()
        self.journals.leave()

    def tell_what_is_left(self) -> None:
        """Tell of files that are on their way, or to be deleted, where this program lets go."""
        self._tell_what_is_to_come()
        self.deletions.tell_what_is_left()

    def _tell_what_is_to_come(self) -> None:
        with self._state:
            left = [each.left_behind() for each in self._open]
        if names := [name for missing in left for name in missing]:
            logger.warning(
                "%s: %s had still to come when this program let go of them; what is on the DCU "
                "stays there, and %s brings it",
                self.name,
                briefly(names),
                self.later,
            )

    def _give_up(self, deliveries: list[Delivery]) -> list[Delivery]:
        given_up = list(deliveries)
        self._open = [each for each in self._open if each not in given_up]
        self._owed += given_up
        self._queue = deque(job for job in self._queue if job[0] not in given_up)
        if not self._open:
            # Threads may hang in a download for as long as a request may take; they end by
            # themselves, and the next series gets its own.
            self._thread = None
        # Those that would have come to what is left may hang in what is given up.
        self._begin_fetching()
        self._state.notify_all()
        for delivery in given_up:
            self._discard(delivery)
        return given_up

    def _discard(self, delivery: Delivery) -> None:
        """Remove what is here of its files, unless one is being written; then that does it."""
        if not any(of is delivery for of, _ in self._under_way):
            self.bringer.discard(delivery)

    def _ask_at_once(self) -> None:
        self._news = True
        self._state.notify_all()

    def _wait_for_progress(
        self, patience: float, awaited: Sequence[Delivery], *, only_needed: bool = False
    ) -> bool:
        """Wait until something comes of one of these series; return whether that is so.

        Parameters
        ----------
        patience : float
            How long nothing may come of any of them, in s.
        awaited : sequence of Delivery
            They are open.
        only_needed : bool
            Whether what no event needs is waited for less long.
        """
        asked = self._asked
        before = [each.silence.broken for each in awaited]

        def nothing_will_come() -> bool:
            # A DCU without the list of its files will have none in a while either.
            return self._listing.is_there is False or (
                only_needed and self._asked > asked and self._are_unneeded_and_absent(awaited)
            )

        def is_as_before() -> bool:
            # Another one that waits for it may give it up meanwhile.
            is_open = set(awaited) <= set(self._open)
            return is_open and before == [each.silence.broken for each in awaited]

        while is_as_before():
            left = patience - min(self._quiet_for(each) for each in awaited)
            if self._waits_no_more or left <= 0 or nothing_will_come():
                return False
            self._state.wait(left)
        return True

    def _quiet_for(self, delivery: Delivery) -> float:
        """Return for how long nothing came of a series that could have come, in s."""
        if delivery.settles:
            # All bytes of a file are here: it is synced and checked, which takes its time.
            return 0.0
        queued = delivery.silence.held
        if queued is None:
            return delivery.silence.seconds
        if any(of.settles for of, _ in self._under_way):
            return 0.0
        # As long as something comes of those before it, its turn will come.
        return time.monotonic() - max(queued, self._came)

    def _note_turn(self, delivery: Delivery) -> None:
        """Note whether a series waits for its turn, or its file is checked: no silence, either."""
        queued = any(of is delivery for of, _ in self._queue)
        under_way = any(of is delivery for of, _ in self._under_way)
        delivery.silence.hold(bool(delivery.settling) or (queued and not under_way))

    def _are_unneeded_and_absent(self, deliveries: Sequence[Delivery]) -> bool:
        under_way = {of for of, _ in (*self._queue, *self._under_way)}
        return (
            not any(each.needed() or each in under_way for each in deliveries)
            and all(each.listed_since_end or self._is_settled(each) for each in deliveries)
            and min(each.silence.seconds for each in deliveries) >= PATIENCE_FOR_UNNEEDED_S
        )

    def _report(self, given_up: list[Delivery], patience: float) -> None:
        # Of what was asked for nobody knows what there is, where the DCU never said.
        unasked = self._dcu_error is not None
        wanted = [
            each
            for each in given_up
            if each.lacks() or (unasked and each.may_be_empty and not each.listed_since_end)
        ]
        for delivery in given_up:
            self.bringer.write_views(delivery)
            if delivery not in wanted:
                self._state.tell(
                    logger,
                    logging.WARNING,
                    "%s: what there is of %s was not fetched; no event needs it",
                    self.name,
                    delivery.basename,
                )
        wrong, self._wrong = self._wrong, []
        if wanted:
            missing = self._missing(wanted, patience)
            if not wrong:
                raise missing
            # What may be why they are missing.
            raise TransferError(f"{self.name}: {'; '.join(wrong)}; {missing}") from missing
        if wrong:
            raise TransferError(f"{self.name}: {'; '.join(wrong)}")

    def _missing(self, wanted: list[Delivery], patience: float) -> TransferError:
        if self._listing.is_there is False:
            return no_list(self.name, wanted, self._dcu_error)
        by_when = f"within {patience:g} s of the last byte"
        if not any(each.needed() for each in wanted):
            # What no event needs is let go sooner.
            by_when = f"within {min(patience, PATIENCE_FOR_UNNEEDED_S):g} s of the last byte"
        if self._waits_no_more:
            by_when = "before the device was destroyed"
        return not_home(self.name, wanted, by_when, self._dcu_error, self.later)

    # ---- the thread that asks what there is ----

    def _run(self) -> None:
        pause = self._period
        while True:
            with self._state:
                self._state.wait_for(lambda: self._news or not self._open, pause)
                if self._thread is not threading.current_thread():
                    return
                # Before the next round queues again what fails each time.
                self._give_up_if_stuck()
                if not self._open:
                    self._thread = None
                    return
                # What no thread could be begun for is asked for by nobody else.
                self._begin_fetching()
                news, self._news = self._news, False
                deliveries = list(self._open)
                before = self._progress
            due = [delivery for delivery in deliveries if not delivery.is_home]
            try:
                with self.client.ledger.background("transfer"):
                    if any(not self._all_under_way(delivery) for delivery in due):
                        self._round(due)
                    self._finish(deliveries)
            except Exception:
                # Whatever it is, the files of the next series are still wanted.
                logger.exception("%s: the files are not looked after as they should be", self.name)
            with self._state:
                news = news or self._progress != before
                if self._under_way or not any(delivery.ended for delivery in due):
                    pause = self._period
                else:
                    pause = FIRST_POLL_S if news else min(2 * pause, self._period)

    def _round(self, deliveries: list[Delivery]) -> None:
        ended = [delivery for delivery in deliveries if delivery.ended]
        try:
            listed = set(self.client.files())
        except DcuError as error:
            self._note_answer(error)
            logger.debug("%s: %s", self.name, error)
            with self._state:
                is_none = self._listing.note_error(error, self.client.timeouts.files)
                self._state.notify_all()
            if is_none:
                self._tell_no_list(error)
            return
        self._note_answer()
        self._told = False
        with self._state:
            self._listing.note_given()
            taken_on = {*self._queue, *self._under_way}
            for delivery in deliveries:
                if delivery not in self._open:
                    continue
                delivery.note_listed(listed)
                if delivery in ended and self._is_settled(delivery):
                    delivery.listed_since_end = True
                jobs = [(delivery, name) for name in delivery.due(listed)]
                self._queue += [job for job in jobs if job not in taken_on]
                if jobs:
                    self._note_turn(delivery)
                self._note_if_home(delivery)
                self._begin_fetching()

    def _is_settled(self, delivery: Delivery) -> bool:
        """Return whether no more files of a series that is over will be listed.

        Of another process' series nobody may know how many images there are: signals from outside
        may have come that no event tells of. Its last file is listed a while after its end, and a
        list may be empty for a moment.
        """
        if delivery.is_counted:
            return True
        return time.monotonic() - delivery.listed_at >= self._settled_s

    def _note_answer(self, error: DcuError | None = None) -> None:
        with self._state:
            self._asked, self._dcu_error = self._asked + 1, error
            self._state.notify_all()

    def _all_under_way(self, delivery: Delivery) -> bool:
        """Return whether the list of files can tell nothing new of a series."""
        with self._state:
            taken_on = {name for of, name in (*self._queue, *self._under_way) if of is delivery}
            missing = delivery.missing()
        return delivery.all_is_listed and bool(missing) and taken_on.issuperset(missing)

    def _note_if_home(self, delivery: Delivery) -> None:
        if delivery.is_complete(delivery.listed) and not delivery.is_home:
            delivery.is_home = self._news = True
            self._note_progress(delivery)

    def _give_up_if_stuck(self) -> None:
        """Give up what nobody waits for and nothing comes of, whatever else comes."""
        over = [each for each in self._open if each.ended and each.final and not each.is_home]
        stuck = [each for each in over if self._quiet_for(each) >= self._patience]
        if not stuck:
            return
        try:
            self._report(self._give_up(stuck), self._patience)
        except TransferError as error:
            self._state.tell(logger, logging.ERROR, "%s", error)
            self._failed = error

    # ---- the threads that fetch ----

    def _begin_fetching(self) -> None:
        if not self._queue:
            return
        at_once = self._queue[0][0].policy.at_once
        # Threads that hang in what was given up bring nothing else.
        hanging = sum(of not in self._open for of, _ in self._under_way)
        wanted = len(self._queue) + len(self._under_way) - hanging
        while self._fetchers - hanging < min(at_once, wanted):
            thread = threading.Thread(
                target=self._fetch_queued, name=f"{self.name} file", daemon=True
            )
            self._fetchers += 1
            try:
                thread.start()
            except RuntimeError as error:
                self._fetchers -= 1
                text = "%s: no more threads for files: %s"
                self._state.tell(logger, logging.WARNING, text, self.name, error)
                for delivery, name in self._queue:
                    delivery.errors.setdefault(name, error)
                return

    def _fetch_queued(self) -> None:
        try:
            with self.client.ledger.background("transfer"):
                while (job := self._next_job()) is not None:
                    try:
                        self._bring(*job)
                    finally:
                        self._lay_down(job)
        finally:
            with self._state:
                self._fetchers -= 1
                # What was queued since, or what was left by one that failed.
                self._begin_fetching()

    def _lay_down(self, job: tuple[Delivery, str]) -> None:
        with self._state:
            self._under_way.discard(job)
            self._note_turn(job[0])
            if job[0] not in self._open:
                self._discard(job[0])
            self._state.notify_all()

    def _next_job(self) -> tuple[Delivery, str] | None:
        with self._state:
            if not self._queue:
                return None
            job = self._queue.popleft()
            self._under_way.add(job)
            self._note_turn(job[0])
            return job

    def _bring(self, delivery: Delivery, name: str) -> None:
        came = False
        noted = delivery.reached.get(name, 0)

        def proceed(here: int) -> None:
            nonlocal came, noted
            if delivery not in self._open:
                raise TransferError(f"{name}: given up after {here} bytes")
            if here < noted and delivery.begin_again(name):
                noted = 0
            # A file that fails again and again is no progress, however often it is fetched.
            if here > delivery.reached.get(name, 0):
                came = True
                delivery.reached[name] = here
            # Nor is one that drips.
            if here - noted >= SMALLEST_PIECE:
                noted = here
                with self._state:
                    self._came = time.monotonic()
                    self._note_progress(delivery)

        def settle(begins: bool) -> None:
            # No progress: a file that fails its check again and again is none.
            with self._state:
                if begins:
                    takes = SETTLES_S + delivery.reached.get(name, 0) / SLOWEST_DISK
                    delivery.settling[name] = time.monotonic() + takes
                else:
                    delivery.settling.pop(name, None)
                self._note_turn(delivery)

        try:
            fetched = self.bringer.bring(delivery, name, proceed, settle)
        except Exception as error:  # noqa: BLE001 - whatever it is, `wait` tells it
            if delivery not in self._open and name in delivery.errors:
                # That it was given up is no news; what was wrong before is why.
                return
            # Tried again in the next round; `wait` decides when it has been long enough.
            if str(error) != str(delivery.errors.get(name)):
                logger.warning("%s: %s not fetched yet: %s", self.name, name, error)
            delivery.errors[name] = error
            with self._state:
                # At once where it goes on from where it broke off.
                self._news = self._news or came
            return
        logger.info(
            "%s: %s home, %d bytes in %.3f s", self.name, name, fetched.bytes, fetched.seconds
        )
        self._land(delivery, name, fetched)

    def _land(self, delivery: Delivery, name: str, fetched: FetchedFile) -> None:
        with self._state:
            delivery.errors.pop(name, None)
            delivery.home[name] = fetched
            if delivery.policy.delete_on_dcu and delivery.policy.mount is None:
                self.deletions.queue(delivery, fetched)
            self._came = time.monotonic()
            self._note_progress(delivery)
            self._note_if_home(delivery)
            if delivery.is_home and delivery in self._owed:
                # Given up while its last file was being checked: its views are still to be written.
                self._owed.remove(delivery)
                self._take_on(delivery)
            last = not self._queue and self._under_way == {(delivery, name)}
            self._news = self._news or last
        self.deletions.begin()

    def _tell_no_list(self, error: DcuError) -> None:
        level, self._told = logging.DEBUG if self._told else logging.WARNING, True
        logger.log(
            level,
            "%s: this DCU has no list of its files, so no image will come home: %s",
            self.name,
            error,
        )

    def _finish(self, deliveries: list[Delivery]) -> None:
        """Write the views of what is home and named, and be done with it."""
        for delivery in deliveries:
            if not (delivery.is_home and delivery.final):
                continue
            not_shown = self.bringer.write_views(delivery)
            wrong = [each for each in (self.bringer.not_as_taken(delivery), not_shown) if each]
            if not not_shown:
                self.journals.end(delivery)
            with self._state:
                if delivery not in self._open:
                    continue
                self._open.remove(delivery)
                self._wrong += wrong
                if not_shown:
                    self._owed.append(delivery)
                if self._patience < float("inf"):
                    for each in wrong:
                        self._state.tell(logger, logging.ERROR, "%s: %s", self.name, each)
                self._note_progress(delivery)

    def _note_progress(self, delivery: Delivery) -> None:
        self._progress += 1
        delivery.silence.break_off()
        self._state.notify_all()
