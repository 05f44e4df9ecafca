"""What do rules of racing and samplers save and lose, and how much of that can be known at all?

Command:   .venv/bin/python benchmarks/replay_racing.py [--table DIR] [--orders 200] [--write]
Measures:  on a score table, without training. Rules: share of fold-trainings used, and regret of
           what is chosen, in random orders of the networks with the baseline first; beside them
           Optuna's own WilcoxonPruner on fold means. Samplers: regret after equally many distinct
           trainings. Cheaper proxies: how well one fold or few epochs rank. The noise ceiling:
           how well one seed ranks the networks of the other.
Aim:       a rule with at most 0.4 of the fold-trainings of full cross-validation at no more than
           0.1 Dice points of additional regret, with each seed, in the seed that chose and in
           the other one.

Regret is in Dice points (0..100): the score of the best network minus that of the chosen one,
either in the seed that chose ("own") or in the other seed ("other"), whose luck had no part in
the choice. The score of a network is its mean over folds of the mean over cases. Two seeds are two
observations: however many orders there are, they shuffle the same 24 networks.
"""

from __future__ import annotations

import argparse
import functools
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.pruners import WilcoxonPruner
from optuna.trial import TrialState
from scipy import stats

from nas.racing import (
    CaseWilcoxon,
    FoldScores,
    Forgiving,
    NoRule,
    PairedMargin,
    Rule,
    Validated,
    choose_rival,
    give_up,
)
from nas.score_table import ScoreTable
from nas.search_strategy import Strategy, make_sampler
from unetpp.errors import UserError

_TABLE = Path(__file__).parents[1] / "docs" / "data" / "score_table_dsb2018"
_BASELINE = "dense-L4-w8"
_GOAL_SHARE, _GOAL_POINTS = 0.4, 0.1
_PEER = "Optuna WilcoxonPruner, fold means"
# What `nas.racing` does unless told otherwise; all other numbers were tried on this very table.
_USUAL = ("forgiving", "margin 0.01", "wilcoxon p<0.0001, effect 0.0025")
_BUDGETS = (6, 12, 18)
_SAMPLERS: tuple[Strategy, ...] = ("random", "tpe", "nsga2", "brute_force")
# Repeats in a row after which a sampler is given a point that is not tried yet.
_STUBBORN = 10
# Sets of skips that give the same network at a depth: the name that the table has it under.
_SAME = {
    (1, "nested"): "plain",
    (1, "mixed"): "plain",
    (1, "dense"): "plain",
    (2, "dense"): "mixed",
}


def rules() -> dict[str, Rule]:
    """Name in the table -> rule; the last is Optuna's level, on cases."""
    paired = [(p, effect) for p in (1e-2, 1e-4, 1e-6) for effect in (0.0, 0.0025, 0.005, 0.01)]
    return {
        "none (full cross-validation)": NoRule(),
        "forgiving": Forgiving(),
        **{f"margin {m:g}": PairedMargin(margin=m) for m in (0.005, 0.01, 0.02)},
        **{
            f"wilcoxon p<{p:g}, effect {effect:g}": CaseWilcoxon(p=p, effect=effect)
            for p, effect in [*paired, (0.1, 0.0)]
        },
    }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Season:
    """What the table has of one seed, for the networks that both seeds have on all folds.

    Attributes:
        scores: name -> scores of its cases, fold by fold.
        folds: name -> mean of each fold.
        points: name -> score in Dice points.
        seconds: name -> of each fold, the shorter of both seeds: others used the machine too.
    """

    seed: int
    scores: Mapping[str, FoldScores]
    folds: Mapping[str, tuple[float, ...]]
    points: Mapping[str, float]
    seconds: Mapping[str, tuple[float, ...]]

    @property
    def best(self) -> str:
        """The network with the highest score."""
        return max(self.points, key=lambda name: self.points[name])

    def regret(self, name: str) -> float:
        """Dice points that this network is below the best."""
        return self.points[self.best] - self.points[name]


Pair = tuple[Season, Season]


def seasons(table: ScoreTable) -> Pair:
    """The two seeds of the table.

    Raises:
        UserError: unless it has two, and the baseline with both.
    """
    if len(table.seeds) != 2:
        raise UserError(f"a replay needs a table of two seeds, but this one has {table.seeds}")
    names = [n for n in table.complete(table.seeds[0]) if n in table.complete(table.seeds[1])]
    if _BASELINE not in names:
        raise UserError(
            f"a replay starts with {_BASELINE} on all folds with both seeds, but the table has "
            f"only {len(names)} complete networks without it; finish the table"
        )
    return _season(table, names, table.seeds[0]), _season(table, names, table.seeds[1])


def _season(table: ScoreTable, names: Sequence[str], seed: int) -> Season:
    shorter = table.runs.groupby(["name", "fold"])["seconds"].min()
    folds = {name: tuple(table.fold_means(name, seed).values()) for name in names}
    return Season(
        seed=seed,
        scores={name: table.scores(name, seed) for name in names},
        folds=folds,
        points={name: 100 * fmean(values) for name, values in folds.items()},
        seconds={name: tuple(shorter[name].sort_index()) for name in names},
    )


# ---- Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """One order of the networks under one rule.

    Attributes:
        folds_used: name -> on how many folds it was trained.
        chosen: the best of those that were trained on all.
    """

    folds_used: Mapping[str, int]
    chosen: str


Racing = Callable[[Season, Sequence[str]], Race]


def race_by(rule: Rule) -> Racing:
    """Races under a rule of ours; what it says of two networks is computed once."""

    @functools.cache
    def stops(season: Season, name: str, rival: str, num: int) -> bool:
        so_far = _first_folds(season.scores[name], num)
        whole = season.scores[rival]
        return give_up(rule, so_far, whole, num_folds=len(whole.by_fold)) is not None

    def race(season: Season, order: Sequence[str]) -> Race:
        validated: list[Validated] = []
        used: dict[str, int] = {}
        for number, name in enumerate(order):
            rival = choose_rival((), validated)
            folds = len(season.folds[name])
            against = None if rival is None else order[rival.number]
            used[name] = next(
                (n for n in range(1, folds) if against and stops(season, name, against, n)), folds
            )
            if used[name] == folds:
                validated.append(Validated(number=number, score=season.points[name], costs=()))
        best = choose_rival((), validated)
        assert best is not None
        return Race(folds_used=used, chosen=order[best.number])

    return race


def _first_folds(scores: FoldScores, num: int) -> FoldScores:
    kept = sorted(scores.by_fold)[:num]
    return FoldScores(
        by_fold={fold: scores.by_fold[fold] for fold in kept},
        groups={fold: scores.groups[fold] for fold in kept},
    )


def race_by_optuna(season: Season, order: Sequence[str]) -> Race:
    """Optuna's own rule, asked by Optuna's own `optuna.Study`; who is stopped is told as pruned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pruner = WilcoxonPruner()
    study = optuna.create_study(direction="maximize", pruner=pruner)
    used: dict[str, int] = {}
    for name in order:
        trial = study.ask()
        stopped = False
        for fold, mean in enumerate(season.folds[name]):
            trial.report(mean, step=fold)
            used[name] = fold + 1
            # After the last fold nothing is left to save.
            stopped = used[name] < len(season.folds[name]) and trial.should_prune()
            if stopped:
                break
        if stopped:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, fmean(season.folds[name]))
    return Race(folds_used=used, chosen=order[study.best_trial.number])


def compare_rules(pair: Pair, num_orders: int) -> pd.DataFrame:
    """A row a rule and seed: shares, costs and regrets, means over the orders."""
    orders = _orders(pair[0], num_orders)
    racings = {name: race_by(rule) for name, rule in rules().items()}
    racings[_PEER] = race_by_optuna
    rows: list[dict[str, object]] = []
    for rule, racing in racings.items():
        for own, other in (pair, pair[::-1]):
            races = [racing(own, order) for order in orders]
            own_regrets = [own.regret(race.chosen) for race in races]
            rows.append(
                {
                    "rule": rule,
                    "seed": own.seed,
                    "folds": fmean(_share(own, race) for race in races),
                    "cost": fmean(_cost(own, race) for race in races),
                    "own": fmean(own_regrets),
                    "own_p95": float(np.quantile(own_regrets, 0.95)),
                    "other": fmean(other.regret(race.chosen) for race in races),
                }
            )
    frame = pd.DataFrame(rows)
    full = frame[frame["rule"] == next(iter(racings))].set_index("seed")
    frame["more_own"] = frame["own"] - frame["seed"].map(full["own"])
    frame["more_other"] = frame["other"] - frame["seed"].map(full["other"])
    return frame


def _orders(season: Season, num: int) -> list[tuple[str, ...]]:
    others = [name for name in season.points if name != _BASELINE]
    generator = random.Random(0)
    return [(_BASELINE, *generator.sample(others, len(others))) for _ in range(num)]


def _share(season: Season, race: Race) -> float:
    """Of the fold-trainings of full cross-validation."""
    return sum(race.folds_used.values()) / sum(len(season.folds[n]) for n in race.folds_used)


def _cost(season: Season, race: Race) -> float:
    """Seconds of the trained folds, in full cross-validations of the baseline."""
    spent = sum(sum(season.seconds[n][:used]) for n, used in race.folds_used.items())
    return spent / sum(season.seconds[_BASELINE])


def judge(rule_rows: pd.DataFrame) -> pd.DataFrame:
    """A row a rule: means over the seeds, worst additional regret, whether the goal is reached."""
    grouped = rule_rows.groupby("rule", sort=False)
    means = grouped[["folds", "cost", "own", "other"]].mean()
    worst = grouped[["more_own", "more_other"]].max().max(axis="columns")
    reached = (grouped["folds"].max() <= _GOAL_SHARE) & (worst <= _GOAL_POINTS)
    return means.assign(worst=worst, goal=reached.map({True: "yes", False: "no"}))


# ---- Samplers


def compare_samplers(pair: Pair, num_repeats: int) -> pd.DataFrame:
    """A row a sampler, seed and number of trainings: regrets, how often the depth is the best's.

    Unlike a search, they do not try the baseline first: that would level them.
    """
    rows: list[dict[str, object]] = []
    for strategy in _SAMPLERS:
        for own, other in (pair, pair[::-1]):
            tried = [sample(strategy, own, seed) for seed in range(num_repeats)]
            for budget in _BUDGETS:
                chosen = [max(t[:budget], key=lambda n: own.points[n]) for t in tried]
                rows.append(
                    {
                        "sampler": strategy,
                        "seed": own.seed,
                        "trainings": budget,
                        "own": fmean(own.regret(name) for name in chosen),
                        "other": fmean(other.regret(name) for name in chosen),
                        "depth_own": fmean(_depth(n) == _depth(own.best) for n in chosen),
                        "depth_other": fmean(_depth(n) == _depth(other.best) for n in chosen),
                    }
                )
    return pd.DataFrame(rows)


def sample(strategy: Strategy, season: Season, seed: int) -> list[str]:
    """Networks in the order in which a sampler first proposes them; a repeat costs no training."""
    study = optuna.create_study(direction="maximize", sampler=make_sampler(strategy, seed=seed))
    generator = random.Random(seed)
    tried: list[str] = []
    repeats = 0
    while len(tried) < min(max(_BUDGETS), len(season.points)):
        if repeats >= _STUBBORN:
            study.enqueue_trial(generator.choice(_untried(season, tried)))
        trial = study.ask()
        name = network_at(
            trial.suggest_int("depth", 1, 4),
            trial.suggest_categorical("skips", ["plain", "nested", "mixed", "dense"]),
            trial.suggest_categorical("width", [4, 8]),
        )
        study.tell(trial, season.points[name])
        repeats = repeats + 1 if name in tried else 0
        if name not in tried:
            tried.append(name)
    return tried


def network_at(depth: int, skips: str, width: int) -> str:
    """Name of the network at a point; several points may have the same one."""
    return f"{_SAME.get((depth, skips), skips)}-L{depth}-w{width}"


def _untried(season: Season, tried: Sequence[str]) -> list[dict[str, int | str]]:
    split = [name.split("-") for name in season.points if name not in tried]
    return [{"skips": s, "depth": int(d[1:]), "width": int(w[1:])} for s, d, w in split]


def _depth(name: str) -> str:
    return name.split("-")[1]


# ---- Noise


def noise(pair: Pair) -> pd.DataFrame:
    """A row for all networks, and one for the better half, among which a search decides."""
    names = sorted(pair[0].points, key=lambda n: -(pair[0].points[n] + pair[1].points[n]))
    halves = {"all": names, "better half": names[: len(names) // 2]}
    rows = [{"networks": k, **noise_ceiling(pair, names=v)} for k, v in halves.items()]
    return pd.DataFrame(rows)


def noise_ceiling(
    pair: Pair, *, draws: int = 1000, names: Sequence[str] | None = None
) -> dict[str, float]:
    """How well one seed ranks the networks of the other; no measurement with one seed can do more.

    The intervals, 95 %, are over cases, which are drawn anew for both seeds alike; networks and
    seeds are taken as they are.

    Args:
        pair: the seeds.
        draws: for the intervals.
        names: which networks; all by default.
    """
    names = list(pair[0].points) if names is None else names
    found = {
        f"{k}_{end}": v for k, ends in _intervals(pair, names, draws).items() for end, v in ends
    }
    first, second = ([season.points[name] for name in names] for season in pair)
    difference = np.subtract(first, second)
    folds = [mean for season in pair for name in names for mean in season.folds[name]]
    return {
        "count": float(len(names)),
        "spearman": _spearman(first, second),
        "kendall": float(np.asarray(stats.kendalltau(first, second))[0]),
        **found,
        "sd_of_difference": float(difference.std(ddof=1)),
        "median_of_difference": float(np.median(np.abs(difference))),
        "same_best_network": float(pair[0].best == pair[1].best),
        "same_best_depth": float(_depth(pair[0].best) == _depth(pair[1].best)),
        "folds_below_half": float(sum(mean < 0.5 for mean in folds)),
    }


def _intervals(
    pair: Pair, names: Sequence[str], draws: int
) -> dict[str, tuple[tuple[str, float], ...]]:
    """Measure -> its ends, under redrawn cases."""
    means = [_redrawn(season, names, draws) for season in pair]
    drawn = {
        "spearman": [_spearman(a, b) for a, b in zip(*means, strict=True)],
        "kendall": [
            float(np.asarray(stats.kendalltau(a, b))[0]) for a, b in zip(*means, strict=True)
        ],
    }
    ends = {key: np.quantile(values, (0.025, 0.975)) for key, values in drawn.items()}
    return {key: (("low", float(low)), ("high", float(high))) for key, (low, high) in ends.items()}


def _redrawn(season: Season, names: Sequence[str], draws: int) -> NDArray[np.float64]:
    """Scores [draws, networks] with groups of cases drawn with replacement within each fold."""
    generator = np.random.default_rng(0)
    of_folds: list[NDArray[np.float64]] = []
    for fold in sorted(season.scores[names[0]].by_fold):
        values = np.stack([season.scores[name].by_fold[fold] for name in names])
        _, member = np.unique(season.scores[names[0]].groups[fold], return_inverse=True)
        num = int(member.max()) + 1
        weights = generator.multinomial(num, np.full(num, 1 / num), size=draws)[:, member]
        defined = ~np.isnan(values)
        of_folds.append(weights @ np.nan_to_num(values).T / (weights @ defined.T))
    return np.mean(of_folds, axis=0)


def _spearman(
    a: Sequence[float] | NDArray[np.float64], b: Sequence[float] | NDArray[np.float64]
) -> float:
    return float(np.asarray(stats.spearmanr(a, b))[0])


# ---- Cheaper proxies


def compare_proxies(table: ScoreTable, pair: Pair) -> pd.DataFrame:
    """A row a proxy and seed: how it ranks, and the regret of its first choice."""
    rows: list[dict[str, object]] = []
    for own, other in (pair, pair[::-1]):
        for proxy, variants in _proxies(table, own).items():
            chosen = [max(v, key=lambda name: v[name]) for v in variants]
            rows.append(
                {
                    "proxy": proxy,
                    "seed": own.seed,
                    "rank_own": fmean(_rank(v, own) for v in variants),
                    "rank_other": fmean(_rank(v, other) for v in variants),
                    "own": fmean(own.regret(name) for name in chosen),
                    "other": fmean(other.regret(name) for name in chosen),
                }
            )
    return pd.DataFrame(rows)


def _proxies(table: ScoreTable, season: Season) -> dict[str, list[dict[str, float]]]:
    """Proxy -> its variants (one a fold, where it has one fold), each: name -> value."""
    num = len(season.folds[_BASELINE])
    curves = table.curves[table.curves["seed"] == season.seed]
    epochs = int(curves["epoch"].max())
    proxies = {
        f"all {num} folds": [dict(season.points)],
        "one fold": [{n: v[f] for n, v in season.folds.items()} for f in range(num)],
    }
    for epoch in (epochs // 4, epochs // 2, epochs):
        # Nothing found yet and nothing there alike: a Dice of zero.
        at = curves[curves["epoch"] == epoch].fillna({"held_out_dice": 0.0})
        cells = at.set_index(["name", "fold"])["held_out_dice"]
        by_fold = [{n: float(cells[n, f]) for n in season.points} for f in range(num)]
        whole = {n: fmean(v[n] for v in by_fold) for n in season.points}
        proxies[f"epoch {epoch} of {epochs}, all folds"] = [whole]
        proxies[f"epoch {epoch} of {epochs}, one fold"] = by_fold
    return proxies


def _rank(values: Mapping[str, float], season: Season) -> float:
    return _spearman(list(values.values()), [season.points[name] for name in values])


# ---- Printing


def ceiling_lines(noise_rows: pd.DataFrame) -> str:
    """The caption that stands beside every table."""
    lines = [
        f"  {row['networks']:<12}({row['count']:2.0f})  Spearman {row['spearman']:5.2f} "
        f"({row['spearman_low']:.2f} to {row['spearman_high']:.2f}), sd of a difference "
        f"{row['sd_of_difference']:.2f}"
        for row in noise_rows.to_dict("records")
    ]
    return "\n".join(["Noise ceiling, between the two seeds:", *lines])


def print_noise(pair: Pair, noise_rows: pd.DataFrame) -> None:
    """What can be known at all."""
    print("NOISE between the two seeds (low, high: 95 % over cases; differences in Dice points)")
    print(noise_rows.set_index("networks").T.to_string(float_format=lambda v: f"{v:.2f}"))
    for own, other in (pair, pair[::-1]):
        print(
            f"seed {own.seed}: the best is {own.best} ({own.points[own.best]:.2f}), "
            f"{other.regret(own.best):.2f} below the best of the other seed;\n"
            f"        the baseline {_BASELINE} is {own.regret(_BASELINE):.2f} below the best"
        )


def print_frame(title: str, frame: pd.DataFrame, noise_rows: pd.DataFrame) -> None:
    """A table of at most 80 columns."""
    print(f"\n{title}")
    print(frame.to_string(float_format=lambda v: f"{v:.2f}", index_names=False))
    print(ceiling_lines(noise_rows))


def print_goal(judged: pd.DataFrame) -> None:
    """Whether a rule does what was hoped for."""
    print(f"\nGOAL: folds <= {_GOAL_SHARE:g} and worst <= {_GOAL_POINTS:g}, with each seed")
    for name in _USUAL:
        print(f"  {name:<33} {judged.loc[name, 'goal']}")
    tried = judged.index.difference([*_USUAL, _PEER])
    reached = judged.index[judged["goal"] == "yes"].intersection(tried)
    print(f"  of the other {len(tried)}, which were tried on this very table: {len(reached)}")
    print(f"  {_PEER:<33} {judged.loc[_PEER, 'goal']}")


def write(path: Path, parts: Mapping[str, pd.DataFrame]) -> None:
    """All numbers in one long file: part, what, seed, trainings, measure, value."""
    long: list[pd.DataFrame] = []
    for part, frame in parts.items():
        names = ("networks", "rule", "sampler", "proxy")
        named = frame.rename(columns=dict.fromkeys(names, "what"))
        keys = [key for key in ("what", "seed", "trainings") if key in named]
        long.append(named.melt(id_vars=keys, var_name="measure").assign(part=part))
    columns = ["part", "what", "seed", "trainings", "measure", "value"]
    joined = pd.concat(long).reindex(columns=columns)
    joined = joined.astype({"seed": "Int64", "trainings": "Int64"})
    joined.to_csv(path, index=False, float_format="%.4f", lineterminator="\n")


def main() -> None:
    """Replay, print, and write where asked to."""
    parser = argparse.ArgumentParser(description="Replay rules and samplers on a score table.")
    parser.add_argument("--table", type=Path, default=_TABLE)
    parser.add_argument("--orders", type=int, default=200, help="orders of the networks")
    parser.add_argument("--repeats", type=int, default=50, help="seeds of a sampler")
    parser.add_argument("--write", action="store_true", help="replay.csv into the table's folder")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    table = ScoreTable.load(given.table)
    pair = seasons(table)
    parts = {"noise": noise(pair)}
    print_noise(pair, parts["noise"])
    parts["rules"] = compare_rules(pair, given.orders)
    judged = judge(parts["rules"])
    print_frame(f"RULES (means over {given.orders} orders, both seeds)", judged, parts["noise"])
    print_goal(judged)
    parts["samplers"] = compare_samplers(pair, given.repeats)
    means = parts["samplers"].drop(columns="seed").groupby(["sampler", "trainings"], sort=False)
    print_frame(f"SAMPLERS (means over {given.repeats} starts)", means.mean(), parts["noise"])
    parts["proxies"] = compare_proxies(table, pair)
    means = parts["proxies"].drop(columns="seed").groupby("proxy", sort=False).mean()
    print_frame("PROXIES (Spearman with the score on all folds)", means, parts["noise"])
    if given.write:
        write(given.table / "replay.csv", parts)


if __name__ == "__main__":
    main()
