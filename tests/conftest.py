from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is. The same examples every day: who changes
# one thing is not stopped by an example for another. New ones: --hypothesis-profile explore.
_anywhere = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", _anywhere)
settings.register_profile("every day", _anywhere, derandomize=True)
settings.load_profile("every day")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The same bits everywhere, and no fight for cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
