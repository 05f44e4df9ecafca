"""Optuna's storage, read once where it would be read nine times.

Each look at the trials of an `optuna.Study` fetches every running trial anew, with its parameters, as
other processes might have changed it. Where processes take turns, none does within a turn.
"""

from __future__ import annotations

import copy
from collections.abc import Container
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState


class ReadBetweenWrites:
    """A storage whose trials are read anew only after a write of this process, or after `forget`.

    After a new trial, that one alone is read: a sampler looks at all others right after it.

    Args:
        storage: which does all the rest.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self._trials: dict[int, list[FrozenTrial]] = {}

    def forget(self) -> None:
        """Other processes may have written."""
        self._trials.clear()

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,  # noqa: FBT001, FBT002 - Optuna's signature
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """As of any storage."""
        if study_id not in self._trials:
            self._trials[study_id] = self._storage.get_all_trials(study_id, deepcopy=False)
        found = [t for t in self._trials[study_id] if states is None or t.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As of any storage."""
        trial_id = self._storage.create_new_trial(study_id, template_trial=template_trial)
        if study_id in self._trials:
            self._trials[study_id].append(self._storage.get_trial(trial_id))
        return trial_id

    def trial(self, study_name: str, number: int) -> FrozenTrial:
        """One trial, without a look at all."""
        study = self._storage.get_study_id_from_name(study_name)
        return self._storage.get_trial(
            self._storage.get_trial_id_from_study_id_trial_number(study, number)
        )

    def __getattr__(self, name: str) -> Any:
        # Everything else, private parts too: Optuna's own storages differ in these.
        if not name.startswith(("get_", "_")):
            self.forget()
        return getattr(self._storage, name)
