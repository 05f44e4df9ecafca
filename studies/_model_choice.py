"""Which trained networks MODEL of the command line names: a model's folder, or an arm of a study."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from reports.records import StudyRecords, load_study
from studies._names import pick
from unetpp.artifacts import ArtifactLostError, Artifacts
from unetpp.errors import UserError
from unetpp.models.unetpp import UNetPlusPlus, primary_head, prune
from unetpp.records import RunKey, RunRecord
from unetpp.store import RecordStore
from unetpp.trained import DATA_FILE, FedAs, load_recorded, load_trained
from unetpp.training.device import memory_format

Member = tuple[UNetPlusPlus, FedAs]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chosen:
    """Networks whose mean predicts.

    Attributes:
        members: on one device, fed alike but for the scaling; at least one.
        text: for people, such as "the network of `runs/a`".
        trained_on: what to know before a Dice is called a test; None where that is not known.
    """

    members: tuple[Member, ...]
    text: str
    trained_on: str | None

    @property
    def fed_as(self) -> FedAs:
        """How images are fed, but for the scaling of the members after the first."""
        return self.members[0][1]


def choose(
    place: Path,
    *,
    arm: str | None,
    fold: int | None,
    head: int | None,
    device: str,
    artifacts: Artifacts | None = None,
    store: str | None = None,
) -> Chosen:
    """The networks that are asked for, on the device.

    Args:
        place: a folder that `save_trained` wrote, or a study's folder.
        arm: of the study; None for the only one.
        fold: the network that did not see this fold, from 1; None for the networks of all folds.
        head: the depth to which networks are pruned; None for the judged output.
        device: "cpu", "cuda:0", "mps".
        artifacts: of the study; None for its folder.
        store: URL of the database that holds the records of a study's folder.

    Raises:
        UserError: when there is no such network, or it cannot be read.
    """
    is_model = (place / DATA_FILE).is_file() or (place / "config.json").is_file()
    if (place / "records.sqlite").is_file() or (store is not None and not is_model):
        artifacts = artifacts or Artifacts(f"{place}")
        loaded, text, trained_on = _of_study(place, artifacts, arm, fold, store)
    elif is_model:
        if store is not None:
            warnings.warn(f"--store has no effect: `{place}` is one model", stacklevel=1)
        if arm is not None or fold is not None:
            raise UserError(
                f"`--arm` and `--fold` choose from a study's folder, but `{place}` is one model; "
                "leave them out"
            )
        if artifacts is not None:
            warnings.warn(f"`--artifacts` is ignored, as `{place}` is one model", stacklevel=2)
        loaded, text, trained_on = [load_trained(place)], f"the network of `{place}`", None
    else:
        raise UserError(
            f"MODEL must be a model's folder with `{DATA_FILE}` or a study's folder with "
            f"`records.sqlite`, but `{place}` is neither; check the path, or name the database of "
            "the study's records with --store"
        )
    members = tuple(_member(*pair, head, device) for pair in loaded)
    if head is not None:
        text = f"{text}, pruned to L{head}"
    return Chosen(members=members, text=text, trained_on=trained_on)


def _member(model: UNetPlusPlus, fed_as: FedAs, head: int | None, device: str) -> Member:
    if head is None and model.spec.inference != "mean":
        # The same bits without the nodes and outputs that nobody asked for.
        head = primary_head(model.spec)
    if head is not None:
        model = prune(model, depth=head)
    return model.to(device).to(memory_format=memory_format(model.spec.spatial_dims)), fed_as


def _of_study(
    place: Path, artifacts: Artifacts, arm: str | None, fold: int | None, store: str | None
) -> tuple[list[Member], str, str]:
    study = load_study(place, store=store)
    arm = _arm(study, place, arm)
    done = sorted({int(k) for k in study.runs.loc[study.runs["arm"] == arm, "fold"]})
    if not done:
        raise UserError(
            f"an arm predicts with its trained networks, but `{arm}` of `{place}` has none yet; "
            "run the study first"
        )
    if fold is not None and fold - 1 not in done:
        raise UserError(
            f"`--fold` must be one that `{arm}` has finished ({', '.join(_shown(done))}), but got "
            f"{fold}; choose one of these"
        )
    chosen = done if fold is None else [fold - 1]
    loaded = [_load(artifacts, _record(place, store, study, arm, index), arm) for index in chosen]
    if len(chosen) == 1:
        text = f"the network of `{arm}` in `{place}` that fold {chosen[0] + 1} was held out of"
        # Repeats, gaps and given folds leave out others too, so no more than this is true.
        trained_on = (
            f"the network was not trained on the cases of fold {chosen[0] + 1}, but was trained on "
            "others of these cases"
        )
    else:
        text = (
            f"the mean of the probabilities of {len(chosen)} networks of `{arm}` in `{place}`, one "
            f"a fold ({', '.join(_shown(chosen))} of {study.num_folds})"
        )
        trained_on = "a case held out of one of these networks may be one that another trained on"
    return loaded, text, trained_on


def _arm(study: StudyRecords, place: Path, arm: str | None) -> str:
    names = [entry.name for entry in study.arms]
    if arm is not None:
        return pick(arm, names, what="`--arm`")
    if len(names) > 1:
        raise UserError(
            f"one arm predicts, but `{place}` has {len(names)}; name it with --arm: "
            f"{', '.join(names)}"
        )
    return names[0]


def _record(place: Path, url: str | None, study: StudyRecords, arm: str, fold: int) -> RunRecord:
    promised = study.manifest
    key = RunKey(
        dataset_hash=promised.dataset_hash,
        split_hash=promised.split_hash,
        fold=fold,
        spec_id=study.arm(arm).spec_id,
        recipe_id=promised.recipe_id,
        seed=promised.seed,
        numbers_version=promised.numbers_version,
    )
    store = RecordStore.open_place(place, url, must_exist=True)
    try:
        record = store.run(key)
    finally:
        store.close()
    assert record is not None, "the fold is one of those that are recorded"
    return record


def _load(artifacts: Artifacts, record: RunRecord, arm: str) -> Member:
    try:
        return load_recorded(artifacts, record)
    except ArtifactLostError as error:
        raise UserError(
            f"the network of fold {record.key.fold + 1} of `{arm}` (run {record.key.id}) must be in "
            f"`{error.where}` as it was written, but {error.reason}; copy it there, name its place "
            "with --artifacts, or run the study with this version in a new folder"
        ) from error


def _shown(folds: list[int]) -> list[str]:
    return [str(fold + 1) for fold in folds]
