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

    Raises:
        UserError: names that are empty or doubled, or too few or many for the kind.
    """

    kind: Kind
    names: tuple[str, ...]

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

    @property
    def num_logits(self) -> int:
        """What a network must have as `classes` of its spec."""
        return len(self.names) + (1 if self.kind == "classes" else 0)

    @property
    def num_planes(self) -> int:
        """Planes of a mask array [planes, *S]: one a class when classes may overlap, else one."""
        return len(self.names) if self.kind == "multilabel" else 1


BINARY = Labels(kind="binary", names=("foreground",))


def check_mask_rule(rule: str) -> MaskRule:
    """`rule`, if it is one.

    "foreground": every value above 0 is the one class. "classes": value k is class k (of a
    palette, the index). "one-hot": channel k is class k and channel 0 the background. "planes":
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
