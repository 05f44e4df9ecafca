"""A study folder while a command works in it: alone, and with a note of each start."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import filelock

from nas.stopping import PreemptedError, Stop
from studies._progress import Reporter
from unetpp import provenance
from unetpp.claims import ClaimLostError, Claims, Renewal
from unetpp.errors import UserError
from unetpp.processes import Process, is_here
from unetpp.records import Invocation
from unetpp.store import RecordStore
from unetpp.training.device import machine_of

# How often it is looked whether another command lives, in seconds.
_LOOK_S = 1.0


def invocation_of(device: str) -> Invocation:
    """This start of the command, on this machine."""
    return Invocation(
        command=shlex.join(["unetpp", *map(without_password, sys.argv[1:])]),
        started_at=now(),
        finished_at=None,
        revision=provenance.source_revision(),
        versions=provenance.package_versions(),
        machine=asdict(machine_of(device)),
    )


def without_password(argument: str) -> str:
    """An argument of the command as it may be stored and shown.

    A URL with a password is refused, but what was typed is noted before everything is looked at.
    """
    shown = re.sub(r"(://[^/?#\s]*?):[^/?#\s]*@", r"\1:***@", argument)
    return re.sub(r"(password|passwd|pwd|token)=[^&\s]+", r"\1=***", shown, flags=re.IGNORECASE)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of a study folder, which is made where it is missing.

    Raises:
        UserError: when another is at work there, or it cannot be written.
    """
    lock = filelock.FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(
            f"one process at a time may work in a study folder, but another is at work in "
            f"{folder}; wait for it, or give another --out"
        ) from None
    except OSError as error:  # filelock.Timeout is one too, so it comes first
        raise UserError(
            f"a study folder must be writable, but {folder} is not ({error.strerror}); "
            "give another --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def driving(store: RecordStore, study: str, reporter: Reporter, stop: Stop) -> Iterator[None]:
    """Keep other commands from driving the same study in the same store, from whatever machine.

    A command that was killed on another machine counts as dead after a lease; that is waited for.

    Raises:
        UserError: when another command gives signs of life; also from `stop.check`, in a command
            that was halted so long that another has taken its place.
    """
    claims, item = Claims(store), f"driver-{study}"
    claims.forgive([item])
    claim = claims.claim_one([item])
    first, waited = claims.states([item]).get(item), 0.0
    while claim is None:
        state = claims.states([item]).get(item)
        if state is not None and state.holder is not None:
            if first is None or (state.token, state.beat) != (first.token, first.beat):
                raise _is_driven(study, state.holder)
            if is_here(state.holder):
                raise _is_driven(study, state.holder)
            if waited == 0:
                reporter.say(
                    f"{state.holder.name} drove {study} and may be dead; waiting for a sign of "
                    f"life, {claims.lease:g} s at most"
                )
        time.sleep(_LOOK_S)
        waited += _LOOK_S
        # A study is no work that kills: it may be driven again however often its driver was killed.
        claims.forgive([item])
        claim = claims.claim_one([item])
    with claims.renewed(claim) as renewal:
        try:
            stop.also(lambda: _check_not_replaced(renewal))
            yield
        except _ReplacedError:
            raise UserError(
                f"one command at a time drives a study, but this one gave no sign of life for "
                f"{claims.lease:g} s and another drives {study} now; wait for that one"
            ) from None
        finally:
            claims.give_back(claim)


class _ReplacedError(PreemptedError):
    """Another command drives the study: what this process works on is given back."""


def _check_not_replaced(renewal: Renewal) -> None:
    # Not the error itself: who works on a fold would take it for the loss of that fold.
    try:
        renewal.check()
    except ClaimLostError as error:
        raise _ReplacedError from error


def _is_driven(study: str, holder: Process) -> UserError:
    return UserError(
        f"one command at a time drives a study, but {holder.name} drives {study} in this store; "
        "wait for it, or add a worker with `unetpp worker`"
    )


def now() -> str:
    """ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
