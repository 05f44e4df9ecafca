"""Where a number came from: versions, machine, source revision. Reads, never changes anything."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    "unetpp",
    "torch",
    "timm",
    "kornia",
    "optuna",
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine as far as it decides speed.

    Attributes:
        processor: the CPU's model name.
        accelerator: the GPU's name; "" when the device is the CPU.
        num_cores: cores that this process may use.
        memory_gib: main memory.
        system: kernel and C library.
    """

    processor: str
    accelerator: str
    num_cores: int
    memory_gib: int
    system: str

    @property
    def fingerprint(self) -> str:
        """8 hex digits; latencies with different fingerprints are never compared."""
        text = f"{self.processor}|{self.accelerator}|{self.num_cores}"
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def summary(self) -> str:
        """One line for a caption."""
        device = f"{self.accelerator}, " if self.accelerator else ""
        return f"{device}{self.processor}, {self.num_cores} cores, {self.memory_gib} GiB"


def this_machine(*, accelerator: str = "") -> Machine:
    """The machine that this process runs on; the caller names the accelerator, if it uses one."""
    return Machine(
        processor=_processor(),
        accelerator=accelerator,
        num_cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        memory_gib=_memory_gib(),
        system=platform.platform(),
    )


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def source_revision() -> str:
    """The commit of the source tree, with "+changes" when it is dirty; "" outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    commit = _git(root, "rev-parse", "--short=12", "HEAD")
    return f"{commit}+changes" if commit and _git(root, "status", "--porcelain", "-uno") else commit


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def processor_flags() -> frozenset[str]:
    """Instruction sets of the CPU by Linux's names; empty where Linux is not the system."""
    return frozenset((_cpu_info("flags") or _cpu_info("Features")).split())


def _cpu_info(field: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), "")


def _processor() -> str:
    return _cpu_info("model name") or platform.processor() or platform.machine()


def _memory_gib() -> int:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (AttributeError, ValueError, OSError):
        return 0
