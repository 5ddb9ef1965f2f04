"""Where levels run: joblib's own processes, or the Dask or Ray cluster of the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from joblib import parallel_config

from projgen.errors import InputError, ToolMissingError

BACKENDS = ("loky", "threading", "dask", "ray")
_PACKAGES = {"dask": ("Dask", "distributed"), "ray": ("Ray", "ray.util.joblib")}


@contextmanager
def workers(backend: str | None, jobs: int) -> Iterator[None]:
    """Make a joblib back end the one in use.

    Args:
        backend: "loky" (processes of this machine), "threading" (one level at a time, for models that can't be
            sent to another process), "dask" (the scheduler that Dask is configured for, else processes of this
            machine), "ray" (the cluster that Ray is configured for, else this machine), or None for the back
            end that a surrounding ``joblib.parallel_config`` has set.
        jobs: how many at once; -1 means one per core.
    """
    package = require(backend)
    if backend is None:
        yield
    elif package is not None and backend == "dask":
        address = import_module("dask").config.get("scheduler-address", None)
        size = None if jobs < 0 else jobs
        local = {} if address else {"n_workers": size, "threads_per_worker": 1, "dashboard_address": None}
        with package.Client(address, **local), parallel_config("dask"):
            yield
    elif package is not None:
        package.register_ray()
        with parallel_config("ray"):
            yield
    else:
        with parallel_config(backend):
            yield


def require(backend: str | None) -> ModuleType | None:
    """The package that a back end needs beside joblib, imported.

    Raises:
        InputError: an unknown back end. ToolMissingError: Dask or Ray is not installed.
    """
    if backend is not None and backend not in BACKENDS:
        raise InputError(f"parallel back end {backend!r}", ", ".join(BACKENDS), "backend")
    if backend not in _PACKAGES:
        return None
    product, module = _PACKAGES[backend]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise ToolMissingError(
            f"{product} is not installed", f"loky or threading; or install it: pip install {package}", "backend"
        ) from error
