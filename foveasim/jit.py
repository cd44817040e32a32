"""How kernels are compiled: by numba, with a cache that only saves time, or left as plain Python where numba is off."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserWideCacheLocator
from numba.core.errors import NumbaWarning

__all__ = ["is_compiled", "jit"]

P = ParamSpec("P")
R = TypeVar("R")

_NUMBA: Any = numba  # its types do not know its settings
_LOG = logging.getLogger(__name__)


def is_compiled() -> bool:
    """Whether :func:`jit` compiles: not where ``NUMBA_DISABLE_JIT=1`` is set, to step through kernels in a debugger."""
    return not _NUMBA.config.DISABLE_JIT


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function when it is first called, and keep its type for mypy.

    Compiled code is cached where numba finds a place: in ``NUMBA_CACHE_DIR``, beside the function's file, or in the
    user's cache folder. Without one, or where writing fails, kernels are compiled in every process; one line in the log
    says so. With ``NUMBA_DISABLE_JIT=1`` Python runs the function, to the same end but far slower.

    A kernel may call only kernels of its own file: the cache notices a change of that file and of no other.
    """
    if not is_compiled():
        return _as_python(function)
    compiled = _NUMBA.njit(nogil=True, error_model="numpy")(function)
    compiled._cache = _OptionalCache(function)  # what cache=True sets, to a cache that is required
    return cast("Callable[P, R]", compiled)


class _HomeLocator(UserWideCacheLocator):
    """The user's cache folder. Numba's own makes a folder named "~" where it is started if there is no home."""

    def ensure_cache_path(self) -> None:
        if not Path(self._cache_path).is_absolute():
            raise FileNotFoundError("there is no home folder")
        super().ensure_cache_path()  # type: ignore[no-untyped-call]


class _Places(CompileResultCacheImpl):
    _locator_classes = [  # noqa: RUF012  # numba's name
        _HomeLocator if locator is UserWideCacheLocator else locator
        for locator in CompileResultCacheImpl._locator_classes
    ]


class _RequiredCache(FunctionCache):
    _impl_class = _Places


class _OptionalCache:
    """Numba's cache of a function, which may be missing, unreadable or full: then the function is compiled."""

    _reported = False

    def __init__(self, function: Callable[..., object]) -> None:
        self._cache: Any = None
        try:
            self._cache = cast(Any, _RequiredCache)(function)
        except Exception as error:  # RuntimeError without a place; what reading the source raises
            self._give_up(error)

    @property
    def cache_path(self) -> str | None:
        return None if self._cache is None else str(self._cache.cache_path)

    def enable(self) -> None:
        if self._cache is not None:
            self._cache.enable()

    def disable(self) -> None:
        if self._cache is not None:
            self._cache.disable()

    def flush(self) -> None:
        if self._cache is not None:
            self._cache.flush()

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        if self._cache is None:
            return None
        try:
            return self._cache.load_overload(signature, target_context)
        except Exception as error:  # unpickling raises whatever damaged content makes it stumble over
            self._discard(error)
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        if self._cache is None:
            return
        try:
            self._cache.save_overload(signature, compiled)
        except NumbaWarning:  # made an error by a filter: the kernel is written in a way that cannot be cached
            raise
        except Exception as error:
            self._discard(error)
            self._give_up(error)

    def _discard(self, error: Exception) -> None:
        """Remove the index: a damaged one would fail again, and one whose code was not written may name older code."""
        try:
            Path(self._cache._cache_file._index_path).unlink(missing_ok=True)
        except OSError:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._cache = None
        if not _OptionalCache._reported:
            _OptionalCache._reported = True
            _LOG.warning(
                "foveasim cannot cache compiled code (%s), so every start compiles anew, for up to a minute. "
                "Set NUMBA_CACHE_DIR to a folder that can be written.",
                " ".join(str(error).split()),
            )


class _PromotedArray(np.ndarray[Any, Any]):
    """An array whose elements are as wide as in compiled code, where integers below 64 bits are calculated in 64.

    NumPy's would overflow: a sum of uint8 is uint8.
    """

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return np.int64(found) if isinstance(found, np.integer) and found.dtype.itemsize < 8 else found


def _as_python(function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        given: Any = [arg.view(_PromotedArray) if isinstance(arg, np.ndarray) else arg for arg in args]
        with np.errstate(all="ignore"):  # compiled code wraps around and divides by zero without a word
            return cast(R, _plain(function(*given, **kwargs)))

    return run


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_plain(part) for part in value)
    return value.view(np.ndarray) if isinstance(value, _PromotedArray) else value
