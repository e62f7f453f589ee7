"""The catalog of runs: cat[-1] is the last one, cat[12] that with scan_id 12, cat.v1 databroker's.

A run that the catalog does not take goes to a file of its documents instead, and the scan goes on.
"""

from bluesky_tiled_plugins import TiledWriter
from bluesky_tiled_plugins.clients.catalog_of_bluesky_runs import CatalogOfBlueskyRuns
from tiled.client import from_uri


def open_catalog():
    """Return the catalog of a server, if it was given and can be used, else the folder's."""
    server = catalog_server
    if server is None:
        address = os.environ["EIGER_CATALOG"]
        try:
            found = from_uri(address)
            if isinstance(found, CatalogOfBlueskyRuns):
                return found
            why = "it is no catalog of bluesky's runs"
        except Exception as error:  # noqa: BLE001 - without a catalog there would be no prompt
            # Of many kinds: it is off, is something else, or wants a login.
            why = str(error) or type(error).__name__
        # Without the key, which may be in it.
        said, _, key = address.partition("?")
        why = why.replace(key, "...") if key else why
        print(f"{said} is not used ({why}): runs go to {data_folder / 'catalog'}")
        server = start_catalog(data_folder / "catalog")
        at_exit.callback(server.end)
    return from_uri(server.url)


if "cat" not in globals():
    cat = open_catalog()
    at_exit.callback(cat.context.close)
    if cat.is_sql:
        writer = TiledWriter(
            cat,
            # tiled reads the view that is beside the files of each series.
            spec_to_mimetype={"EIGER_SIMPLON": "application/x-hdf5"},
            # Each event at once, so that a run that breaks off has those before.
            batch_size=1,
            backup_directory=str(data_folder / "not_in_catalog"),
        )
    else:
        writer = cat.v1.insert  # databroker's, in MongoDB
    RE.subscribe(writer)
