"""Detectors that are components of other devices."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any


def forward_asset_docs(detector: Any) -> None:
    """Let devices that contain the detector pass its documents on.

    The RunEngine asks the device that it reads, and a plain ophyd Device does not ask its
    components: without this, events of a parent would name images that no document describes.

    Parameters
    ----------
    detector : ophyd.Device
        Has `collect_asset_docs`.
    """
    ancestor = detector.parent
    while ancestor is not None:
        if not hasattr(type(ancestor), "collect_asset_docs"):
            before = ancestor.__dict__.get("collect_asset_docs")
            ancestor.__dict__["collect_asset_docs"] = _chained(before, detector.collect_asset_docs)
        ancestor = ancestor.parent


def _chained(
    before: Callable[[], Iterator] | None, after: Callable[[], Iterator]
) -> Callable[[], Iterator]:
    if before is None:
        return after
    return lambda: itertools.chain(before(), after())
