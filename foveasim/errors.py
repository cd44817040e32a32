"""Errors that foveasim raises on purpose. Each message says what was expected, what came, and what to do."""

from __future__ import annotations

__all__ = [
    "AgentError",
    "FoveasimError",
    "InvalidTypeError",
    "InvalidValueError",
    "MissingDependencyError",
    "NoDisplayError",
    "SceneError",
    "UnknownNameError",
    "UntrustedError",
    "WeightsError",
]


class FoveasimError(Exception):
    """Base of every error that foveasim raises on purpose."""


class InvalidValueError(FoveasimError, ValueError):
    """An argument of the right type has a value, shape or range that cannot be used."""


class InvalidTypeError(FoveasimError, TypeError):
    """An argument has the wrong type or dtype."""


class UnknownNameError(FoveasimError, ValueError):
    """A name is not in its registry."""


class UntrustedError(FoveasimError, ValueError):
    """A file would run code, and nobody allowed it; see ``foveasim.trust``."""


class SceneError(FoveasimError, ValueError):
    """A scene cannot be read: missing, empty, truncated or not an image."""


class WeightsError(FoveasimError, ValueError):
    """A weights file is missing, truncated or does not fit its network."""


class AgentError(FoveasimError, ValueError):
    """An agent breaks the protocol of ``foveasim.agents.interface.Agent``."""


class NoDisplayError(FoveasimError, RuntimeError):
    """A window was requested where there is no display."""


class MissingDependencyError(FoveasimError, ImportError):
    """A package is not installed that foveasim needs for this only, and so does not ask for."""
