"""All studies, by name."""

from __future__ import annotations

from studies import depth_per_dataset, nested_vs_plain
from studies._names import pick
from studies._study import Study

STUDIES: dict[str, Study] = {
    study.name: study for study in (nested_vs_plain.STUDY, depth_per_dataset.STUDY)
}


def find_study(name: str) -> Study:
    """The study of that name.

    Raises:
        UserError: for an unknown name, with the nearest ones.
    """
    return STUDIES[pick(name, STUDIES, what="study")]
