"""optuna-dashboard on the store of a folder or a database, for this machine alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer, make_server

from unetpp.database import check_url, engine_options
from unetpp.errors import UserError
from unetpp.store import RecordStore

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    import optuna

# Nobody else on the network: the dashboard can change and delete what it shows.
_HOST = "127.0.0.1"


def serve(
    folder: Path, *, port: int, say: Callable[[str], object], store: str | None = None
) -> None:
    """Serve until Ctrl-C.

    Raises:
        UserError: without the extra, without a store in the folder or under the URL `store`, or on
            a port that is taken.
    """
    with open_server(folder, port=port, store=store) as server:
        say(f"http://{_HOST}:{server.server_port}/dashboard  (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


@contextmanager
def open_server(folder: Path, *, port: int, store: str | None = None) -> Iterator[WSGIServer]:
    """The dashboard, bound to a port of this machine (0: a free one) and not serving yet.

    Raises:
        UserError: see `serve`.
    """
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise UserError(
            "`unetpp dashboard` needs optuna-dashboard, which is not installed; "
            "pip install 'unetpp[dashboard]'"
        )
    from optuna_dashboard import wsgi

    records = RecordStore.open_place(folder, store, must_exist=True)
    records.close()
    storage = _storage(records.url)
    try:
        with _bound(port, wsgi(storage)) as server:
            yield server
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _bound(port: int, application: WSGIApplication) -> WSGIServer:
    try:
        return make_server(_HOST, port, application)
    except OSError as error:
        raise UserError(
            f"the dashboard needs a port of its own, but {port} is not free ({error.strerror}); "
            "give another --port"
        ) from None


def _storage(url: str) -> optuna.storages.RDBStorage:
    """Optuna's tables in the database of the records, opened as the records are."""
    import optuna

    return optuna.storages.RDBStorage(url, engine_kwargs=engine_options(check_url(url)))
