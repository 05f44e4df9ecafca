"""Workers that Ray or Slurm places: each fold is recorded once, whatever dies."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray_cluster
import sqlalchemy as sa
from postgres import needs_postgres, serving
from sqlalchemy.exc import DBAPIError

from studies import _ray_workers, _slurm_workers
from studies._options import placing_of
from studies._ray_workers import _work, ray_placement
from studies._slurm_workers import slurm_placement
from studies._study import Placing
from studies._worker import WorkerCall
from tests.faults.site import SEARCH, facts
from tests.held import Held
from unetpp.errors import PlaceError, UserError
from unetpp.store import RecordStore

ROOT = Path(__file__).parents[2]
PLACES = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
EPOCHS = 40
STUDY = (
    *("run", "nested_vs_plain", "--quick", "--depth", "2", "--width", "2", "--size", "16"),
    *("--epochs", f"{EPOCHS}", "--device", "cpu"),
)
NUM_RUNS = 12
CALL = WorkerCall(store="postgresql+psycopg://ann@db/unetpp", study="nested_vs_plain")


AS_A_USER = "from studies.cli import main; main()"
# Processes of this machine stand for jobs.
WITHOUT_SLURM = (
    "from functools import partial; from studies import _engines, _slurm_workers; "
    "from tests.held import HeldSlurmWorker; _slurm_workers.SlurmWorker = HeldSlurmWorker; "
    "_engines.slurm_placement = partial(_engines.slurm_placement, cluster='local'); " + AS_A_USER
)


HELD_IN_RAY = (
    "from studies import _ray_workers; from tests.held import held_task, note_looks; "
    "_ray_workers._work = held_task; note_looks(); " + AS_A_USER
)


def start(
    *options: object, command: Sequence[str] = STUDY, program: str = AS_A_USER
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *command, *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ray_cluster.environment(), "PYTHONPATH": PLACES},
    )


@pytest.fixture(scope="module")
def counts_of_one_process(tmp_path_factory: pytest.TempPathFactory) -> list[sa.Row]:
    folder = tmp_path_factory.mktemp("alone")
    with start("--out", folder) as process:
        _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return counts(f"sqlite:///{folder / 'records.sqlite'}")


def asked(url: str, query: str) -> list[sa.Row]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return list(connection.execute(sa.text(query)))


def counts(url: str) -> list[sa.Row]:
    query = 'SELECT run_id, "case", output, tp, fp, fn, tn FROM cases'
    # Sorted here: databases order text each in its own way.
    return sorted(asked(url, query))


def num_runs(url: str) -> int:
    try:
        return len(asked(url, "SELECT id FROM runs"))
    except DBAPIError:
        return 0


def wait_until(true: Callable[[], object], *, alive: Callable[[], bool] = lambda: True) -> None:
    deadline = time.monotonic() + 600
    while not true():
        assert alive(), "the command ended too early"
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def check_all_there(url: str, expected: list[sa.Row]) -> None:
    assert num_runs(url) == NUM_RUNS
    assert counts(url) == expected, "where a fold is trained must not change a number"
    assert asked(url, "SELECT item FROM claims WHERE holder IS NOT NULL") == []


@dataclass(frozen=True)
class _Begun:
    """What a file of noted epochs says."""

    file: Path

    def lines(self) -> list[tuple[str, int, int]]:
        """Run, epoch and process, in the order in which they were begun."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [(run, int(epoch), int(pid)) for run, epoch, pid in map(str.split, lines)]

    def check(self, *, interruptions: int) -> None:
        """Every epoch was trained, and no more of them twice than were interrupted."""
        begun = Counter((run, epoch) for run, epoch, _ in self.lines())
        runs = {run for run, _ in begun}
        assert len(runs) == NUM_RUNS
        assert begun.keys() == {(run, epoch) for run in runs for epoch in range(1, EPOCHS + 1)}
        assert sum(begun.values()) - len(begun) <= interruptions


@pytest.mark.slow
@pytest.mark.timeout(2000)
@needs_postgres
def test_ray_goes_on_after_a_kill_and_the_loss_of_a_node(
    tmp_path, monkeypatch, counts_of_one_process
):
    held = Held(tmp_path / "held")
    begun = _Begun(held.begun)
    for name, value in (ray_cluster.ENVIRONMENT | held.environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", PLACES)
    held.allow(0)
    one = {"num_cpus": 1, "num_gpus": 1}
    with serving() as server, ray_cluster.cluster({"num_cpus": 2, "num_gpus": 1}, one, one) as made:
        head, leaving, _ = made.list_all_nodes()
        options = ("--engine", "ray", "--ray-address", made.address, "--workers", 4)
        place = ("--store", server.url, "--out", tmp_path / "out", "--gpus-per-run", 0.5)
        with start(*options, *place, program=HELD_IN_RAY) as process:
            alive = partial(lambda p: p.poll() is None, process)
            wait_until(lambda: len(held.training()) == 4, alive=alive)
            working = ray_cluster.workers_of(made)
            # Two halves of the one GPU that the head says it has.
            assert Counter(map(made.list_all_nodes().index, working.values())) == {0: 2, 1: 1, 2: 1}
            killed = next(pid for pid, node in working.items() if node is head)
            lost = next(pid for pid, node in working.items() if node is leaving)
            # The command has seen who has which fold.
            wait_until(lambda: {killed, lost} <= held.seen_holders(), alive=alive)
            # It must not end by itself when its node does.
            os.kill(lost, signal.SIGSTOP)
            os.kill(killed, signal.SIGKILL)
            made.remove_node(leaving, allow_graceful=False)
            os.kill(lost, signal.SIGKILL)
            joined = made.add_node(**one, **ray_cluster.NODE)
            wait_until(lambda: joined in ray_cluster.workers_of(made).values(), alive=alive)
            held.let_go()
            _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        check_all_there(server.url, counts_of_one_process)
        begun.check(interruptions=2)
    for pid in (killed, lost):
        assert f"worker {socket.gethostname()}:{pid} died in " in err


@pytest.mark.slow
@pytest.mark.timeout(2000)
@needs_postgres
def test_a_search_in_ray_decides_what_one_process_decides(tmp_path, monkeypatch):
    held = Held(tmp_path / "held")
    for name, value in (ray_cluster.ENVIRONMENT | held.environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", PLACES)
    with start("--out", tmp_path / "alone", command=SEARCH) as process:
        _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    one = {"num_cpus": 1}
    with serving() as server, ray_cluster.cluster(one, one) as made:
        options = ("--engine", "ray", "--ray-address", made.address, "--workers", 2)
        place = ("--store", server.url, "--out", tmp_path / "out")
        held.allow(0)
        with start(*options, *place, command=SEARCH, program=HELD_IN_RAY) as process:
            alive = partial(lambda p: p.poll() is None, process)
            wait_until(lambda: len({*ray_cluster.workers_of(made).values()}) == 2, alive=alive)
            held.let_go()
            _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        found = facts(server.url)
        assert asked(server.url, "SELECT item FROM claims") == []
    assert found == facts(f"sqlite:///{tmp_path / 'alone' / 'records.sqlite'}")


class _Placer:
    """Of Ray what places tasks: each ends with what `outcomes` has for it, or works on."""

    def __init__(self, *outcomes: str) -> None:
        self.outcomes, self.started = outcomes, 0

    def options(self, **_: object) -> _Placer:
        return self

    def remote(self, _: object) -> int:
        self.started += 1
        return self.started - 1

    def wait(self, tasks: list[int], **_: object) -> tuple[list[int], list[int]]:
        over = [task for task in tasks if self.outcomes[task : task + 1] != ("works",)]
        return over, [task for task in tasks if task not in over]

    def get(self, task: int) -> tuple[str, str]:
        return self.outcomes[task] if task < len(self.outcomes) else "done", ""


def two_placed(monkeypatch: pytest.MonkeyPatch, *outcomes: str) -> tuple[_Placer, Any]:
    import ray

    placer = _Placer(*outcomes)
    monkeypatch.setattr(ray, "remote", lambda _: placer)
    monkeypatch.setattr(ray, "wait", placer.wait)
    monkeypatch.setattr(ray, "get", placer.get)
    tasks = _ray_workers._Tasks(CALL, Placing(engine="ray", num_workers=2))
    tasks.begin()
    return placer, tasks


@pytest.mark.parametrize(
    ("outcomes", "started"),
    [
        # Who sees nothing to do is not replaced while another works.
        (("done", "works"), [2, 2, 2]),
        # The first look finds that all have ended; at the second it still is not all done.
        (("done", "done", "works", "works"), [2, 4, 4]),
        # The node of one is drained.
        (("asked", "works", "works"), [3, 3, 3]),
    ],
)
def test_ray_places_workers_again_when_all_left_and_it_is_not_done(monkeypatch, outcomes, started):
    placer, tasks = two_placed(monkeypatch, *outcomes)
    seen = []
    for _ in range(3):
        tasks.look()
        seen.append(placer.started)
    assert seen == started


def test_workers_that_leave_again_and_again_with_work_left_are_given_up(monkeypatch):
    placer, tasks = two_placed(monkeypatch)
    for _ in range(11):
        tasks.look()
    with pytest.raises(UserError, match="6 times all of them ended and something was left; see"):
        tasks.look()
    assert placer.started == 12


def test_a_head_that_stays_away_is_named_and_one_that_comes_back_is_not(monkeypatch):
    now, away = [0.0], [False]

    def knock(_: str) -> None:
        if away[0]:
            raise ConnectionRefusedError("refused")

    monkeypatch.setattr(_ray_workers, "_knock", knock)
    monkeypatch.setattr(_ray_workers.time, "monotonic", lambda: now[0])
    head = _ray_workers._Head("10.0.0.1:6379")

    def look_for(seconds: int) -> None:
        for _ in range(seconds):
            now[0] += 1
            head.look()

    look_for(100)
    away[0] = True
    look_for(38)
    away[0] = False
    look_for(10)
    away[0] = True
    with pytest.raises(UserError, match=r"10\.0\.0\.1:6379 does not answer any more \(refused\)"):
        look_for(46)
    assert not head.is_there


class _CutOff:
    """Tasks of a client that has lost its cluster."""

    def __init__(self, *_: object) -> None:
        self.begin = lambda: None

    def look(self) -> None:
        raise ConnectionError("Client is shutting down.")

    def end(self, _: float) -> None:
        raise AssertionError("Ray would start a cluster of its own for it")


def test_a_client_that_has_lost_its_cluster_is_told_so(monkeypatch):
    monkeypatch.setattr(_ray_workers, "_joined", nullcontext)
    monkeypatch.setattr(_ray_workers, "_warn_of_want", lambda *_: None)
    monkeypatch.setattr(_ray_workers, "_Tasks", _CutOff)
    placement = ray_placement(CALL, Placing(engine="ray", address="ray://10.0.0.1:10001"))
    with placement() as look, pytest.raises(UserError, match=r"any more \(Client is shut"):
        look()


def listening(session: int) -> list[str]:
    """Addresses on which processes of a session listen, as `ss` has them."""
    text = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout
    mine = []
    for line in text.splitlines():
        pids = [int(part.split(",")[0]) for part in line.split("pid=")[1:]]
        if any(_session(pid) == session for pid in pids):
            mine.append(line.split()[3].rpartition(":")[0].removeprefix("[::ffff:").rstrip("]"))
    return mine


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


@pytest.mark.slow
@pytest.mark.timeout(2000)
@needs_postgres
def test_a_cluster_of_ones_own_listens_on_loopback_and_goes_at_sigterm(tmp_path):
    with serving() as server:
        options = ("--engine", "ray", "--workers", 2, "--store", server.url)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        held = Held(tmp_path / "held")
        held.allow(1)
        process = subprocess.Popen(
            [sys.executable, "-c", HELD_IN_RAY, *STUDY,
             *map(str, options), "--out", f"{tmp_path / 'out'}"],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**environment, **held.environment, "PYTHONPATH": PLACES, "HOME": f"{tmp_path}"},
        )  # fmt: skip
        with process:
            alive = partial(lambda p: p.poll() is None, process)
            wait_until(lambda: num_runs(server.url) >= 1, alive=alive)
            wait_until(lambda: len(held.training()) == 2, alive=alive)
            assert len(listening(process.pid)) >= 3
            assert set(listening(process.pid)) == {"127.0.0.1"}
            process.terminate()
            _, err = process.communicate(timeout=600)
        assert process.returncode == 143, err
        assert err.endswith("stopped; the same command goes on from here\n")
        assert 1 <= num_runs(server.url) < NUM_RUNS
        assert asked(server.url, "SELECT item FROM claims WHERE holder IS NOT NULL") == []
        assert listening(process.pid) == []


def children(pid: int) -> list[int]:
    place = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [int(child) for child in place.read_text().split()]
    except FileNotFoundError:
        return []


@pytest.mark.slow
@pytest.mark.timeout(2000)
@needs_postgres
def test_slurm_goes_on_after_a_time_limit_and_a_kill(tmp_path, monkeypatch, counts_of_one_process):
    out, held = tmp_path / "out", Held(tmp_path / "held")
    for name, value in held.environment.items():
        monkeypatch.setenv(name, value)
    held.allow(2)
    options = ("--engine", "slurm", "--workers", 2, "--slurm", "time=60", "--out", out)
    with serving() as server:
        with start(*options, "--store", server.url, program=WITHOUT_SLURM) as process:
            alive = partial(lambda p: p.poll() is None, process)
            wait_until(lambda: num_runs(server.url) >= 2, alive=alive)
            wait_until(lambda: len(held.training()) == 2, alive=alive)
            [first], [second] = map(children, children(process.pid))
            # As Slurm does before a time limit, and when it must have the node at once.
            os.kill(first, signal.SIGUSR2)
            wait_until(lambda: not Path(f"/proc/{first}").exists(), alive=alive)
            os.kill(second, signal.SIGKILL)
            wait_until(lambda: num_jobs(out / "slurm") == 3, alive=alive)
            held.let_go()
            _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        check_all_there(server.url, counts_of_one_process)
    logs = "".join(log.read_text() for log in (out / "slurm").glob("*_log.out"))
    assert logs.count("Requeued job") == 1
    assert num_jobs(out / "slurm") == 3
    assert (out / "slurm").stat().st_mode & 0o077 == 0


def test_a_job_holds_the_words_of_its_call_and_no_more():
    worker = _slurm_workers.SlurmWorker(CALL.to_json())
    again = worker.checkpoint()
    assert again.function == worker
    assert again.args == ()
    assert WorkerCall.from_json(worker.call) == CALL


@pytest.mark.parametrize(("error", "is_final"), [(UserError, True), (PlaceError, False)])
def test_a_node_that_cannot_reach_the_store_ends_its_job_alone(monkeypatch, error, is_final):
    def run(*_: object) -> None:
        raise error("the law, the value; the way out")

    monkeypatch.setattr(_slurm_workers, "run_worker", run)
    before = {sign: signal.getsignal(sign) for sign in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        with pytest.raises(SystemExit) as ended:
            _slurm_workers.SlurmWorker(CALL.to_json())()
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
    assert str(ended.value.code).startswith("error: ") == is_final


def worker_that_says(words: str, *, ends: str = "") -> object:
    """Ends at once in place of a `SlurmWorker`, which takes seconds to begin."""

    class Worker:
        # Its class travels with it, as the job knows nothing of this module.
        def __init__(self, _: str) -> None:
            pass

        def __call__(self) -> None:
            import sys

            sys.stderr.write(f"{words}\n")
            if ends:
                raise KeyError(ends)

    return Worker


def placed_here(folder: Path, num_workers: int = 1) -> AbstractContextManager[Callable[[], None]]:
    placing = Placing(engine="slurm", num_workers=num_workers, slurm=("time=60",))
    return slurm_placement(CALL, placing, folder, cluster="local")()


def num_jobs(folder: Path) -> int:
    return len(list(folder.glob("*_submitted.pkl")))


def test_jobs_that_all_ended_well_are_placed_again_while_work_is_left(tmp_path, monkeypatch):
    done = worker_that_says(_slurm_workers._DONE)
    monkeypatch.setattr(_slurm_workers, "SlurmWorker", done)
    monkeypatch.setattr(_slurm_workers, "_REPLACEMENTS", 1)
    with placed_here(tmp_path, num_workers=2) as look:

        def until(number: int) -> bool:
            look()
            return num_jobs(tmp_path) == number

        wait_until(partial(until, 4))
        with pytest.raises(
            UserError, match="but 4 of them ended before, the last of them with 'ev"
        ):
            wait_until(partial(until, 6))
    assert num_jobs(tmp_path) == 4, "and no more than that"


def test_a_job_that_leaves_an_error_as_its_result_is_replaced(tmp_path, monkeypatch):
    worker = worker_that_says("1 of 4 runs are recorded", ends="colour")
    monkeypatch.setattr(_slurm_workers, "SlurmWorker", worker)
    monkeypatch.setattr(_slurm_workers, "_REPLACEMENTS", 1)
    with placed_here(tmp_path) as look, pytest.raises(UserError) as failed:
        wait_until(lambda: look())
    assert num_jobs(tmp_path) == 2
    assert "but 2 of them ended before, the last (" in str(failed.value)
    assert "with \"KeyError: 'colour'\"; see its log in " in str(failed.value)


# Of a real Slurm (22.05), with what its programs say behind the worker.
STEP_ENDS = """\
srun: Job step aborted: Waiting up to 32 seconds for job step to finish.
submitit WARNING (2026-11-29 10:11:35,461) - Bypassing signal SIGCONT
slurmstepd-n1: error: *** JOB 6 ON n1 CANCELLED AT 2026-11-29T10:11:34{why} ***
{worker}
srun: error: n1: task 0: Exited with exit code 1
"""


class FakeSlurm:
    """Programs by these names, for whom the queue is a file; they note what they were told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._queue = folder / "queue"
        folder.mkdir()
        self._program(
            "sbatch",
            f'cp "$1" {folder}/script; env > {folder}/environment; n=$(($(cat {folder}/last 2>/dev/null || echo 6) + 1)); '
            f"echo $n > {folder}/last; echo Submitted batch job $n; if grep -q array $1; "
            f"then echo ${{n}}_0 None; echo ${{n}}_1 None; else echo $n None; fi >> {self._queue}",
        )
        self._program(
            "squeue", f'test -z "$SQUEUE_STATES" && echo $* >> {folder}/asked && cat {self._queue}'
        )
        self._program("scancel", f"echo $* >> {folder}/cancelled")
        self._program("srun", "true")

    def _program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o700)

    def end(self, job: str, out: Path, log: str) -> None:
        """Let a job end that wrote this."""
        (out / f"{job}_0_log.err").write_text(log, errors="surrogateescape")
        queue = self._queue.read_text().splitlines()
        self._queue.write_text("".join(f"{line}\n" for line in queue if line.split()[0] != job))

    def hold(self, job: str) -> None:
        """Let a job come to a node whose prolog fails."""
        queue = self._queue.read_text()
        self._queue.write_text(queue.replace(f"{job} None", f"{job} launch failed requeued held"))

    def say(self, name: str) -> str:
        """What a program has noted."""
        return (self.folder / name).read_text()


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> FakeSlurm:
    slurm = FakeSlurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{slurm.folder}:{os.environ['PATH']}")
    at_once = replace(_slurm_workers._CLUSTERS["slurm"], ask_soon_s=0.0)
    monkeypatch.setitem(_slurm_workers._CLUSTERS, "slurm", at_once)
    return slurm


def placed(out: Path, num_workers: int = 1) -> AbstractContextManager[Callable[[], None]]:
    told = ("time=60", "partition=low")
    placing = Placing(engine="slurm", num_workers=num_workers, cpus_per_run=3, slurm=told)
    return slurm_placement(CALL, placing, out)()


def test_what_sbatch_is_told(slurm, tmp_path):
    with placed(tmp_path / "out"):
        script = slurm.say("script").splitlines()
    told = {line.removeprefix("#SBATCH --") for line in script if line.startswith("#SBATCH")}
    assert told >= {"time=60", "partition=low", "cpus-per-task=3", "signal=USR2@300", "requeue"}
    # Since 22.05 srun does not take it from sbatch.
    assert " --cpus-per-task=3 " in next(line for line in script if line.startswith("srun "))


def test_a_command_within_a_job_does_not_pass_that_on(slurm, tmp_path, monkeypatch):
    jobs = {"SLURM_JOB_ID": "5", "SLURM_CPU_BIND": "mask_cpu:0x1", "SLURM_MEM_PER_NODE": "1"}
    users = {"SBATCH_ACCOUNT": "lab", "SLURM_CONF": "/etc/slurm.conf"}
    for name, value in (jobs | users).items():
        monkeypatch.setenv(name, value)
    with placed(tmp_path / "out"):
        told = dict(line.partition("=")[::2] for line in slurm.say("environment").splitlines())
    assert users.items() <= told.items()
    assert told.keys().isdisjoint(jobs)
    assert os.environ["SLURM_CPU_BIND"] == "mask_cpu:0x1"


def test_a_job_is_there_as_long_as_it_is_in_the_queue(slurm, tmp_path, monkeypatch):
    # Some set it to see only these in their terminal.
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    out = tmp_path / "out"
    with placed(out) as look:
        look()
        assert slurm.say("last") == "7\n"
        slurm.end("7", out, "slurmstepd-n1: error: Detected 1 oom_kill event in StepId=7.0\n")
        look()
        assert slurm.say("last") == "8\n"
        # An answer that does not come says nothing of the jobs.
        (slurm.folder / "squeue").write_text("#!/bin/sh\nexit 1\n")
        look()
    assert slurm.say("last") == "8\n"
    assert slurm.say("cancelled") == "--quiet 7\n--quiet 8\n"


def test_squeue_is_asked_for_every_job_of_an_array_and_why_it_waits(slurm, tmp_path):
    with placed(tmp_path / "out", num_workers=2) as look:
        look()
    asked = slurm.say("asked").split()
    assert {"--array", f"--user={os.getuid()}", "--format=%i", "%r"} <= set(asked)


def test_what_a_user_set_for_scancel_stops_no_end(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("SCANCEL_INTERACTIVE", "1")
    with placed(tmp_path / "out"):
        (slurm.folder / "scancel").write_text(
            f'#!/bin/sh\ntest -z "$SCANCEL_INTERACTIVE" && ! read x && echo $* > {slurm.folder}/cancelled\n'
        )
    assert slurm.say("cancelled") == "--quiet 7\n"


def test_a_job_that_a_broken_node_sent_back_is_replaced(slurm, tmp_path):
    with placed(tmp_path / "out", num_workers=2) as look:
        slurm.hold("7_1")
        look()
        assert slurm.say("cancelled") == "--quiet 7_1\n"
        assert slurm.say("last") == "8\n"
    assert slurm.say("cancelled").splitlines()[-1] == "--quiet 7_0 8"


def test_a_job_that_slurm_does_not_take_now_is_submitted_later(slurm, tmp_path, monkeypatch):
    monkeypatch.setattr(_slurm_workers, "_ASK_EVERY_S", 0.0)
    out, sbatch = tmp_path / "out", slurm.folder / "sbatch"
    with placed(out, num_workers=2) as look:
        takes = sbatch.read_text()
        sbatch.write_text("#!/bin/sh\necho Unable to contact slurm controller >&2; exit 1\n")
        slurm.end("7_0", out, "KeyError: 3\n")
        look()
        look()
        sbatch.write_text(takes)
        look()
        look()
        assert slurm.say("last") == "8\n"
        sbatch.write_text("#!/bin/sh\nexit 1\n")
        slurm.end("7_1", out, "KeyError: 3\n")
        slurm.end("8", out, "KeyError: 3\n")
        # Nobody works any more.
        with pytest.raises(UserError, match="Slurm must accept the jobs"):
            look()


def test_jobs_that_ended_well_are_replaced_only_when_all_have(slurm, tmp_path):
    out = tmp_path / "out"
    well = STEP_ENDS.format(why="", worker=_slurm_workers._DONE)
    with placed(out, num_workers=2) as look:
        slurm.end("7_0", out, well)
        look()
        look()
        assert slurm.say("last") == "7\n"
        slurm.end("7_1", out, well)
        # The command has not looked at the store yet since.
        look()
        assert slurm.say("last") == "7\n"
        look()
        assert slurm.say("last") == "8\n"
    assert slurm.say("cancelled") == "--quiet 8_0 8_1\n"


@pytest.mark.parametrize(
    ("log", "is_counted"),
    [
        (STEP_ENDS.format(why="", worker=_slurm_workers._ASKED), False),
        (STEP_ENDS.format(why=" DUE TO PREEMPTION", worker="fold 1  trained"), False),
        (STEP_ENDS.format(why=" DUE TO TIME LIMIT", worker="fold 1  trained"), True),
        (STEP_ENDS.format(why="", worker="KeyError: 3"), True),
        ("", True),
        ("fold 1 \udcff", True),
        ("a store must have room to write, but DB has none left; make room\n", True),
    ],
)
def test_a_job_that_slurm_ended_for_others_is_not_counted(
    slurm, tmp_path, monkeypatch, log, is_counted
):
    monkeypatch.setattr(_slurm_workers, "_REPLACEMENTS", 0)
    out = tmp_path / "out"
    with placed(out) as look:
        slurm.end("7", out, log)
        if is_counted:
            with pytest.raises(UserError, match=r"1 of them ended before, the last \(7\) with"):
                look()
        else:
            look()
    assert slurm.say("last") == ("7\n" if is_counted else "8\n")


def test_what_a_job_is_refused_is_the_sentence_of_the_command(slurm, tmp_path):
    out = tmp_path / "out"
    with placed(out) as look:
        slurm.end("7", out, STEP_ENDS.format(why="", worker="error: other data; take the same"))
        with pytest.raises(UserError) as refused:
            look()
    assert str(refused.value) == "other data; take the same"


def test_what_a_worker_is_refused_comes_back_as_its_sentence(tmp_path):
    RecordStore.open_folder(tmp_path).close()
    call = WorkerCall(store=f"sqlite:///{tmp_path / 'records.sqlite'}", study="depth")
    how, sentence = _work(call.to_json())
    assert how == "refused"
    assert "depth is not there" in sentence


@pytest.mark.parametrize(
    ("slurm", "words"),
    [
        (("time=60", "colour=red"), "a name that submitit knows (such as partition, time,"),
        (("time=60", "setup=rm"), "a name that submitit knows"),
        (("time=60", "use-srun=0"), "a name that submitit knows"),
        (("time=60", "partition"), "takes NAME=VALUE"),
        (("time=60", "comment=a\n#SBATCH --uid=0"), "takes NAME=VALUE"),
        ((), "the time of a Slurm job is in whole minutes, but got none; give --slurm time=N"),
        (("time=1:00:00",), "in whole minutes, but got 1:00:00"),
        (
            ("time=60", "array_parallelism=x"),
            "the array_parallelism of a Slurm job is in whole jobs, but got x",
        ),
        (("time=5",), "told to end signal_delay_s=300 seconds before its limit"),
    ],
)
def test_options_of_slurm_that_cannot_work_are_refused(tmp_path, slurm, words):
    placing = Placing(engine="slurm", num_workers=2, slurm=slurm)
    with pytest.raises(UserError) as refused:
        slurm_placement(CALL, placing, tmp_path / "slurm", cluster="local")
    assert words in str(refused.value)
    assert not (tmp_path / "slurm").exists()


def test_slurm_gives_no_half_of_a_gpu(tmp_path):
    placing = Placing(engine="slurm", gpus_per_run=0.5, slurm=("time=60",))
    with pytest.raises(UserError, match=r"whole GPUs, but --gpus-per-run is 0\.5"):
        slurm_placement(CALL, placing, tmp_path, cluster="local")


def test_a_machine_without_slurm_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}")
    with pytest.raises(UserError, match="on a login node"):
        slurm_placement(CALL, Placing(engine="slurm", slurm=("time=60",)), tmp_path / "slurm")


@pytest.mark.parametrize("name", ["ray", "submitit"])
def test_an_engine_that_is_not_installed_is_named(name, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    for module in ("studies._ray_workers", "studies._slurm_workers"):
        monkeypatch.setattr(f"{module}.find_spec", lambda n: None if n == name else find(n))
    place = (
        partial(ray_placement, CALL, Placing(engine="ray"))
        if name == "ray"
        else partial(slurm_placement, CALL, Placing(engine="slurm"), tmp_path)
    )
    with pytest.raises(UserError, match=r"which is not installed; pip install 'unetpp\["):
        place()


@pytest.mark.parametrize("engine", ["ray", "slurm"])
def test_workers_elsewhere_need_a_store_that_they_reach(unetpp, engine):
    code, _, err = unetpp(*STUDY, "--engine", engine, "--slurm", "time=60")
    assert code == 2
    assert "share a store in PostgreSQL, but this one is a file" in err


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_ray_cluster_that_is_not_there_is_named(scheme):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"{scheme}127.0.0.1:{free.getsockname()[1]}"
        program = (
            "from studies._ray_workers import ray_placement\n"
            "from studies._study import Placing\n"
            "from studies._worker import WorkerCall\n"
            "placing = Placing(engine='ray', address="
            f"{nobody!r})\n"
            "ray_placement(WorkerCall(store=''), placing)().__enter__()\n"
        )
        # The port stays ours, and nobody listens at it.
        ended = subprocess.run(
            [sys.executable, "-c", program],
            stderr=subprocess.PIPE,
            text=True,
            env={**ray_cluster.environment(), "PYTHONPATH": f"{ROOT}"},
            timeout=250,
            check=False,
        )
    said = f"workers need a Ray cluster that lets this command in, but {nobody} does not"
    assert said in ended.stderr
    assert "Connection refused" in ended.stderr


def test_options_without_effect_are_named(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    given = {"cpus_per_run": 2, "gpus_per_run": 0.5, "ray_address": "h:1", "slurm": ("time=60",)}
    with pytest.warns(UserWarning, match="no effect") as warned:
        placing = placing_of("local", workers=2, **given)
    assert [str(w.message).split(" have ")[0] for w in warned] == [
        "--cpus-per-run, --gpus-per-run",
        "--ray-address",
        "--slurm",
    ]
    assert placing.address is None
    with pytest.warns(UserWarning, match="--engine have no effect: with --workers 0"):
        by_hand = placing_of(
            "ray", workers=0, cpus_per_run=1, gpus_per_run=0, ray_address=None, slurm=()
        )
    assert by_hand == Placing(num_workers=0)
