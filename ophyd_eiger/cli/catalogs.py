"""Opens catalogs of runs for a command: of a folder, a tiled server, or a tiled profile."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ophyd_eiger.cli.common import Failed
from ophyd_eiger.errors import EigerError

# What `ophyd_eiger.catalog_server` keeps the runs in.
_DATABASE = "catalog.db"


@contextlib.contextmanager
def opened(catalog: str) -> Iterator[Any]:
    """Open a catalog until the end of the block; yields its client.

    Parameters
    ----------
    catalog : str
        A folder that has a catalog, or in which `catalog` has one; the URL of a tiled server, with
        its key; or the name of a tiled profile.

    Raises
    ------
    Failed
        If there is none, if it cannot be reached, or has not what the block asks for.
    """
    with _heard(catalog), contextlib.ExitStack() as at_end:
        address = catalog
        if (folder := _folder(catalog)) is not None:
            address = at_end.enter_context(_served(folder))
        client = _client(catalog, address)
        at_end.callback(client.context.close)
        yield client


def _folder(catalog: str) -> Path | None:
    if "://" in catalog:
        return None
    path = Path(catalog).expanduser()
    candidates = (path, path / "catalog")
    return next((each for each in candidates if (each / _DATABASE).is_file()), None)


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Serve the catalog of a folder, as a prompt may do at the same time; yields its URL."""
    from ophyd_eiger.trial import start_catalog

    server = start_catalog(folder)
    try:
        try:
            url = server.url
        except EigerError as error:
            # Of a traceback, what it ends with.
            said = re.findall(r"^[\w.]+: .+", str(error), re.MULTILINE) or [str(error)]
            why = said[-1]
            raise Failed(f"{folder}: this catalog cannot be served: {why}") from error
        yield url
    finally:
        server.end()


@contextlib.contextmanager
def _heard(catalog: str) -> Iterator[None]:
    """Turn what a catalog says that cannot be reached, or has no such thing, into a message."""
    try:
        import httpx
    except ImportError as error:
        raise Failed(
            f"{error}; catalogs need: pip install 'ophyd-eiger[databroker]'", "ImportError"
        ) from error
    # The key that may be in a URL is nobody else's business.
    catalog = catalog.partition("?")[0]
    try:
        yield
    except EigerError:
        raise
    except (httpx.HTTPError, LookupError) as error:
        raise Failed(f"{catalog}: {_words(error)}", type(error).__name__) from error


def _client(catalog: str, address: str) -> Any:
    """Return the client of a catalog at an address.

    Raises
    ------
    Failed
        If the server wants a key, or is none of tiled, or if there is no such profile.
    """
    import httpx
    from tiled.client import from_profile, from_uri
    from tiled.profiles import ProfileNotFound

    shown = catalog.partition("?")[0]
    try:
        return from_uri(address) if "://" in address else from_profile(address)
    except ProfileNotFound as error:
        raise Failed(_nothing(catalog), type(error).__name__) from error
    except RuntimeError as error:
        if "API key" not in str(error):
            raise
        raise Failed(
            f"{shown}: this server wants an API key: set TILED_API_KEY, or give the URL as "
            f"{shown}?api_key=...; of a catalog that a prompt serves give the folder",
            type(error).__name__,
        ) from error
    except httpx.HTTPStatusError as error:
        if error.response.status_code != httpx.codes.NOT_FOUND:
            raise
        raise Failed(f"{shown}: {error}; is this a tiled server?", type(error).__name__) from error


def _nothing(catalog: str) -> str:
    """Return what to tell of a name that is nothing."""
    from tiled.profiles import list_profiles

    there = (
        f"it has no {_DATABASE}"
        if Path(catalog).expanduser().is_dir()
        else "there is no such folder"
    )
    profiles = ", ".join(sorted(list_profiles())) or "none"
    return (
        f"{catalog} is no catalog: {there}, and no tiled profile has that name (of those there are "
        f"{profiles}); give the folder of a catalog, as data/catalog of `make shell`, the URL of a "
        "tiled server, or the name of a tiled profile"
    )


def _words(error: Exception) -> str:
    """Return an error's own words, which of a KeyError are in quotes otherwise."""
    alone = isinstance(error, LookupError) and len(error.args) == 1
    return str(error.args[0] if alone else error)
