"""What a mask says: which classes there are, whether they exclude each other, how they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from unetpp.errors import UserError

Kind = Literal["binary", "classes", "multilabel"]
MaskRule = Literal["foreground", "classes", "one-hot", "planes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The classes of a data set.

    Attributes:
        kind: "binary": one class against background, one logit (sigmoid). "classes": several that
            exclude each other, a logit for the background and one for each (softmax).
            "multilabel": several that may overlap, a logit each (sigmoid).
        names: of the classes without the background; class k + 1 is `names[k]`.
        values: what a mask stores for each class, where classes are regions such as "whole tumour"
            of the stored values 1, 2 and 3; only for "multilabel". Empty: class k + 1 is the stored
            value k + 1.

    Raises:
        UserError: names that are empty or doubled, too few or many for the kind, or values that are
            not from 1 to 255 for every class.
    """

    kind: Kind
    names: tuple[str, ...]
    values: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        most = {"binary": 1, "classes": 254, "multilabel": 64}[self.kind]
        if not 1 <= len(self.names) <= most:
            raise UserError(
                f"{self.kind} masks have 1 to {most} classes beside the background, but got "
                f"{len(self.names)}; name them with --classes a,b"
            )
        if not all(self.names) or len(set(self.names)) < len(self.names):
            raise UserError(
                f"the names of classes must be there and differ, but got {list(self.names)}; "
                "rename them"
            )
        if self.values:
            self._check_values()

    def _check_values(self) -> None:
        if self.kind != "multilabel":
            raise UserError(
                f"only classes that may overlap have stored values of their own, but {self.kind} "
                f"masks have {list(self.values)}; leave the values out"
            )
        whole = all(type(value) is int and 1 <= value <= 255 for v in self.values for value in v)
        if len(self.values) != len(self.names) or not all(self.values) or not whole:
            raise UserError(
                "each class must have one or more stored values from 1 to 255, but the classes "
                f"{list(self.names)} have {list(self.values)}; mend the values"
            )

    @property
    def num_logits(self) -> int:
        """What a network must have as `classes` of its spec."""
        return len(self.names) + (1 if self.kind == "classes" else 0)

    @property
    def largest_value(self) -> int:
        """The largest value that a mask can store."""
        return max((value for v in self.values for value in v), default=len(self.names))

    @property
    def num_planes(self) -> int:
        """Planes of a mask array [planes, *S]: one a class when classes may overlap, else one."""
        return len(self.names) if self.kind == "multilabel" else 1


BINARY = Labels(kind="binary", names=("foreground",))


def check_mask_rule(rule: str) -> MaskRule:
    """`rule`, if it is one.

    "foreground": every value above 0 is the one class. "classes": value k is class k (of a
    palette, the index), or belongs to the classes that `Labels.values` says. "one-hot": channel k is class k and channel 0 the background. "planes":
    channel k is class k + 1, and classes may overlap.

    Raises:
        UserError: for another word.
    """
    if rule not in get_args(MaskRule):
        raise UserError(
            f"masks are read as one of {', '.join(get_args(MaskRule))}, but got {rule!r}; "
            "choose one of these"
        )
    return rule  # pyright: ignore[reportReturnType]
