"""Parameters as notebooks, papermill and commands give them: read, checked, and made a configuration."""

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from stkvlm_lib.cell_order import hint_at_order
from stkvlm_lib.config import ROOT, ConfigError, Parameters, did_you_mean

C = TypeVar("C", bound=Parameters)
_INJECTED = "# Parameters\n"
"""How the cell begins into which papermill writes the parameters that it was given."""


def read_parameters(namespace: dict[str, Any], kind: type[C]) -> C:
    """Build a configuration from a notebook's globals, at any time: what its cells define besides does not count.

    Parameters are the names that `kind` has, all that papermill was given, and other UPPER_CASE names or lower-case
    forms of parameters, which are taken for misspelt; not what a person's IPython start-up files define.
    Raises ConfigError for a parameter that `kind` does not have, or whose value has the wrong type, and where the
    notebook was opened in another checkout than the library's.
    """
    check_checkout(Path.cwd())
    hint_at_order()
    names = {each.name.upper() for each in fields(kind)}
    injected, hidden = _injected_names(namespace.get("In", ())), _startup_names(namespace)

    def is_given(name: str, value: Any) -> bool:
        if name in names or name in injected:
            return True
        plain = value is None or isinstance(value, bool | int | float | str | list | dict)
        return plain and name not in hidden and not name.startswith("_") and (name.isupper() or name.upper() in names)

    return make_config({name: value for name, value in namespace.items() if is_given(name, value)}, kind)


def _injected_names(cells: Iterable[str]) -> set[str]:
    """The names that papermill's cells assign, of all cells that were run."""
    lines = [line for cell in cells if cell.startswith(_INJECTED) for line in cell.splitlines()]
    return {found[1] for line in lines if (found := re.match(r"(\w+) = ", line))}


def _startup_names(namespace: dict[str, Any]) -> set[str]:
    """What IPython's start-up files have defined, and is still as they left it."""
    shell = namespace.get("get_ipython", lambda: None)()
    before = getattr(shell, "user_ns_hidden", {})
    return {name for name, value in before.items() if namespace.get(name) is value}


def make_config(parameters: dict[str, Any], kind: type[C]) -> C:
    """UPPER_CASE parameters -> configuration. Raises ConfigError naming what is unknown or of the wrong type."""
    types = {each.name.upper(): each.type for each in fields(kind)}
    unknown = sorted(set(parameters) - set(types))
    if unknown:
        raise unknown_parameters(unknown, types)
    return kind(**{name.lower(): _cast(name, value, types[name]) for name, value in parameters.items()})


def unknown_parameters(names: Iterable[str], known: Iterable[str]) -> ConfigError:
    """Names them, those that each may have meant, and where all stand."""
    known = list(known)
    said = ", ".join(name + did_you_mean(name, known) for name in names)
    return ConfigError(f"unknown parameter {said}; the first code cell of a notebook lists what it takes")


def upper(config: Parameters) -> dict[str, Any]:
    """The configuration as notebook parameters."""
    return {name.upper(): value for name, value in asdict(config).items()}


def check_checkout(folder: Path) -> None:
    """Raises ConfigError where this library is a mere copy without notebooks and frames, and where a folder lies in
    another checkout than it does, whose notebooks and files would be mixed with it unseen."""
    if not (ROOT / "pyproject.toml").is_file():
        raise ConfigError(
            f"stkvlm_lib in {ROOT} is a copy without its notebooks and frames; install it from its checkout "
            "with `pip install -e CHECKOUT`"
        )
    marks = ("pyproject.toml", "stkvlm_lib/config.py")
    holding = (place for place in (folder, *folder.parents) if all((place / mark).is_file() for mark in marks))
    checkout = next(holding, ROOT)
    if not checkout.samefile(ROOT):
        raise ConfigError(
            f"{folder} lies in the checkout {checkout}, but the stkvlm_lib of this environment is that of {ROOT}; "
            f"start it through {checkout}/run_all.sh, or call `pip install -e {checkout}` in this environment"
        )


_MOST = 10**18
"""Whole numbers of this size and more are no counts, seeds or rates."""


_KINDS = {bool: "true or false", int: "a whole number of at most 18 digits", float: "a number"}


def _cast(name: str, value: Any, kind: type) -> Any:
    """Accept what papermill and YAML deliver (`1e-4` arrives as text), refuse what would change the meaning.

    A number for a text is refused: papermill makes 20241126 of `2024_11_26` and inf of `7e23997`, and what was typed is
    lost.
    """
    if isinstance(value, str):
        if kind is bool and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if kind is int and re.fullmatch(r"-?\d{1,18}", value):
            return int(value)
        if kind is float:
            with suppress(ValueError):
                value = float(value)
    elif kind is float and type(value) is int and abs(value) < _MOST:
        return float(value)
    is_kind = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if is_kind and (kind not in (int, float) or abs(value) < _MOST):  # False for NaN, too
        return value
    if kind is str:
        raise ConfigError(
            f"{name}={value!r} is not text but {type(value).__name__}, so what was typed may be lost; give it to "
            f"papermill with `-r {name} VALUE` in place of -p, in a notebook or YAML file in quotes"
        )
    raise ConfigError(f"{name}={value!r:.80} is not {_KINDS[kind]}")
