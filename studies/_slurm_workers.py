"""Workers as jobs of Slurm, by submitit, which writes and reads what `sbatch` wants.

Slurm only places: what is trained by whom is settled by claims in the store, so a job is told no
more than where that is. submitit hands it over as a pickle in its own folder, from this user to
this user's jobs; nobody else may write there.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from nas.engines import Placement
from nas.stopping import PreemptedError, Stop
from studies._progress import Reporter
from studies._study import Placing
from studies._worker import WorkerCall, run_worker
from unetpp.errors import PlaceError, UserError

if TYPE_CHECKING:
    from submitit import AutoExecutor, Job
    from submitit.helpers import DelayedSubmission

# How often a job that ended too early is replaced, for each worker.
_REPLACEMENTS = 5
# How often a job may come to its time limit and be queued again: a study may take weeks.
_MOST_TIMEOUTS = 1000
# Seconds before the limit at which a job is told to end: time to finish an epoch.
_NOTICE_S = 300
# Seconds between two questions to Slurm: after jobs were submitted, and later.
_ASK_SOON_S, _ASK_EVERY_S = 2.0, 60.0
# What a question to Slurm may take, in seconds.
_ANSWER_S = 60.0
# Some of what `--slurm` takes, for an error sentence.
_KNOWN = "partition, time, account, qos, mem, cpus_per_task, gres, constraint, signal_delay_s"
# Set by this program, so that what it says elsewhere is true.
_OURS = frozenset(
    (
        *("setup", "teardown", "use_srun", "srun_args", "additional_parameters"),
        *("nodes", "ntasks_per_node", "map_count", "stderr_to_stdout"),
    )
)

# Set by users, not by the job that this command may run in.
_USERS = ("SBATCH_", "SLURM_CONF", "SLURM_CLUSTERS", "SUBMITIT_PREEMPT_SIGNAL")

# Of what `--slurm` takes, the numbers that submitit or this program counts with, and their units.
_NUMBERS = {
    "time": "minutes",
    "signal_delay_s": "seconds",
    "cpus_per_task": "cores",
    "array_parallelism": "jobs",
}
# What a worker says at its end. The log goes on with what others have to say of that.
_DONE = "everything is recorded"
_REFUSED, _ASKED = "error: ", "stopped; what this worker was at is given back"
_SLURM_SAYS, _SUBMITIT_SAYS = ("srun: ", "slurmstepd"), "submitit "
_PREEMPTED = "DUE TO PREEMPTION"
# Why a job waits that came to a node which is broken: until somebody releases it.
_HELD = re.compile("launch.failed.requeued.held")


@dataclass(frozen=True, slots=True)
class SlurmWorker:
    """A job.

    Attributes:
        call: a `WorkerCall` as JSON.
    """

    call: str

    def __call__(self) -> None:
        """Work; end early, with the claim given back, when Slurm asks for it."""
        import submitit

        reporter = Reporter(Console(stderr=True))
        stop, out_of_time = Stop(), False
        notice = getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}")
        queue_again = signal.getsignal(notice)

        def on_notice(*_: object) -> None:
            nonlocal out_of_time
            out_of_time = True
            stop.ask()

        signal.signal(notice, on_notice)
        # Also what cancels a job. Slurm, or the command that placed it, knows whether to go on.
        signal.signal(signal.SIGTERM, lambda *_: stop.ask())
        try:
            run_worker(WorkerCall.from_json(self.call), reporter, stop)
        except PreemptedError:
            if out_of_time and callable(queue_again):
                # Where Slurm does not let it, the command submits another.
                with suppress(OSError, RuntimeError, subprocess.SubprocessError):
                    queue_again(notice, None)
            sys.exit(_ASKED)
        except PlaceError as error:
            # Perhaps of this node alone: it counts as a job that failed.
            sys.exit(" ".join(str(error).split()))
        except UserError as error:
            sys.exit(f"{_REFUSED}{' '.join(str(error).split())}")
        # Any other end leaves a result too, which only unpickling would tell from this one.
        reporter.say(_DONE)

    def checkpoint(self) -> DelayedSubmission:
        """The same job again: what it had finished is in the store."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def slurm_placement(
    call: WorkerCall,
    placing: Placing,
    folder: Path,
    *,
    cluster: Literal["slurm", "local"] = "slurm",
) -> Placement:
    """Workers in Slurm.

    Args:
        call: what each of them is told.
        placing: how many, and what `sbatch` is told.
        folder: of submitit's files; all nodes share it.
        cluster: "local" emulates one on this machine, for tests.

    Raises:
        UserError: when submitit or Slurm is not installed, or on options that it does not know.
    """
    if find_spec("submitit") is None:
        raise UserError(
            "--engine slurm needs submitit, which is not installed; pip install 'unetpp[slurm]'"
        )
    options = _options_of(placing)
    executor = _executor(folder, cluster)
    executor.update_parameters(**{f"slurm_{name}": value for name, value in options.items()})
    jobs = partial(_Jobs, call, placing.num_workers, executor, _CLUSTERS[cluster])
    return partial(_placed, jobs)


def _executor(folder: Path, cluster: str) -> AutoExecutor:
    import submitit

    # submitit's jobs unpickle what lies there.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    try:
        limit = {f"{cluster}_max_num_timeout": _MOST_TIMEOUTS}
        # Its "%j" in the folder would be filled in by Slurm.
        return submitit.AutoExecutor(folder=folder.resolve(), cluster=cluster, **limit)
    except RuntimeError:
        raise UserError(
            "--engine slurm places jobs with `sbatch` and `srun`, which are not on this machine; "
            "give the command on a login node"
        ) from None


def _options_of(placing: Placing) -> dict[str, Any]:
    """What submitit is told.

    Raises:
        UserError: on what it does not know, no time limit, or a part of a GPU.
    """
    from submitit import SlurmExecutor

    known = SlurmExecutor._valid_parameters() - _OURS
    options: dict[str, Any] = {
        "job_name": "unetpp",
        "cpus_per_task": placing.cpus_per_run,
        "signal_delay_s": _NOTICE_S,
    }
    if not float(placing.gpus_per_run).is_integer():
        raise UserError(
            f"Slurm gives a job whole GPUs, but --gpus-per-run is {placing.gpus_per_run:g}; give a "
            "whole number, or several workers on one GPU with --engine ray"
        )
    if placing.gpus_per_run:
        options["gpus_per_node"] = int(placing.gpus_per_run)
    for text in placing.slurm:
        name, _, value = text.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if name not in known or not re.fullmatch(r"[^\s\x00-\x1f]+", value):
            raise UserError(
                "--slurm takes NAME=VALUE without spaces, with a name that submitit knows (such "
                f"as {_KNOWN}), but got {text!r}; write, for example, --slurm partition=gpu"
            )
        options[name] = int(value) if name in _NUMBERS and value.isdecimal() else value
    _check_limits(options)
    # Not every Slurm lets a job be queued again unless it says so, or tells `srun` of its cores.
    options["additional_parameters"] = {"requeue": True}
    options["srun_args"] = [f"--cpus-per-task={options['cpus_per_task']}"]
    return options


def _check_limits(options: dict[str, Any]) -> None:
    for name, unit in _NUMBERS.items():
        if name in (*options, "time") and not isinstance(options.get(name), int):
            raise UserError(
                f"the {name} of a Slurm job is in whole {unit}, but got "
                f"{options.get(name, 'none')}; give --slurm {name}=N"
            )
    if 60 * options["time"] <= options["signal_delay_s"]:
        raise UserError(
            f"a job is told to end signal_delay_s={options['signal_delay_s']} seconds before its "
            f"limit, but that is {options['time']} minutes; give a longer --slurm time=MINUTES"
        )


@contextmanager
def _placed(make_jobs: Callable[[], _Jobs]) -> Iterator[Callable[[], None]]:
    jobs = make_jobs()
    try:
        jobs.begin()
        yield jobs.look
    finally:
        jobs.cancel()


@dataclass(frozen=True, slots=True)
class _Cluster:
    """What is asked of whoever runs the jobs.

    Attributes:
        going: the ids of jobs that wait for a place or run, perhaps of others too; None for no
            answer.
        cancel: asks them to end, and ends them soon after.
        ask_soon_s: see `_ASK_SOON_S`.
    """

    going: Callable[[Sequence[Job[None]]], Collection[str] | None]
    cancel: Callable[[Sequence[Job[None]]], object]
    ask_soon_s: float


def _in_queue(_: Sequence[Job[None]]) -> Collection[str] | None:
    # submitit asks `sacct`, which is not everywhere, and takes a preempted job for one that runs.
    question = ["squeue", "--noheader", "--array", "--format=%i %r", f"--user={os.getuid()}"]
    try:
        answer = subprocess.run(
            question,
            env=_plain("SQUEUE_"),
            capture_output=True,
            text=True,
            timeout=_ANSWER_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    jobs = (line.partition(" ") for line in answer.stdout.splitlines())
    return frozenset(name for name, _, reason in jobs if not _HELD.fullmatch(reason.strip()))


def _scancel(jobs: Sequence[Job[None]]) -> None:
    order = ["scancel", "--quiet", *(job.job_id for job in jobs)]
    # It ends a command, also one that was stopped: whatever Slurm says, that goes on to its end.
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            order, env=_plain("SCANCEL_"), stdin=subprocess.DEVNULL, timeout=_ANSWER_S, check=False
        )


def _plain(prefix: str) -> dict[str, str]:
    """The environment, without what a user may have set for a program of Slurm."""
    return {name: value for name, value in os.environ.items() if not name.startswith(prefix)}


_CLUSTERS = {
    "slurm": _Cluster(_in_queue, _scancel, _ASK_SOON_S),
    "local": _Cluster(
        lambda jobs: frozenset(job.job_id for job in jobs if not job.done()),
        lambda jobs: [job.cancel(check=False) for job in jobs],
        0.0,
    ),
}


class _Jobs:
    """The jobs of this command."""

    def __init__(
        self, call: WorkerCall, num_workers: int, executor: AutoExecutor, cluster: _Cluster
    ) -> None:
        self._worker = SlurmWorker(call.to_json())
        self._num_workers, self._executor, self._cluster = num_workers, executor, cluster
        self._running: Sequence[Job[None]] = []
        self._missing, self._submit_at = 0, 0.0
        self._ended_early = 0
        self._ask_at, self._pause = 0.0, 0.0

    def begin(self) -> None:
        self._running = self._submit(self._num_workers)

    def look(self) -> None:
        if not self._running and not self._missing:
            # All of them left, as they saw nothing to do, and it is not all done.
            self._count(self._num_workers, f"the last of them with {_DONE!r}")
            self.begin()
            return
        over = self._over()
        lost = [job for job in over if self._is_lost(job)]
        self._running = [job for job in self._running if job not in over]
        if lost:
            # One that is held would stay in the queue for good.
            self._cluster.cancel(lost)
            self._missing += len(lost)
        if self._missing and time.monotonic() >= self._submit_at:
            self._replace()

    def _replace(self) -> None:
        """Submit those that are missing; later, where Slurm does not accept them now."""
        try:
            self._running = [*self._running, *self._submit(self._missing)]
            self._missing = 0
        except UserError:
            if not self._running:
                raise
            self._submit_at = time.monotonic() + _ASK_EVERY_S

    def cancel(self) -> None:
        """Those that Slurm must kill leave a claim, which is swept."""
        if self._running:
            self._cluster.cancel(self._running)

    def _over(self) -> Sequence[Job[None]]:
        going = None
        if time.monotonic() >= self._ask_at:
            going = self._cluster.going(self._running)
            self._ask_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _ASK_EVERY_S)
        if going is None:
            # Not all that end leave a result.
            return [job for job in self._running if job.paths.result_pickle.exists()]
        return [job for job in self._running if job.job_id not in going]

    def _is_lost(self, job: Job[None]) -> bool:
        """Whether it ended before all was done; that is counted, unless Slurm asked for it.

        Raises:
            UserError: when it was refused something, or jobs keep ending.
        """
        log = _log_of(job)
        own, slurms = _last_words(log)
        if own.startswith(_REFUSED):
            raise UserError(own.removeprefix(_REFUSED))
        if own == _DONE:
            return False
        if own != _ASKED and _PREEMPTED not in log:
            words = "; ".join(filter(None, (own, slurms)))
            self._count(
                1,
                f"the last ({job.job_id}) with {words or 'no word'!r}; see its log in "
                f"{job.paths.stderr.parent}, which all nodes must share",
            )
        return True

    def _count(self, number: int, words: str) -> None:
        self._ended_early += number
        if self._ended_early > _REPLACEMENTS * self._num_workers:
            raise UserError(
                f"jobs must live until everything is recorded, but {self._ended_early} of them "
                f"ended before, {words}; the same command goes on"
            )

    def _submit(self, number: int) -> Sequence[Job[None]]:
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            with _outside_a_job(), self._executor.batch():
                jobs = [self._executor.submit(self._worker) for _ in range(number)]
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            raise UserError(
                f"Slurm must accept the jobs, but sbatch says {_one_line(error)}; mend --slurm, and "
                "the same command goes on"
            ) from error
        self._pause = self._cluster.ask_soon_s
        self._ask_at = time.monotonic() + self._pause
        return jobs


@contextmanager
def _outside_a_job() -> Iterator[None]:
    """Hide the job that this command runs in: others would take its cores and memory for theirs."""
    from submitit.helpers import clean_env

    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    users = {name: value for name, value in os.environ.items() if name.startswith(_USERS)}
    with clean_env():
        os.environ.update(users)
        yield


def _log_of(job: Job[None]) -> str:
    """As far as it can be read: a worker that was killed may have written half a letter."""
    try:
        return job.paths.stderr.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _last_words(log: str) -> tuple[str, str]:
    """The last line of the worker, and that of the programs which Slurm ran it with."""
    own = slurms = ""
    for line in map(str.strip, log.splitlines()):
        if line.startswith(_SLURM_SAYS):
            slurms = line
        elif line and not line.startswith(_SUBMITIT_SAYS):
            own = line
    return own, slurms


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[-200:]
