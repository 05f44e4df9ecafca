"""optuna-dashboard on the store of a folder, for this machine alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from wsgiref.simple_server import WSGIServer, make_server

from unetpp.errors import UserError
from unetpp.store import RecordStore

# Nobody else on the network: the dashboard can change and delete what it shows.
_HOST = "127.0.0.1"


def serve(folder: Path, *, port: int, say: Callable[[str], object]) -> None:
    """Serve until Ctrl-C.

    Raises:
        UserError: without the extra, without a store in the folder, or on a port that is taken.
    """
    with open_server(folder, port=port) as server:
        say(f"http://{_HOST}:{server.server_port}/dashboard  (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


def open_server(folder: Path, *, port: int) -> WSGIServer:
    """The dashboard, bound to a port of this machine (0: a free one) and not serving yet.

    Raises:
        UserError: see `serve`.
    """
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise UserError(
            "`unetpp dashboard` needs optuna-dashboard, which is not installed; "
            "pip install 'unetpp[dashboard]'"
        )
    import optuna
    from optuna_dashboard import wsgi

    store = RecordStore.open_folder(folder, must_exist=True)
    store.close()
    storage = optuna.storages.RDBStorage(store.url, skip_table_creation=False)
    try:
        return make_server(_HOST, port, wsgi(storage))
    except OSError as error:
        raise UserError(
            f"the dashboard needs a port of its own, but {port} is not free ({error.strerror}); "
            "give another --port"
        ) from None
