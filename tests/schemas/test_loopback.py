"""Which addresses are on this computer."""

from __future__ import annotations

import pytest

from schemas.loopback import is_loopback


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1/v2", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:80", True),
        ("http://localhost/x", True),
        ("https://api.runpod.io/v2", False),
        ("http://127.0.0.1.evil.test", False),
        ("http://10.0.0.1", False),
        ("http://localhost.evil.test", False),
        ("http://127.evil.test/x", False),
        ("http://[::1/x", False),
    ],
)
def test_only_this_computer_is_loopback(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected
