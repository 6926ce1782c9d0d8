"""The extras of this package, and the one refusal of a command whose extra is not installed.

The base install predicts, inspects, serves and checks the machine. The other commands need
libraries that are many times larger, which the extras bring. ``pyproject.toml`` declares the same
extras; a test compares the two.
"""

import importlib.util
from collections.abc import Callable, Mapping
from functools import wraps
from typing import ParamSpec, TypeVar

from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.versions import PACKAGE

P = ParamSpec("P")
T = TypeVar("T")

# The modules that each extra brings, in the order in which smaller extras come first.
_TORCH = ("torch", "transformers")
_EVALUATE = ("scipy", "sklearn")
_PARQUET = ("pyarrow",)
_EXPORT = (*_TORCH, *_EVALUATE, "onnx")
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "hub": ("aiohttp", "fsspec", "huggingface_hub"),
    "parquet": _PARQUET,
    "ray": ("ray",),
    "evaluate": _EVALUATE,
    "torch": _TORCH,
    "export": _EXPORT,
    "bench": (*_EXPORT, "matplotlib"),
    "train": (*_EXPORT, *_PARQUET, "accelerate", "matplotlib"),
}
# Packages that are installed under another name than they are imported.
DISTRIBUTIONS: Mapping[str, str] = {
    "huggingface_hub": "huggingface-hub",
    "ray": "ray[serve]",
    "sklearn": "scikit-learn",
}


def needs_extras(verb: str, *extras: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate what ``spd VERB`` does, so that it is refused before it does anything.

    Args:
        verb: the name of the command, for the error.
        extras: names of extras; all of them are needed.
    """

    def decorated(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            require_extras(f"spd {verb}", *extras)
            return function(*args, **kwargs)

        return checked

    return decorated


def require_extras(what: str, *extras: str, otherwise: str = "") -> None:
    """Refuse what needs extras whose packages are missing.

    Args:
        what: what needs them, as the subject of a sentence.
        extras: names of extras; all of them are needed.
        otherwise: how to do without them, where that is possible.

    Raises:
        Unavailable: packages are missing; it names them, and the command that installs them.
    """
    lacking = [extra for extra in extras if missing_packages(extra)]
    if lacking:
        missing = dict.fromkeys(name for extra in lacking for name in missing_packages(extra))
        raise Unavailable(
            f"{what} needs packages that are not installed: {', '.join(missing)}",
            fix=f"{install_command(*lacking)}{f', or {otherwise}' if otherwise else ''}",
        )


def require_modules(what: str, extra: str, *modules: str) -> None:
    """Refuse what needs some of the packages of an extra, where these are missing.

    Args:
        what: what needs them, as the subject of a sentence.
        extra: the extra that brings them.
        modules: the names under which they are imported.

    Raises:
        Unavailable: one is missing; it names them, and the command that installs them.
    """
    if missing := [module for module in _absent(extra) if module in modules]:
        names = ", ".join(DISTRIBUTIONS.get(module, module) for module in missing)
        raise Unavailable(
            f"{what} needs packages that are not installed: {names}", fix=install_command(extra)
        )


def lacking_extra(err: ModuleNotFoundError) -> Unavailable | None:
    """The same refusal, of an import that failed; None if no extra has the module."""
    module = (err.name or "").partition(".")[0]
    extra = next((extra for extra, modules in EXTRAS.items() if module in modules), None)
    if extra is None:
        return None
    package = DISTRIBUTIONS.get(module, module)
    return Unavailable(
        f"this needs a package that is not installed: {package}", fix=install_command(extra)
    )


def missing_packages(extra: str) -> list[str]:
    """The packages of an extra that cannot be imported here, by the names that pip knows."""
    return [DISTRIBUTIONS.get(module, module) for module in _absent(extra)]


def _absent(extra: str) -> list[str]:
    """The modules of an extra that cannot be imported here."""
    return [module for module in EXTRAS[extra] if importlib.util.find_spec(module) is None]


def install_command(*extras: str) -> str:
    """The command that installs this package with these extras."""
    return f"pip install '{PACKAGE}[{','.join(extras)}]'"
