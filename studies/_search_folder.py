"""What can be asked of a search's folder: how far it is, how it was begun, its winner."""

from __future__ import annotations

import shlex
import shutil
import textwrap
import warnings
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from reports.record_laws import check_search, readable
from studies._options import checked_address, warn_of_address
from studies._search_options import SearchOptions
from studies._search_progress import SearchTally
from studies._study import Placing
from unetpp.artifacts import ArtifactLostError, Artifacts
from unetpp.data.cache import is_cache
from unetpp.errors import UserError
from unetpp.models.export import export_onnx
from unetpp.records import RunKey, RunRecord
from unetpp.searches import Rerun, SearchLedger, SearchManifest, TrialRecord, describe
from unetpp.spec import GridSpec
from unetpp.store import RecordStore
from unetpp.trained import FILES, load_trained

_SHOWN = 10


def options_of(folder: Path, store: str | None = None) -> SearchOptions:
    """The options with which the search of a folder was begun or last went on.

    Args:
        folder: of the search.
        store: URL of the database that holds its records, in place of its file.

    Raises:
        UserError: when it holds none.
    """
    manifest, _, _ = _search(folder, store)
    with readable(store or folder):
        return SearchOptions.from_json(manifest.options)


def placing_again(kept: Placing, ray_address: str | None) -> Placing:
    """Where a search goes on: as before, on a Ray cluster that the command names itself.

    Raises:
        UserError: when it was on a cluster, and none is named now.
    """
    if kept.engine != "ray":
        warn_of_address(ray_address, "the search was not begun with --engine ray")
    if kept.engine == "ray" and kept.address is not None and ray_address is None:
        # Whoever made the folder could have named a cluster that runs code here.
        raise UserError(
            "a search goes on in the Ray cluster that the command names, but none is named, and it "
            f"was begun in {kept.address}; if you know that one, add --ray-address {kept.address}"
        )
    return replace(kept, address=checked_address(ray_address) if kept.engine == "ray" else None)


def artifacts_again(kept: str | None, named: str | None) -> str | None:
    """Where networks and checkpoints are when a search goes on: where the command says.

    Raises:
        UserError: when they were outside of the folder, and no place is named now.
    """
    if kept is not None and named is None:
        # Whoever made the folder could have named a place that this user pays for, or must not see.
        raise UserError(
            "networks of a search stay where the command says, but no place is named, and it was "
            f"begun with {kept}; if you know that one, add --artifacts {kept}"
        )
    return named


def cache_again(kept: str | None) -> str | None:
    """The folder of decoded images with which a search goes on; None is this user's own."""
    if kept is None or is_cache(Path(kept)):
        return kept
    # Whoever made the folder could have named any, and files would be written there.
    warnings.warn(
        f"no images have been decoded into {kept}; they go to this user's own cache instead",
        stacklevel=2,
    )
    return None


def status_text(folder: Path, store: str | None = None) -> str:
    """How far the search is, and its best trials, in lines of at most 80 columns."""
    manifest, trials, winner = _search(folder, store)
    tally = SearchTally(manifest, trials, 1)
    # An ETA needs a clock that runs, and a reader has none.
    lines = [line.removesuffix("; ETA -") for line in tally.summary()]
    valid = [t for t in trials if t.state == "validated" and t.cached_from is None]
    best = sorted(valid, key=lambda t: -(t.value or 0.0))[:_SHOWN]
    for trial in best:
        costs = (
            f"{trial.costs['parameters'] / 1e6:.3f} M par.  {trial.costs['macs'] / 1e6:,.0f} M MACs"
        )
        lines.append(f"{trial.number:>6}  {trial.value:.4f}  {costs}  {describe(trial)}")
    for trial in trials:
        if trial.state == "running" and trial.cached_from is None:
            who = "waits" if trial.worker is None else f"worker {trial.worker}"
            folds = f"{trial.folds_done} of {manifest.folds['num_folds']} folds"
            lines.append(f"{trial.number:>6}  running, {folds}, {who}  {describe(trial)}")
    if winner is None:
        # Whether the command lives cannot be told from another machine before a lease is over.
        lines.append("No winner yet. If the command has ended, go on with")
        last = f"  {resume_command(folder, store=store)}"
    else:
        named = next(t for t in trials if t.number == winner)
        lines.append(f"Winner: trial {winner}, {describe(named)}")
        last = f"Report: {folder}/report/index.html"
    wrapped = [
        textwrap.fill(line, 80, subsequent_indent=" " * 8, break_on_hyphens=False) for line in lines
    ]
    # What is copied stays whole.
    return "\n".join([*wrapped, last])


def export_winner(
    folder: Path,
    out: Path,
    *,
    onnx: bool,
    artifacts: str | None = None,
    store: str | None = None,
) -> str:
    """Write the winner's network with its weights; what was written, in words.

    The weights are those of the test (trained on all cases but those set aside), or, without one,
    of the first fresh fold (or of the first fold), which knows fewer cases.

    Args:
        folder: of the search.
        out: a new folder, or one of an earlier export.
        onnx: add model.onnx.
        artifacts: of the search, in place of the folder.
        store: URL of the database that holds its records, in place of its file.

    Raises:
        UserError: when the search has no winner yet, or `out` is something else.
    """
    manifest, trials, winner = _search(folder, store)
    if winner is None:
        raise UserError(
            f"the winner of a search is named at its end, but {folder} has none yet; go on with "
            f"`{resume_command(folder, store=store)}`"
        )
    trial = next(t for t in trials if t.number == winner)
    key, said = _weights_of(trial, manifest)
    partial = out.with_name(f".{out.name}.part")
    _check_free(out, partial)
    shutil.rmtree(partial, ignore_errors=True)
    _copy_network(
        Artifacts(artifacts or f"{folder}"), _record(folder, key, store), partial, onnx=onnx
    )
    if out.exists():
        shutil.rmtree(out)
    partial.replace(out)
    depth = GridSpec.from_json(trial.spec).depth
    return (
        f"{out}: trial {winner} ({describe(trial)}, depth {depth}), {said}"
        f"{'; also as model.onnx' if onnx else ''}"
    )


def _check_free(out: Path, partial: Path) -> None:
    for place in (out, partial):
        if place.is_symlink():
            raise UserError(
                f"the winner goes into a folder, but {place} is a link; remove it, or give another "
                "--out"
            )
    if out.exists() and not (out / "data.json").is_file():
        raise UserError(
            f"the winner goes into a new folder, but {out} holds something else; give another --out"
        )


def _record(folder: Path, key: RunKey, store: str | None) -> RunRecord:
    with readable(store or folder), closing(_open(folder, store)) as records:
        record = records.run(key)
    if record is None:
        raise UserError(
            f"the winner of a search has a record, but {store or folder} has none of run {key.id}; it was "
            "removed, or is in another folder"
        )
    return record


def _copy_network(artifacts: Artifacts, record: RunRecord, target: Path, *, onnx: bool) -> None:
    try:
        with artifacts.get_network(*record.network) as source:
            target.mkdir(parents=True)
            for name in sorted(FILES):
                shutil.copyfile(source / name, target / name)
            model, _ = load_trained(target)
    except ArtifactLostError as error:
        raise UserError(
            f"the network of the winner (run {record.key.id}) must be in {error.where} as it was "
            f"written, but {error.reason}; copy it there, or name its place with --artifacts"
        ) from error
    if onnx:
        export_onnx(model.eval(), target / "model.onnx")


def _weights_of(trial: TrialRecord, manifest: SearchManifest) -> tuple[RunKey, str]:
    if manifest.tests:
        return (
            _key(trial, manifest, manifest.tests[0]),
            "trained on all cases but those set aside for the test",
        )
    if manifest.confirmation is not None:
        return (
            _key(trial, manifest, manifest.confirmation),
            "trained on all cases but those of one fresh fold",
        )
    whole = Rerun(
        split_hash=manifest.split_hash, num_folds=1, seeds=(manifest.seed,), test_train_ratio=1.0
    )
    return _key(trial, manifest, whole), "trained on all cases but those of the first fold"


def _key(trial: TrialRecord, manifest: SearchManifest, rerun: Rerun) -> RunKey:
    return RunKey(
        dataset_hash=manifest.dataset_hash,
        split_hash=rerun.split_hash,
        fold=0,
        spec_id=trial.spec_id,
        recipe_id=trial.recipe_id,
        seed=rerun.seeds[0],
        numbers_version=manifest.numbers_version,
    )


def resume_command(
    folder: Path,
    *,
    store: str | None,
    artifacts: str | None = None,
    ray_address: str | None = None,
) -> str:
    """What is typed to go on with a search; it says again what no folder may choose."""
    said = {"--store": store, "--artifacts": artifacts, "--ray-address": ray_address}
    options = [word for name, value in said.items() if value is not None for word in (name, value)]
    return shlex.join(["unetpp", "search", "resume", f"{folder}", *options])


def _search(
    folder: Path, store: str | None
) -> tuple[SearchManifest, list[TrialRecord], int | None]:
    """The promise, the trials, the number of the winner; whoever wrote them."""
    with readable(store or folder), closing(_open(folder, store)) as records:
        ledger = SearchLedger(records)
        names = ledger.searches()
        manifest = ledger.manifest(names[0]) if names else None
        if manifest is None:
            raise UserError(
                f"a search's folder is one that `unetpp search` made, but {store or folder} holds "
                "no search; give the folder that it printed, or its database with --store"
            )
        trials, result = ledger.trials(manifest.search), ledger.result(manifest.search)
        check_search(manifest, trials, result)
        return manifest, trials, None if result is None else result.winner


def _open(folder: Path, store: str | None) -> RecordStore:
    return RecordStore.open_place(folder, store, must_exist=True)
