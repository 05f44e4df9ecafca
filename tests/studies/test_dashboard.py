import json
import threading
import urllib.request

import pytest

from studies._dashboard import open_server
from unetpp.errors import UserError
from unetpp.store import RecordStore


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_dashboard_shows_the_study_of_a_folder_to_this_machine_alone(tmp_path):
    import optuna

    url = RecordStore.url_of_folder(tmp_path)
    RecordStore.open_folder(tmp_path).close()
    study = optuna.create_study(study_name="search", storage=url, direction="maximize")
    study.tell(study.ask(), 0.5)
    with open_server(tmp_path, port=0) as server:
        assert server.server_address[0] == "127.0.0.1"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        place = f"http://127.0.0.1:{server.server_port}/api/studies"
        with urllib.request.urlopen(place, timeout=30) as answer:
            told = json.load(answer)
        server.shutdown()
        thread.join()
        taken = pytest.raises(UserError, match=rf"but {server.server_port} is not free")
        with taken, open_server(tmp_path, port=server.server_port):
            pass
    assert [s["study_name"] for s in told["study_summaries"]] == ["search"]


def test_a_folder_without_records_has_no_dashboard(tmp_path):
    missing = pytest.raises(UserError, match=r"records\.sqlite")
    with missing, open_server(tmp_path, port=0):
        pass
