"""The catalog of runs: cat[-1] is the last one, cat[12] that with scan_id 12, cat.v1 databroker's.

A run that the catalog does not take goes to a file of its documents instead, and the scan goes on.
"""

from bluesky_tiled_plugins import TiledWriter
from tiled.client import from_uri

if "cat" not in globals():
    cat = from_uri(catalog_server.url if catalog_server else os.environ["EIGER_CATALOG"])
    at_exit.callback(cat.context.close)
    RE.subscribe(
        TiledWriter(
            cat,
            # tiled reads the view that is beside the files of each series.
            spec_to_mimetype={"EIGER_SIMPLON": "application/x-hdf5"},
            # Each event at once, so that a run that breaks off has those before.
            batch_size=1,
            backup_directory=str(data_folder / "not_in_catalog"),
        )
    )
