"""Every error of the package, in one tree. Imports nothing outside the standard library.

::

    EigerError
    ├── AddressError (ValueError)                 an address that names no DCU
    ├── DcuError                                  a request that did not do what was asked
    │   ├── DcuUnreachableError (ConnectionError)     no connection, so nothing was done
    │   ├── LostReplyError (ConnectionError)          sent, but the reply got lost
    │   ├── DcuTimeoutError (TimeoutError)            sent, but no reply within the stated time
    │   ├── RefusedError (RuntimeError)               the DCU answered with an HTTP error
    │   │   └── NotServedError (LookupError)              the DCU does not have this resource
    │   └── ReplyError (ValueError)                   an answer that cannot be understood
    ├── ValueRefusedError                         a value that the package does not send
    │   ├── LimitError (ophyd's LimitError)           outside what the detector itself allows
    │   └── ReadOnlyError (ophyd's ReadOnlyError)     a resource that cannot be written
    ├── UnknownSettingError (LookupError)         a name that is no setting of this detector
    ├── StateError (RuntimeError)                 not possible in the state the detector is in
    │   ├── NotStagedError                            trigger, read or describe came too early
    │   ├── PreflightError                            a series that cannot fit or be taken
    │   ├── RecoveryError                             a detector that could not be brought back
    │   ├── StoppedError                              an exposure that was ended by stop()
    │   └── SignalTimeoutError (TimeoutError)         no signal came to the trigger input
    ├── PromiseError (ValueError)                 images would differ from what describe() promised
    ├── RegionError (ValueError)                  a region of interest that no image has
    ├── CodecError (RuntimeError)                 nothing here that decompresses images
    ├── RunError (ValueError)                     a run that cannot be worked on as asked
    │   ├── NoImagesError (LookupError)               a run without such images
    │   └── NoRunError (LookupError)                  no run by that number or uid
    ├── TiffError (ValueError)                    an image of the monitor that cannot be decoded
    ├── TransferError (OSError)                   a file that could not be brought home
    └── FileError (OSError)                       a file that is not what it should be
        ├── ConfigurationFileError (ValueError)       a saved configuration that cannot be used
        ├── GeometryError                             a master does not say where the beam was
        ├── JournalError (ValueError)                 a record of a series that cannot be used
        ├── ChangedFileError                          a file replaced while it was read
        ├── ChunkError (ValueError)                   an image whose bytes are broken
        │   └── StorageError                              or stored as no EIGER stores one
        └── MissingFileError (FileNotFoundError)      a data file that a series needs

`LimitError` and `ReadOnlyError` are also ophyd's and therefore live in `ophyd_eiger.signals`.
"""


class EigerError(Exception):
    """Base of all errors of this package."""


class AddressError(EigerError, ValueError):
    """The address does not name a DCU."""


class DcuError(EigerError):
    """A request to the DCU that did not do what was asked.

    Attributes
    ----------
    request : str
        Method and address of the request, as in "PUT http://dcu/detector/api/1.6.0/command/arm".
    """

    def __init__(self, message: str, *, request: str) -> None:
        super().__init__(message)
        self.request = request


class DcuUnreachableError(DcuError, ConnectionError):
    """No connection could be made, so the DCU never saw the request."""


class LostReplyError(DcuError, ConnectionError):
    """The request was sent, but the connection broke before the reply: it may have been done."""


class DcuTimeoutError(DcuError, TimeoutError):
    """The request was sent, but no reply came in the time stated for its kind."""


class RefusedError(DcuError, RuntimeError):
    """The DCU answered with an HTTP error.

    Attributes
    ----------
    status : int
        The HTTP status code.
    text : str
        The DCU's own words.
    """

    def __init__(self, message: str, *, request: str, status: int, text: str) -> None:
        super().__init__(message, request=request)
        self.status = status
        self.text = text


class NotServedError(RefusedError, LookupError):
    """The DCU does not have this resource, or does not have it before `initialize`."""


class ReplyError(DcuError, ValueError):
    """The DCU's answer cannot be understood."""


class ValueRefusedError(EigerError):
    """A value that the package does not send, because the detector would not take it."""


class UnknownSettingError(EigerError, LookupError):
    """A name that is no setting of this detector; nothing was put."""


class StateError(EigerError, RuntimeError):
    """What was asked is not possible in the state the detector is in."""


class NotStagedError(StateError):
    """A verb came before the one it needs: trigger before stage, read before trigger."""


class PreflightError(StateError):
    """The series cannot be taken as it is set up: no room, or too fast; nothing was armed."""


class RecoveryError(StateError):
    """The detector could not be brought back, or not with its settings."""


class StoppedError(StateError):
    """The exposure was ended by `stop()` before its images were complete."""


class SignalTimeoutError(StateError, TimeoutError):
    """No signal came to the detector's trigger input within the stated time."""


class PromiseError(EigerError, ValueError):
    """The next images would have another shape or type than `describe()` told the run."""


class RegionError(EigerError, ValueError):
    """A region of interest is none, or is not within the image."""


class CodecError(EigerError, RuntimeError):
    """A library that decompresses images is not there, or does not work."""


class RunError(EigerError, ValueError):
    """A run cannot be worked on as asked; nothing was written."""


class NoImagesError(RunError, LookupError):
    """A run has no images of an EIGER, or none of that stream and key."""


class NoRunError(RunError, LookupError):
    """No run of a catalog is the one that was asked for, or several may be."""


class TiffError(EigerError, ValueError):
    """The bytes of a TIFF are broken, or not in the layout that the detector writes."""


class TransferError(EigerError, OSError):
    """A file of a series could not be brought home; what is on the DCU stays there."""


class FileError(EigerError, OSError):
    """A file is not what it should be."""


class GeometryError(FileError):
    """A master file does not say where the beam was."""


class ConfigurationFileError(FileError, ValueError):
    """A saved configuration that cannot be written, understood, or used for this detector."""


class JournalError(FileError, ValueError):
    """The record of what a series owes cannot be understood."""


class ChangedFileError(FileError):
    """A file is not the one any more that was looked into."""


class ChunkError(FileError, ValueError):
    """The compressed bytes of an image are broken."""


class StorageError(ChunkError):
    """An image is stored as no EIGER stores one: it may be whole, and is not read."""


class MissingFileError(FileError, FileNotFoundError):
    """A data file that a series needs is not there."""
