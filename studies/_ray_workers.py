"""Workers as tasks of a Ray cluster, which finds them a place and starts them anew elsewhere.

Ray only places: what is trained by whom is settled by claims in the store, so a task is told no
more than where that is. Its arguments are shown in Ray's dashboard; they hold no secret.
"""

from __future__ import annotations

import os
import signal
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from nas.engines import Placement
from nas.stopping import PreemptedError, Stop
from studies._progress import Reporter
from studies._study import Placing
from studies._worker import WorkerCall, run_worker
from unetpp.errors import UserError

if TYPE_CHECKING:
    from ray import ObjectRef

# How often Ray starts a worker anew that died, or whose node did.
_RETRIES = 20
# How often all workers are started again that saw nothing to do, though something was left.
_ROUNDS = 5
# What workers may take to end their epoch, in seconds: when the command was asked to end, or else.
_GRACE_S, _SHORT_GRACE_S = 600.0, 10.0
# What a head node may take to answer at all, in seconds.
_KNOCK_S = 10.0
# How long it may be away, and how often it is asked. After 60 s Ray ends this process by itself.
_AWAY_S, _ASK_EVERY_S = 40.0, 5.0
# Nothing is kept there but the words of a worker. It is the least that Ray takes.
_OBJECT_STORE_BYTES = 80 * 2**20

# How a worker ended, and the sentence of one that was refused something.
_Ended = tuple[Literal["done", "asked", "refused"], str]


def ray_placement(call: WorkerCall, placing: Placing) -> Placement:
    """Workers in Ray.

    Raises:
        UserError: when Ray is not installed.
    """
    if find_spec("ray") is None:
        raise UserError(
            "--engine ray needs Ray, which is not installed; pip install 'unetpp[ray]', here and "
            "on every node"
        )
    return partial(_placed, call, placing)


@contextmanager
def _placed(call: WorkerCall, placing: Placing) -> Iterator[Callable[[], None]]:
    with _joined(placing):
        _warn_of_want(call, placing)
        head, tasks = _Head(_head_of(placing)), _Tasks(call, placing)

        def look() -> None:
            head.look()
            try:
                tasks.look()
            except ConnectionError as error:
                # A ray:// address: Ray has tried to reach it again.
                raise head.lost(error) from error

        grace = _SHORT_GRACE_S
        try:
            tasks.begin()
            yield look
        except PreemptedError:
            grace = _GRACE_S
            raise
        finally:
            if head.is_there:
                tasks.end(grace)


@contextmanager
def _joined(placing: Placing) -> Iterator[None]:
    """Within, this process is a driver of the cluster."""
    at_sigterm = signal.getsignal(signal.SIGTERM)
    if placing.address is None:
        # Else Ray listens on all interfaces, and tells its maker that it is used.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if placing.address is None:
        options |= {
            "address": "local",
            "num_cpus": placing.num_workers * placing.cpus_per_run,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
    else:
        options["address"] = placing.address
    try:
        _knock(placing.address)
        ray.init(**options)
    except Exception as error:
        # Ray has no class of its own for each of: nobody there, other versions, no token, bad words.
        where = "one on this machine" if placing.address is None else placing.address
        raise UserError(
            f"workers need a Ray cluster that lets this command in, but {where} does not "
            f"({_first_line(error)}); start it with `ray start`, with the same versions of Python "
            "and Ray and the same token, if it asks for one, everywhere, or mend --ray-address"
        ) from error
    # Ray has set a handler of its own, which ends the process at once.
    signal.signal(signal.SIGTERM, at_sigterm)
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """OSError when nobody listens there: Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    # Other words ("auto") are Ray's business.
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


def _head_of(placing: Placing) -> str:
    """HOST:PORT, as this command reaches it."""
    import ray

    if placing.address is not None and placing.address.startswith("ray://"):
        return placing.address
    return ray.get_runtime_context().gcs_address


class _Head:
    """The head of the cluster. Without it no task is started or stopped.

    Args:
        address: see `_knock`.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._heard_at = self._asked_at = time.monotonic()
        self.is_there = True

    def look(self) -> None:
        """Raise UserError when it has not answered for too long."""
        now = time.monotonic()
        if now - self._asked_at < _ASK_EVERY_S:
            return
        self._asked_at = now
        try:
            _knock(self._address)
            self._heard_at = now
        except OSError as error:
            if now - self._heard_at >= _AWAY_S:
                raise self.lost(error) from error

    def lost(self, error: OSError) -> UserError:
        """Note that it is gone; the sentence that says so."""
        self.is_there = False
        return UserError(
            f"workers need the head of their Ray cluster, but {self._address} does not answer any "
            f"more ({_first_line(error)}); start it again or name another --ray-address, and the "
            "same command goes on"
        )


class _Tasks:
    """The tasks of this command."""

    def __init__(self, call: WorkerCall, placing: Placing) -> None:
        import ray

        self._ray = ray
        self._num_workers = placing.num_workers
        self._call = call.to_json()
        self._work = ray.remote(_work).options(
            name="unetpp worker",
            num_cpus=placing.cpus_per_run,
            num_gpus=placing.gpus_per_run,
            max_retries=_RETRIES,
        )
        self._running: list[ObjectRef[_Ended]] = []
        self._rounds = 0

    def begin(self) -> None:
        for _ in range(self._num_workers):
            self._start()

    def look(self) -> None:
        if not self._running:
            # All of them saw nothing to do, and it is not all done.
            self._begin_again()
            return
        over, self._running = self._ray.wait(
            self._running, num_returns=len(self._running), timeout=0
        )
        for task in over:
            how, sentence = self._outcome(task)
            if how == "refused":
                raise UserError(sentence)
            # Ray asks a worker to end when its node is drained: another one takes its place.
            if how == "asked":
                self._start()

    def end(self, grace: float) -> None:
        """Workers finish their epoch, as far as the time allows, and give back their claims."""
        if not self._ray.is_initialized():
            # Ray would start a cluster of its own to tell them.
            return
        for task in self._running:
            self._ray.cancel(task, force=False, recursive=False)
        if self._running:
            self._ray.wait(self._running, num_returns=len(self._running), timeout=grace)

    def _begin_again(self) -> None:
        if self._rounds == _ROUNDS:
            raise UserError(
                f"workers end when nothing is left to do, but {1 + _ROUNDS} times all of them ended "
                "and something was left; see that all nodes have the same version of unetpp, and "
                "the same command goes on"
            )
        self._rounds += 1
        self.begin()

    def _start(self) -> None:
        self._running.append(self._work.remote(self._call))

    def _outcome(self, task: ObjectRef[_Ended]) -> _Ended:
        from ray.exceptions import RayError, RayTaskError

        try:
            return self._ray.get(task)
        except RayTaskError as error:
            raise UserError(
                "a worker must run on every node as it does here, but one ended with "
                f"{_last_line(error)}; install the same version of unetpp on all nodes"
            ) from error
        except RayError as error:
            raise UserError(
                f"workers must live to finish a fold, but Ray started one {1 + _RETRIES} times and "
                f"it died each time ({_first_line(error)}); look for its cause in Ray's logs (out "
                "of memory?), and the same command goes on"
            ) from error


def _work(call: str) -> _Ended:
    """What a task does, in a process of its own."""
    stop = Stop()
    # Ray's cancelling arrives as the first, its end of a node as the second.
    before = {sign: signal.signal(sign, lambda *_: stop.ask()) for sign in _SIGNS}
    try:
        run_worker(WorkerCall.from_json(call), Reporter(Console(stderr=True)), stop)
    except PreemptedError:
        return "asked", ""
    except UserError as error:
        return "refused", str(error)
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
    return "done", ""


_SIGNS = (signal.SIGINT, signal.SIGTERM)


def _warn_of_want(call: WorkerCall, placing: Placing) -> None:
    """Tasks that fit no node wait without a word."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {"CPU": placing.cpus_per_run, "GPU": placing.gpus_per_run}
    fits = [all(node.get(name, 0) >= wanted[name] for name in wanted) for node in nodes]
    if not any(fits):
        warnings.warn(
            f"no node has {placing.cpus_per_run} CPUs and {placing.gpus_per_run:g} GPUs yet, which "
            "each worker wants (--cpus-per-run, --gpus-per-run): workers wait for one to join",
            stacklevel=2,
        )
    if placing.gpus_per_run == 0 and call.device is None and any(node.get("GPU") for node in nodes):
        warnings.warn(
            "workers train on the CPU, as --gpus-per-run is 0, but the cluster has GPUs",
            stacklevel=2,
        )


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:200]


def _last_line(error: BaseException) -> str:
    return [line.strip() for line in str(error).splitlines() if line.strip()][-1][:200]
