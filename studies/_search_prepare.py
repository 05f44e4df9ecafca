"""From the options of a search to everything that is fixed before its first trial."""

from __future__ import annotations

import getpass
import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nas.confirmation import fresh_folds, fresh_seeds, rerun_of, test_fold
from nas.performance_estimation import Estimation, measured_latency, price
from nas.proposals import Promise, ProposalPlan
from nas.racing import SuccessiveHalving, find_rule
from nas.search_space import Candidate, Common, SearchSpace, decode, distinct
from nas.search_strategy import find_strategy
from nas.space_presets import find_space, references, with_recipe
from nas.trial_workers import SearchWork
from studies._prepare import dataset_facts, fold_facts, prepare_bench
from studies._progress import Reporter
from studies._search_options import SearchOptions, check_objectives, setting_of
from studies._study import Frame, Setting
from unetpp.errors import UserError
from unetpp.models.encoders import describe_encoder
from unetpp.run import NUMBERS_VERSION, Bench
from unetpp.searches import SearchLedger, SearchManifest
from unetpp.store import RecordStore
from unetpp.training.device import machine_of

SEARCH = "search"
# Up to so many points, the different networks among them are counted: it takes a second.
_COUNTED = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSearch:
    """A search that is ready to run: everything has been checked.

    Attributes:
        options: as given.
        work: what its workers need.
        baseline: the first promise, decoded.
        confirmation: one bench a fresh seed, on fresh folds; empty where nothing is confirmed.
        tests: one bench a seed, on the cases set aside; empty where there are none.
    """

    options: SearchOptions
    work: SearchWork
    baseline: Candidate
    confirmation: tuple[Bench, ...]
    tests: tuple[Bench, ...]
    setting: Setting

    @property
    def bench(self) -> Bench:
        """Of the trials."""
        return self.work.bench

    @property
    def space(self) -> SearchSpace:
        """What can be proposed."""
        return self.work.proposals.space


def prepare_search(options: SearchOptions, reporter: Reporter) -> PreparedSearch:
    """Check words, data and folds, and describe the space.

    Raises:
        UserError: on bad input, before anything is trained or written.
    """
    metric, costs = check_objectives(options.objectives)
    strategy, rule = find_strategy(options.strategy), find_rule(options.race)
    setting = setting_of(options)
    scale = setting.scale
    space = find_space(options.space, max_depth=scale.depth, width=scale.width)
    space = with_recipe(space, options.tune)
    bench, frame = prepare_bench(setting, reporter)
    common = _common(setting, space, frame, bench)
    promises = _promises(space, common)
    work = SearchWork(
        proposals=ProposalPlan(
            search=SEARCH,
            space=space,
            common=common,
            strategy=strategy,
            metric=metric,
            costs=costs,
            constraints=options.limits,
            budget=options.num_trials,
            seed=options.seed,
            promises=promises,
        ),
        estimation=Estimation(
            metric=metric,
            costs=costs,
            limits=options.limits,
            rule=rule,
            halving=SuccessiveHalving() if options.halve else None,
        ),
        bench=bench,
        store_url=setting.store or RecordStore.url_of_folder(setting.out),
        folder=quiet_folder(setting),
    )
    return PreparedSearch(
        options=options,
        work=work,
        baseline=decode(promises[0].params, common),
        confirmation=_confirmation(options, bench),
        tests=_tests(options, bench),
        setting=setting,
    )


def keep_search_promise(ledger: SearchLedger, ready: PreparedSearch) -> SearchManifest:
    """Freeze the manifest at the first start; later, refuse another one, but for a larger budget.

    Raises:
        UserError: with what differs.
    """
    kept = ledger.manifest(SEARCH)
    if kept is None:
        manifest = manifest_of(ready, _reference(ready))
        ledger.put_manifest(manifest)
        return manifest
    check_search_promise(kept, ready)
    wanted = manifest_of(ready, kept.reference)
    ledger.replace_manifest(wanted)
    return wanted


def check_search_promise(kept: SearchManifest, ready: PreparedSearch) -> None:
    """Refuse what differs from what a search began with.

    Raises:
        UserError: with what differs.
    """
    wanted = manifest_of(ready, kept.reference)
    differences = [
        *SearchSpace.from_json(kept.space).differences(ready.space),
        *_differences(_compared(kept), _compared(wanted)),
    ]
    if kept.machine and kept.machine != wanted.machine:
        differences.append(
            f"machine that measures latencies: {kept.machine} there, {wanted.machine} now"
        )
    if differences:
        raise UserError(
            f"a search goes on with the setting that it began with, but {ready.setting.out} was "
            f"begun with another ({'; '.join(differences)}); give the same setting or a new --out"
        )


def quiet_folder(setting: Setting) -> Path:
    """For the locks between the workers on this machine: in the study's folder, or, where that may
    be shared by machines, in one of this user for temporary files.
    """
    if setting.store is None or setting.store.startswith("sqlite"):
        return setting.out
    place = hashlib.sha256(setting.store.encode()).hexdigest()[:16]
    own = Path(tempfile.gettempdir()) / f"unetpp-{getpass.getuser()}"
    own.mkdir(mode=0o700, exist_ok=True)
    # Others may write there too, and could have made it first, with links to this user's files.
    if own.is_symlink() or (hasattr(os, "getuid") and own.stat().st_uid != os.getuid()):
        raise UserError(
            f"locks of this machine lie in a folder of this user, but {own} is another's; remove "
            "it, or set TMPDIR to a folder of your own"
        )
    folder = own / place
    folder.mkdir(exist_ok=True)
    return folder


def manifest_of(ready: PreparedSearch, reference: Mapping[str, float]) -> SearchManifest:
    """What the search promises."""
    plan, bench, options = ready.work.proposals, ready.bench, ready.options
    halving = ready.work.estimation.halving
    confirmed, tested = ready.confirmation, ready.tests
    return SearchManifest(
        search=SEARCH,
        space=plan.space.to_json(),
        space_hash=plan.space.hash,
        space_size=distinct(plan.space, plan.common, limit=_COUNTED),
        strategy=plan.strategy,
        metric=plan.metric,
        costs=plan.costs,
        reference=dict(reference),
        constraints=dict(plan.constraints),
        budget=plan.budget,
        rule=ready.work.estimation.rule.text,
        epoch_rule=None if halving is None else halving.text,
        top_k=options.num_confirmed,
        dataset_hash=bench.dataset.hash,
        dataset=dataset_facts(bench, ready.setting),
        split_hash=bench.folds.hash,
        folds=fold_facts(bench, ready.setting),
        recipe=bench.recipe.to_json(),
        recipe_id=bench.recipe.id,
        seed=bench.seed,
        numbers_version=NUMBERS_VERSION,
        confirmation=rerun_of(confirmed[0].folds, tuple(b.seed for b in confirmed))
        if confirmed
        else None,
        evaluation="held-out" if tested else "none",
        tests=(rerun_of(tested[0].folds, tuple(b.seed for b in tested)),) if tested else (),
        options=options.to_json(),
        machine=_timing_machine(ready),
    )


def _timing_machine(ready: PreparedSearch) -> str:
    """The machine, where latencies count."""
    if not ready.work.estimation.times_networks:
        return ""
    machine = machine_of(ready.bench.device)
    return f"{machine.fingerprint} ({machine.summary})"


def _common(setting: Setting, space: SearchSpace, frame: Frame, bench: Bench) -> Common:
    scale = setting.scale
    chosen = {c for p in space.parameters if p.name == "encoder" for c in p.choices}
    if chosen and setting.encoder != "plain":
        raise UserError(
            f"the space {space.name} searches the encoder, but --encoder is {setting.encoder}; "
            "leave --encoder out, or take another --space"
        )
    names = [str(name) for name in chosen] or [setting.encoder]
    described = {
        name: None if name == "plain" else describe_encoder(name, depth=scale.depth)
        for name in sorted(names, key=lambda name: (name != "plain", name))
    }
    return Common(
        encoders=described,
        max_depth=scale.depth,
        width=scale.width,
        in_channels=frame.in_channels,
        classes=frame.classes,
        overlapping=frame.overlapping,
        spatial_dims=frame.spatial_dims,
        recipe=bench.recipe,
    )


def _promises(space: SearchSpace, common: Common) -> tuple[Promise, ...]:
    """The baseline and the plain U-Nets, each network once."""
    promised: dict[str, Promise] = {}
    for index, (label, params) in enumerate(references(space, common)):
        made = Promise(label=label, params=params, is_baseline=index == 0)
        promised.setdefault(decode(params, common).id, made)
    return tuple(promised.values())


def _confirmation(options: SearchOptions, bench: Bench) -> tuple[Bench, ...]:
    if options.num_confirmed == 0 or options.confirm_seeds == 0:
        return ()
    seeds = fresh_seeds(bench.seed, "confirmation", options.confirm_seeds)
    folds = fresh_folds(bench.dataset, bench.folds, seed=seeds[0])
    return tuple(replace(bench, folds=folds, seed=seed) for seed in seeds)


def _tests(options: SearchOptions, bench: Bench) -> tuple[Bench, ...]:
    if not bench.folds.held_out_test or options.test_seeds == 0:
        return ()
    folds = test_fold(bench.folds)
    seeds = fresh_seeds(bench.seed, "test", options.test_seeds)
    return tuple(replace(bench, folds=folds, seed=seed) for seed in seeds)


def _reference(ready: PreparedSearch) -> dict[str, float]:
    """The corner from which hypervolumes are measured: a score of 0, and twice the baseline's costs."""
    plan = ready.work.proposals
    if not plan.costs:
        return {}
    known = dict(price(ready.baseline, ready.bench))
    if "latency_ms" in plan.costs:
        known["latency_ms"] = measured_latency(ready.baseline.spec, ready.bench, ready.work.folder)
    return {plan.metric: 0.0, **{name: 2 * known[name] for name in plan.costs}}


def _compared(manifest: SearchManifest) -> dict[str, Any]:
    """What must stay the same while a search goes on."""
    names = ("strategy", "metric", "costs", "constraints", "rule", "epoch_rule", "top_k", "seed",
             "numbers_version", "confirmation", "tests", "recipe_id")  # fmt: skip
    return {
        **{name.replace("_", " "): getattr(manifest, name) for name in names},
        "content of the data": manifest.dataset_hash[:12],
        "folds": manifest.split_hash[:12],
    }


def _differences(kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {kept[name]} there, {wanted[name]} now"
        for name in kept
        if kept[name] != wanted[name]
    ]


def default_folder(data: Path | None, *, quick: bool) -> Path:
    """Where a search goes when nobody says."""
    parts = [SEARCH, data.resolve().name if data else "", "quick" if quick else ""]
    return Path("runs") / "-".join(filter(None, parts))


def num_threads(workers: int) -> int:
    """Of each worker."""
    return max(1, torch.get_num_threads() // workers)
