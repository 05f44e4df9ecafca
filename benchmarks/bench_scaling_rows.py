"""What a million case rows cost in a PostgreSQL: written, looked up, loaded, reported.

    python benchmarks/bench_scaling_rows.py --rows 1000000

Records of the shape of `bench_report.py`, which asks the same of SQLite. Prints, for each tenth of the
rows, the processor time of `add_run` for a thousand rows (the writer's and the server's) and of
`recorded` for all runs; then the sizes of the tables, and time and peak of memory of a process that
loads the study as a report does. Hoped for: a row costs the same at the end as at the start.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from bench_report import _FOLDS, _record, _scores, arms, manifest_of
from scaling_server import Server, server_for, server_seconds

from unetpp.records import ScoredCases
from unetpp.store import RecordStore

_OUTPUTS = {True: ("L1", "L2", "L3", "L4", "mean"), False: ("L4",)}


def fill(server: Server, num_rows: int) -> None:
    """Write a study of so many rows, and print what that costs."""
    manifest = manifest_of(num_rows // sum(len(_OUTPUTS[a.deep_supervision]) for a in arms()))
    rng = np.random.default_rng(0)
    store = RecordStore(server.url)
    store.put_manifest(manifest)
    parts = np.array_split(np.arange(manifest.dataset["num_cases"]), _FOLDS)
    ids: list[str] = []
    written = 0
    print("    rows   writer ms   server ms  recorded ms   (of the processor, a thousand rows)")
    for arm in manifest.arms:
        for fold, cases in enumerate(parts):
            counts, surfaces = _scores(rng, cases, _OUTPUTS[arm.deep_supervision])
            record = _record(manifest, arm, fold)
            own, servers = time.process_time(), server_seconds(server)
            scores = ScoredCases(counts=tuple(counts), surfaces=tuple(surfaces))
            store.add_run(record, scores)
            own, servers = time.process_time() - own, server_seconds(server) - servers
            written += len(counts) + len(surfaces)
            ids.append(record.key.id)
            begin = time.process_time()
            assert len(store.recorded(ids)) == len(ids)
            look = time.process_time() - begin
            thousands = (len(counts) + len(surfaces)) / 1000
            if fold == _FOLDS - 1:
                print(
                    f"{written:8} {1000 * own / thousands:11.1f} "
                    f"{1000 * servers / thousands:11.1f} {1000 * look:12.1f}",
                    flush=True,
                )
    store.close()


def sizes(server: Server) -> str:
    """Megabytes of each large table with its indexes."""
    query = sa.text(
        "SELECT relname, pg_total_relation_size(oid) FROM pg_class WHERE relkind = 'r' AND "
        "relnamespace = 'public'::regnamespace ORDER BY 2 DESC LIMIT 3"
    )
    engine = sa.create_engine(server.url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    return ", ".join(f"{name} {size / 2**20:.0f} MB" for name, size in rows)


def load(folder: Path, url: str) -> dict[str, float]:
    """Load the study in this process, then write its report."""
    import reports
    from reports.records import load_study

    clock, processor = time.perf_counter(), time.process_time()
    study = load_study(folder, store=url)
    rows, loading = len(study.cases), time.process_time() - processor
    waited = time.perf_counter() - clock
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    del study
    processor = time.process_time()
    reports.build(folder, store=url)
    return {
        "rows": rows, "load s": loading, "load clock s": waited, "load MB": loaded,
        "report s": time.process_time() - processor,
        "report MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


def main() -> None:
    """Fill a server, then have a fresh process load and report it."""
    parser = argparse.ArgumentParser(description="Time a large study in PostgreSQL.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--load", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.load is not None:
        print(json.dumps(load(Path(given.load[0]), given.load[1])))
        return
    with server_for(50) as server, tempfile.TemporaryDirectory() as folder:
        fill(server, given.rows)
        print(sizes(server))
        done = subprocess.run(
            [sys.executable, __file__, "--load", folder, server.url],
            check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        print(", ".join(f"{name} {value:.1f}" for name, value in json.loads(done.stdout).items()))


if __name__ == "__main__":
    main()
