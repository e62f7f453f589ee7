"""A tiled server of the catalog of runs in a folder: `python -m ophyd_eiger.catalog_server FOLDER`.

Says its URL, key included, in one line, and serves this machine until it is told to end. It reads
whatever its user may read, because a run's images are wherever their detector put them.

Runs are in `catalog.db`, what their events read in `tables.db`. Both are SQLite, which several
servers of one folder may use at once; DuckDB, which tiled's own simple server takes, lets in one.
"""

import asyncio
import logging
import secrets
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn
from sqlalchemy.ext.asyncio import create_async_engine
from tiled.alembic_utils import UninitializedDatabase, check_database, stamp_head
from tiled.catalog.adapter import from_uri
from tiled.catalog.alembic_constants import ALEMBIC_DIR, ALEMBIC_INI_TEMPLATE_PATH
from tiled.catalog.core import ALL_REVISIONS, REQUIRED_REVISION, initialize_database
from tiled.config import Authentication
from tiled.server.app import build_app
from tiled.utils import ensure_specified_sql_driver

# What makes tiled's clients find runs in it by number and uid, as databroker does.
SPECS = [{"name": "CatalogOfBlueskyRuns", "version": "3.0"}]


def main(folder: Path) -> None:
    """Serve the catalog in a folder."""
    (folder / "arrays").mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=folder / "server.log", format="%(asctime)s %(message)s")
    database = ensure_specified_sql_driver(f"sqlite:///{folder / 'catalog.db'}")
    if asyncio.run(_made(database)):
        # As `tiled catalog init` does, but not in one more process, which takes seconds.
        stamp_head(Path(ALEMBIC_INI_TEMPLATE_PATH), Path(ALEMBIC_DIR), database)
    catalog = from_uri(
        database,
        specs=SPECS,
        writable_storage=[(folder / "arrays").as_uri(), f"sqlite:///{folder / 'tables.db'}"],
        readable_storage=[Path("/").as_uri()],
    )
    key = secrets.token_hex(32)
    app = build_app(catalog, authentication=Authentication(single_user_api_key=key))
    asyncio.run(_serve(app, key))


async def _made(database: str) -> bool:
    """Make the database if it is not there; return whether it was made."""
    engine = create_async_engine(database)
    try:
        await check_database(engine, REQUIRED_REVISION, ALL_REVISIONS)
    except UninitializedDatabase:
        await initialize_database(engine)
        return True
    finally:
        await engine.dispose()
    return False


async def _serve(app: Any, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, log_level="warning"))
        serving = asyncio.create_task(server.serve([listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if serving.done():
            # It did not start; what it raised says why.
            await serving
            return
        port = listener.getsockname()[1]
        sys.stdout.write(f"http://127.0.0.1:{port}/api/v1?api_key={key}\n")
        sys.stdout.flush()
        await serving


if __name__ == "__main__":
    main(Path(sys.argv[1]))
