"""Workers as jobs of Slurm, by submitit, which writes and reads what `sbatch` wants.

Slurm only places: what is trained by whom is settled by claims in the store, so a job is told no
more than where that is. submitit hands it over as a pickle in its own folder, from this user to
this user's jobs; nobody else may write there.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from unetpp.errors import UserError

if TYPE_CHECKING:
    from submitit import AutoExecutor, Job
    from submitit.helpers import DelayedSubmission

# How often a job that failed is replaced, for each worker.
_REPLACEMENTS = 5
# How often a job may come to its time limit and be queued again: a study may take weeks.
_MOST_TIMEOUTS = 1000
# Seconds before the limit at which a job is told to end: time to finish an epoch.
_NOTICE_S = 300
# Seconds between two questions to Slurm; submitit itself asks ever more rarely.
_ASK_EVERY_S = 60.0
# Some of what `--slurm` takes, for an error sentence.
_KNOWN = "partition, time, account, qos, mem, cpus_per_task, gres, constraint, signal_delay_s"
# Set by this program, so that what it says elsewhere is true.
_OURS = frozenset(("setup", "teardown", "srun_args", "additional_parameters", "nodes"))

_REFUSED, _ASKED = "error: ", "stopped; what this worker was at is given back"


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
            run_worker(WorkerCall.from_json(self.call), Reporter(Console(stderr=True)), stop)
        except PreemptedError:
            if out_of_time and callable(queue_again):
                queue_again(notice, None)
            sys.exit(_ASKED)
        except UserError as error:
            sys.exit(f"{_REFUSED}{' '.join(str(error).split())}")

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
    return partial(_placed, call, placing.num_workers, executor)


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
        options[name] = int(value) if value.isdecimal() else value
    _check_limits(options)
    return options


def _check_limits(options: dict[str, Any]) -> None:
    for name in ("time", "signal_delay_s"):
        if not isinstance(options.get(name), int):
            unit = "minutes" if name == "time" else "seconds"
            raise UserError(
                f"a Slurm job has a {name} in whole {unit}, but got "
                f"{options.get(name, 'none')}; give --slurm {name}=N"
            )
    if 60 * options["time"] <= options["signal_delay_s"]:
        raise UserError(
            f"a job is told to end signal_delay_s={options['signal_delay_s']} seconds before its "
            f"limit, but that is {options['time']} minutes; give a longer --slurm time=MINUTES"
        )


@contextmanager
def _placed(
    call: WorkerCall, num_workers: int, executor: AutoExecutor
) -> Iterator[Callable[[], None]]:
    jobs = _Jobs(call, num_workers, executor)
    try:
        jobs.begin()
        yield jobs.look
    finally:
        jobs.cancel()


class _Jobs:
    """The jobs of this command."""

    def __init__(self, call: WorkerCall, num_workers: int, executor: AutoExecutor) -> None:
        self._worker = SlurmWorker(call.to_json())
        self._num_workers, self._executor = num_workers, executor
        self._running: Sequence[Job[None]] = []
        self._failed = 0
        self._asked_at = time.monotonic()

    def begin(self) -> None:
        self._running = self._submit(self._num_workers)

    def look(self) -> None:
        force = time.monotonic() - self._asked_at > _ASK_EVERY_S
        if force:
            self._asked_at = time.monotonic()
        going: list[Job[None]] = []
        lost = 0
        for job in self._running:
            if not job.done(force_check=force):
                going.append(job)
            elif not job.paths.result_pickle.exists():
                self._note_failure(job)
                lost += 1
            # One answer tells of all jobs.
            force = False
        self._running = [*going, *(self._submit(lost) if lost else ())]

    def cancel(self) -> None:
        """Slurm asks them to end, and ends them soon after; a claim that is left so is swept."""
        for job in self._running:
            job.cancel(check=False)

    def _note_failure(self, job: Job[None]) -> None:
        """Count it, unless Slurm asked it to end."""
        words = _last_line(job)
        if words.startswith(_REFUSED):
            raise UserError(words.removeprefix(_REFUSED))
        if words == _ASKED:
            return
        self._failed += 1
        if self._failed > _REPLACEMENTS * self._num_workers:
            raise UserError(
                f"workers must live to finish a fold, but {self._failed} jobs failed, the last "
                f"({job.job_id}) with {words or 'no word'!r}; see its log in "
                f"{job.paths.stderr.parent}, and the same command goes on"
            )

    def _submit(self, number: int) -> Sequence[Job[None]]:
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            with self._executor.batch():
                return [self._executor.submit(self._worker) for _ in range(number)]
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            raise UserError(
                f"Slurm must accept the jobs, but sbatch says {_one_line(error)}; mend --slurm, and "
                "the same command goes on"
            ) from error


def _last_line(job: Job[None]) -> str:
    lines = [line.strip() for line in (job.stderr() or "").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[-200:]
