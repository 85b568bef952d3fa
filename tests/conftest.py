"""What all tests share: shapes and types of signatures are checked at run time, and what XLA compiled is kept."""

import gc
import importlib.metadata
import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes of tests share a GPU
if importlib.metadata.version("jaxlib").startswith("0.10."):  # XLA refuses a flag that it does not know
    # Halve the time of compilation on a CPU, and take a third of what is left, for the processes that tests start too.
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()

import jax
import jaxtyping
import numpy as np
import pytest
from beartype import BeartypeConf, FrozenDict, beartype

CHECKED = [f"closure_jax.{room}" for room in ("physics", "transport", "models", "coupling", "problems", "closure")]
"""Rooms whose functions raise in the tests where an argument does not fit the signature, or a dimension another one."""

# As for jax.numpy, a NumPy array may stand where a jax array is stated, and a whole or a traced number where a float is.
EITHER = jax.Array | np.ndarray
LENIENT = FrozenDict({jax.Array: EITHER, float: float | int | jax.Array})
checked = beartype(conf=BeartypeConf(hint_overrides=LENIENT))
normalize = jaxtyping._array_types._normalize_array_type
jaxtyping._array_types._normalize_array_type = lambda kind: EITHER if kind is jax.Array else normalize(kind)
# Before the package is imported, since the hook changes modules as they are read.
jaxtyping.install_import_hook(CHECKED, "conftest.checked")


# Tracing makes many small objects that stay: to look through all of them that often took a tenth of the tests' time.
gc.set_threshold(50_000, 20, 50)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are cores: a test that waits for processes leaves its core idle."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return len(cores) + 1


LONGEST = ("test_extend.py", "test_end_to_end.py", "test_hosts.py", "test_bench.py", "test_compare.py")
"""Files that start first, so that no worker is left with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files in front; a file's tests keep their order."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def unchecked(monkeypatch):
    """Signatures are not checked: for tests that trace all networks of all sizes, which takes most of their time then."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def unrendered(monkeypatch):
    """Figures are built and not rendered, which takes most of a page's time: for tests of what a page says."""

    import io

    from PIL import Image

    from closure_jax.pages import drawing

    def rendered(figure) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (30, 20)).save(buffer, "png")
        return buffer.getvalue()

    monkeypatch.setattr(drawing, "rendered", rendered)


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory):
    """What XLA compiled for one test serves the next, and the processes that tests start: many make the same programs anew.

    All workers share a folder: jax locks one whose size is limited, since it does not write an entry at once.
    """
    session = tmp_path_factory.getbasetemp()
    folder = str((session.parent if "PYTEST_XDIST_WORKER" in os.environ else session) / "compiled")
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_compilation_cache_max_size", 2**34)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    # The tests run a program few times: to optimise it takes as long as the rest of its compilation.
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_traceback_in_locations_limit", 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", folder)
        patch.setenv("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**34))
        # To keep an entry jax looks through all others: of quick programs that takes longer than to make them anew.
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
        # Where in the source an operation was made is written into each program, for whom debugs it: a tenth of the time.
        patch.setenv("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
        yield
