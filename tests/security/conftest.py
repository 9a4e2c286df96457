"""The fixtures of every test of a whole server; pytest finds them here by their names."""

from harness.fixtures import (
    bridge,
    make_bridge,
    pytest_configure,
    pytest_runtest_makereport,
    standin,
    user,
)

__all__ = ["bridge", "make_bridge", "pytest_configure", "pytest_runtest_makereport", "standin", "user"]
