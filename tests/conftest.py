"""Fixtures that several test modules share."""

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes of tests share a GPU

import jax  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory):
    """What XLA compiled for one test serves the next: many of them make the same programs anew."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.getbasetemp() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
