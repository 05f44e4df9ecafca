"""A Ray cluster of several nodes on this machine, for tests that let one of them die."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# What the nodes and the command must agree on, before either is started.
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Node loss is noticed after a second, not after half a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "2",
    # A lost node refuses the connection; one that only waits for a core is not lost.
    "RAY_health_check_timeout_ms": "120000",
}
NODE: dict[str, Any] = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


@contextmanager
def cluster(*nodes: Mapping[str, Any]) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` with a node for each of the resources; it is gone afterwards."""
    from ray.cluster_utils import Cluster

    made = Cluster(shutdown_at_exit=False)
    try:
        for resources in nodes:
            made.add_node(**NODE, **resources)
        yield made
    finally:
        made.shutdown()


def workers_of(made: Any) -> dict[int, Any]:
    """Process id of each task that runs -> its node."""
    raylets = {
        started.process.pid: node
        for node in made.list_all_nodes()
        for started in node.all_processes.get("raylet", [])
    }
    found: dict[int, Any] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            title = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if title.startswith(b"ray::unetpp worker") and parent in raylets:
            found[int(folder.name)] = raylets[parent]
    return found


def environment() -> dict[str, str]:
    """Of a command that joins."""
    return {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": "1"}
