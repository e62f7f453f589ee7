"""ophyd signals for the big arrays of a detector: flat fields and pixel masks.

They are megabytes each, so they are read only when somebody asks: by `get`, by `trigger`, or by
subscribing to one that was read before. Where a PUT's reply names an array that nobody listens to,
the array is stale: it has no value to read until it is asked for again.
"""

import logging
import time
from typing import Any

import numpy as np

from ophyd_eiger import arrays
from ophyd_eiger.array_requests import NO_SUCH_FORM, ask_array
from ophyd_eiger.errors import (
    DcuTimeoutError,
    LostReplyError,
    NotServedError,
    RefusedError,
    ReplyError,
)
from ophyd_eiger.link import LimitError
from ophyd_eiger.metadata import Metadata
from ophyd_eiger.replies import names_in
from ophyd_eiger.signals import EigerSignal
from ophyd_eiger.worker import EigerStatus

logger = logging.getLogger(__name__)


class EigerArray(EigerSignal):
    """One array resource: numpy in, numpy out.

    Parameters
    ----------
    resource : str
        Section and key, as in "config/pixel_mask".
    dtype : str
        What the detector keeps, as in "<u4".
    name : str
        Keyword only, as for every ophyd signal.
    """

    def __init__(self, resource: str, *, dtype: str, name: str, **kwargs: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.stale = False
        # The form that the DCU answered in, or took, last.
        self._form = arrays.TIFF
        super().__init__(resource, name=name, **kwargs)

    @property
    def has_value(self) -> bool:
        """Whether the DCU's last answer still holds."""
        return self.dcu_metadata is not None and not self.stale

    @property
    def has_listeners(self) -> bool:
        """Whether it was read before and somebody subscribed to it."""
        return self.dcu_metadata is not None and bool(self._callbacks[self.SUB_VALUE])

    def get(self, **kwargs: Any) -> np.ndarray:
        """Ask the DCU and return the array.

        Returns
        -------
        numpy.ndarray of float32 (flat fields) or uint32 (masks), shape (y, x)
            A copy of its own: change it and `set` it.

        Raises
        ------
        NotServedError, ReplyError, DcuError
            As of `EigerSignal.get`.
        """
        return super().get(**kwargs).copy()

    def _fetch(self) -> dict[str, Any]:
        request = f"GET {self.source}"
        try:
            array, self._form = ask_array(
                self.link.client, self.subsystem, self.resource, self._form
            )
        except RefusedError as error:
            raise self.refusal(error) from error
        except ValueError as error:
            raise ReplyError(f"{self.name}: {request}: {error}", request=request) from error
        if array.ndim != 2 or array.dtype.kind != self.dtype.kind:
            raise ReplyError(
                f"{request}: an array of {array.dtype} of shape {array.shape}, where one of "
                f"{self.dtype} of shape (y, x) was expected",
                request=request,
            )
        array = array.astype(self.dtype, copy=False)
        array.flags.writeable = False
        self.stale = False
        return self._keep(array, Metadata(value_type="float" if self.dtype.kind == "f" else "uint"))

    def note_changed(self) -> None:
        """Take note that a PUT changed it: ask anew if somebody listens, else it is stale."""
        if self.has_listeners:
            self.ask()
        else:
            self.stale = True

    def check_value(self, value: Any) -> np.ndarray:
        """Return the array as the detector keeps it, or refuse it.

        Raises
        ------
        LimitError
            If it is not of the detector's shape (y, x), not of a type that fits into the
            detector's without loss, or not finite.
        """
        array = np.asarray(value)
        wanted = f"{self.dtype.name} of shape {self._shape() or '(y, x)'}"
        if not np.can_cast(array.dtype, self.dtype, "safe"):
            raise LimitError(
                f"{self.name}: {array.dtype} does not fit into {self.dtype.name} without loss; "
                f"give an array of {wanted}, as .astype({self.dtype.name!r}) makes it"
            )
        if array.ndim != 2 or array.shape != (self._shape() or array.shape):
            raise LimitError(
                f"{self.name}: shape {array.shape} is not the detector's, says its "
                f"y_pixels_in_detector and x_pixels_in_detector; give an array of {wanted}"
            )
        array = array.astype(self.dtype)
        if not np.isfinite(array).all():
            count = np.count_nonzero(~np.isfinite(array))
            raise LimitError(f"{self.name}: {count} values are not finite numbers")
        return array

    def _shape(self) -> tuple[int, int] | None:
        signals = self.owner.y_pixels_in_detector, self.owner.x_pixels_in_detector
        if not all(signal.has_value for signal in signals):
            return None
        return int(signals[0].last), int(signals[1].last)

    def set(self, value: Any, **kwargs: Any) -> EigerStatus:
        """Put an array; done when the DCU took it, was asked for it again, and answers the same.

        Raises
        ------
        LimitError
            At once, if the array is not one that the detector keeps.
        ReplyError
            Through the Status, if the DCU answers another array than was put.
        """
        self.link.worker.raise_unseen()
        # A copy: the caller may go on to change his.
        checked = self.check_value(value)
        status = EigerStatus(f"{self.name}: set", timeout=kwargs.get("timeout"))
        return self.link.worker.submit(lambda: self._put_for_user(checked), status)

    def put_now(self, value: Any) -> None:
        """Put an array from the worker's own thread, and compare what the DCU made of it."""
        checked = self.check_value(value)
        self.link.make_way()
        lost = None
        try:
            reply = self._send(checked)
        except (LostReplyError, DcuTimeoutError) as error:
            logger.debug("%s; the DCU is asked what it has", error)
            reply, lost = None, error
        self.owner.read_again(names_in(reply), self)
        found = self._readback
        if found.shape != checked.shape or not np.array_equal(found, checked):
            why = "" if lost is None else f"{lost}; asked for it, "
            raise ReplyError(
                f"{self.name}: {why}the DCU answers another array than was put: "
                f"{_difference(found, checked)}",
                request=f"PUT {self.source}",
            ) from lost
        self.put_at = time.monotonic()
        self._asked = self._readback, self._readback

    def _send(self, value: np.ndarray) -> Any:
        forms = [self._form] if self._form == arrays.JSON else [arrays.TIFF, arrays.JSON]
        for form in forms:
            body = arrays.encode(value, form)
            try:
                reply = self.link.client.put_bytes(
                    self.subsystem, self.resource, body, content_type=form
                )
            except NotServedError as error:
                raise self.refusal(error) from error
            except RefusedError as error:
                if form == forms[-1] or error.status not in NO_SUCH_FORM:
                    raise
                logger.debug("%s; sent as JSON", error)
            else:
                self._form = form
                return reply
        return None

    def restore_factory(self) -> EigerStatus:
        """Remove what was put, so that the factory's array applies again (SIMPLON API 1.8: masks).

        Raises
        ------
        NotServedError, RefusedError
            Through the Status, if there was nothing to remove, or if this cannot be removed.
        """
        self.link.worker.raise_unseen()
        status = EigerStatus(f"{self.name}: restore the factory's")
        return self.link.worker.submit(self._restore, status)

    def _restore(self) -> None:
        self.link.refuse_what_loses(self.subsystem, self.resource)
        self.link.make_way()
        try:
            reply = self.link.client.delete(self.subsystem, self.resource)
        except NotServedError as error:
            what = "has nothing to remove, or no way back to the factory's"
            raise self.link.not_served(self.name, what, error) from error
        self.owner.read_again(names_in(reply), self)

    def describe(self) -> dict:
        """Return the data key with shape and type; empty before it was read, and while stale."""
        return super().describe() if self.has_value else {}

    def read(self) -> dict:
        """Return the last answer with the time it came; empty if there was none, or it is stale."""
        return super().read() if self.has_value else {}

    read_configuration = read
    describe_configuration = describe

    def _shown_value(self) -> str:
        array = self._readback
        return f"{array.dtype.name} of shape {array.shape}{', stale' if self.stale else ''}"


def _difference(found: np.ndarray, put: np.ndarray) -> str:
    if found.shape != put.shape:
        return f"shape {found.shape} instead of {put.shape}"
    different = np.argwhere(found != put)
    y, x = different[0]
    return f"{len(different)} pixels, first [{y}, {x}]: {found[y, x]} instead of {put[y, x]}"
