"""What `from unetpp import ...` gives."""

from __future__ import annotations

import subprocess
import sys

import pytest

import unetpp


def test_every_public_name_is_found_and_listed():
    for name in unetpp.__all__:
        assert getattr(unetpp, name).__name__ == name
    assert set(unetpp.__all__) <= set(dir(unetpp))


def test_another_name_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'unetppp'"):
        _ = unetpp.unetppp  # pyright: ignore[reportAttributeAccessIssue]


def test_describing_a_network_loads_no_torch():
    code = "import sys; from unetpp import unetpp; unetpp(4); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "False"
