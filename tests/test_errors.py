"""Every error that foveasim raises on purpose can be caught by one name, and by the built-in that it stands for."""

from __future__ import annotations

import inspect

import pytest

from foveasim import errors

BUILT_IN = {
    "InvalidValueError": ValueError,
    "InvalidTypeError": TypeError,
    "UnknownNameError": ValueError,
    "UntrustedError": ValueError,
    "SceneError": ValueError,
    "WeightsError": ValueError,
    "AgentError": ValueError,
    "NoDisplayError": RuntimeError,
    "MissingDependencyError": ImportError,
}


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "FoveasimError"])
def test_errors_have_one_base_and_a_built_in_one(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, errors.FoveasimError)
    assert issubclass(error, BUILT_IN[name])
    with pytest.raises(BUILT_IN[name], match="what to do"):
        raise error("what to do")


def test_the_base_is_no_built_in_error() -> None:
    assert not issubclass(errors.FoveasimError, ValueError | TypeError | RuntimeError)


def test_every_error_is_public() -> None:
    defined = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert defined == set(errors.__all__)
