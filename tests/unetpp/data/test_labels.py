import pytest

from unetpp.data.labels import BINARY, Labels, check_mask_rule
from unetpp.errors import UserError

_REGIONS = ((1, 2, 3), (2, 3), (3,))


def test_the_largest_value_is_that_of_the_last_class_or_of_a_region() -> None:
    names = ("whole", "core", "enhancing")
    assert BINARY.largest_value == 1
    assert Labels(kind="classes", names=names).largest_value == 3
    assert Labels(kind="multilabel", names=names, values=((9,), (2, 4), (1,))).largest_value == 9


def test_regions_have_a_plane_and_a_logit_each() -> None:
    labels = Labels(kind="multilabel", names=("whole", "core", "enhancing"), values=_REGIONS)
    assert (labels.num_planes, labels.num_logits) == (3, 3)


@pytest.mark.parametrize("kind", ["binary", "classes"])
def test_only_classes_that_may_overlap_have_values(kind: str) -> None:
    with pytest.raises(UserError, match=rf"but {kind} masks have \[\(1,\)\]; leave the values out"):
        Labels(kind=kind, names=("a",), values=((1,),))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "values", [((1,),), ((1,), ()), ((1,), (0,)), ((1,), (256,)), ((1,), (True,))]
)
def test_values_must_be_there_for_every_class(values: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(UserError, match=r"from 1 to 255, but the classes \['a', 'b'\] have"):
        Labels(kind="multilabel", names=("a", "b"), values=values)


@pytest.mark.parametrize("names", [(), ("a", "a"), ("",)])
def test_names_must_be_there_and_differ(names: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"name them with --classes a,b|must be there and differ"):
        Labels(kind="multilabel", names=names)


def test_only_known_rules_are_rules() -> None:
    assert check_mask_rule("one-hot") == "one-hot"
    with pytest.raises(UserError, match="but got 'onehot'; choose one of these"):
        check_mask_rule("onehot")
