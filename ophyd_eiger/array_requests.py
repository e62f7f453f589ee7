"""Asks a DCU for a flat field or a pixel mask, in the shortest form that it has."""

import logging

import numpy as np

from ophyd_eiger import arrays
from ophyd_eiger.client import DcuClient
from ophyd_eiger.errors import RefusedError, TiffError

logger = logging.getLogger(__name__)

# What a DCU answers that does not speak a form: not acceptable, unsupported media type, and what
# servers that never heard of forms make of a body that is no JSON.
NO_SUCH_FORM = (400, 406, 415, 422, 500, 501)


def ask_array(
    client: DcuClient, subsystem: str, resource: str, form: str = arrays.TIFF
) -> tuple[np.ndarray, str]:
    """Return an array and the form it came in; JSON, where `form` is not to be had.

    Parameters
    ----------
    client : DcuClient
        The way to the DCU.
    subsystem, resource : str
        As in "detector", "config/pixel_mask".
    form : str
        `arrays.TIFF` or `arrays.JSON`: what is asked for first.

    Returns
    -------
    array : numpy.ndarray, shape (y, x)
        In the memory of the reply where that is possible, so not to be written to.
    form : str
        The one that the DCU answered in.

    Raises
    ------
    DcuError
    ValueError
        If the answer is no array.
    """
    try:
        return arrays.decode(client.get_bytes(subsystem, resource, accept=form))
    except (RefusedError, TiffError) as error:
        has_form = isinstance(error, RefusedError) and error.status not in NO_SUCH_FORM
        if form == arrays.JSON or has_form:
            raise
        logger.debug("%s; asked for JSON", error)
        return ask_array(client, subsystem, resource, arrays.JSON)
