"""Loads the settings: command-line flags over environment over TOML file over defaults.

    settings = load_settings(Path("nonet.toml"), {"server": {"http_port": 9000}})
    settings.server.http_port

A key nobody knows is refused with the nearest valid one, wherever it came from.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource
from pydantic_settings import SettingsError as EnvironmentValueError

from nonet.gateway.settings.schema import Settings, SettingsError, sections, setting_keys

ENV_PREFIX = "NONET_"
ENV_DELIMITER = "__"


def load_settings(
    config: Path | None = None, flags: Mapping[str, Mapping[str, Any]] | None = None
) -> Settings:
    """Lay flags over environment over file over defaults.

    Args:
        config: a TOML file with one table per section, or None.
        flags: section -> field -> value, from the command line; None values count as not given.

    Raises:
        SettingsError: the file is missing or not TOML, a key is unknown, or a value is not accepted.
    """
    wrong: list[str] = []
    from_file = _known(read_toml(config), config, wrong) if config is not None else {}
    wrong += _unknown_variables(os.environ)
    from_env = _read_environment(wrong)
    given = {
        section: {field: value for field, value in fields.items() if value is not None}
        for section, fields in (flags or {}).items()
    }
    layers = [(str(config), from_file), ("the environment", from_env), ("the command line", given)]
    merged: dict[str, dict[str, Any]] = {}
    for _, layer in layers:
        for section, fields in layer.items():
            merged.setdefault(section, {}).update(fields)
    try:
        settings = Settings(**merged)  # type: ignore[arg-type]  # validated by pydantic, which is the point
    except ValidationError as error:
        wrong += _explain(error, layers)
        settings = None
    if settings is None or wrong:
        raise SettingsError(*dict.fromkeys(wrong))
    return settings


def read_toml(path: Path) -> dict[str, Any]:
    """What a file holds. Raises SettingsError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise SettingsError(f"there is no file {path}") from None
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None


def _known(data: Mapping[str, Any], path: Path, wrong: list[str]) -> dict[str, dict[str, Any]]:
    """What a file says of the settings that there are; what it says of others goes to ``wrong``."""
    known = dict(sections())
    found: dict[str, dict[str, Any]] = {}
    for section, fields in data.items():
        if section not in known:
            wrong.append(_unknown(section, str(path)))
        elif not isinstance(fields, dict):
            wrong.append(f"{path}: '{section}' is a section; write it as a table [{section}]")
        else:
            names = known[section].model_fields
            wrong += [_unknown(f"{section}.{field}", str(path)) for field in fields if field not in names]
            found[section] = {field: value for field, value in fields.items() if field in names}
    return found


def _read_environment(wrong: list[str]) -> dict[str, dict[str, Any]]:
    source = EnvSettingsSource(
        Settings,  # type: ignore[arg-type]  # of which it reads the fields alone
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
        env_nested_max_split=1,
        case_sensitive=False,
    )
    # Whole sections are not read from one variable: NONET_CACHE, a folder, is no section of settings.
    source.env_vars = {name: value for name, value in source.env_vars.items() if ENV_DELIMITER in name}
    try:
        values: dict[str, dict[str, Any]] = source()
    except EnvironmentValueError as error:
        cause = error.__cause__
        hint = f" ({cause})" if cause is not None else ""
        wrong.append(f"in the environment: {error}; lists and tables are written as JSON{hint}")
        return {}
    known = dict(sections())  # a variable that is no setting is named with the nearest that is
    return {
        section: {field: value for field, value in fields.items() if field in known[section].model_fields}
        for section, fields in values.items()
    }


def variable_name(key: str) -> str:
    """The environment variable of a key: ``server.http_port`` -> ``NONET_SERVER__HTTP_PORT``."""
    return ENV_PREFIX + key.replace(".", ENV_DELIMITER).upper()


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """What is wrong with the NONET_ variables that look like settings but are none.

    Names without the delimiter are wrong only if they are a setting's name with one underscore: Kubernetes
    puts NONET_SERVICE_HOST and the like into every pod beside a service called nonet.
    """
    known = {variable_name(key): key for key in setting_keys()}
    flattened = {name.replace(ENV_DELIMITER, "_"): name for name in known}
    wrong = []
    for raw in environ:
        name = raw.upper()
        if not name.startswith(ENV_PREFIX) or name in known:
            continue
        if ENV_DELIMITER in name:
            key = name.removeprefix(ENV_PREFIX).lower().replace(ENV_DELIMITER, ".", 1)
            nearest = variable_name(_nearest(key))
        elif name in flattened:
            nearest = flattened[name]
        else:
            continue
        wrong.append(f"unknown setting {raw} in the environment; did you mean {nearest}?")
    return wrong


def _unknown(key: str, origin: str) -> str:
    return f"unknown setting '{key}' in {origin}; did you mean '{_nearest(key)}'?"


def _nearest(key: str) -> str:
    """The valid key that is most like ``key``; a wrong section with a right field finds the right section."""
    keys = setting_keys()
    field = key.rpartition(".")[2]
    for section, _ in sections():
        if "." not in key and difflib.SequenceMatcher(None, key, section).ratio() >= 0.75:
            return section

    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, key, candidate).ratio()
        last = difflib.SequenceMatcher(None, field, candidate.rpartition(".")[2]).ratio()
        return max(whole, 0.99 * last)

    return max(keys, key=likeness)


def _explain(error: ValidationError, layers: list[tuple[str, dict[str, dict[str, Any]]]]) -> list[str]:
    """Each problem in one line, with the layer the value came from; secrets are not repeated."""
    return [_problem(dict(each), layers) for each in error.errors(include_url=False, include_context=False)]


def _problem(problem: Mapping[str, Any], layers: list[tuple[str, dict[str, dict[str, Any]]]]) -> str:
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path[:2])
    origin = "the settings"
    for name, layer in layers:
        if path[0] in layer and (len(path) < 2 or path[1] in layer[path[0]]):
            origin = name
    if problem["type"] == "extra_forbidden":
        return _unknown(key, origin)
    message = problem["msg"][:1].lower() + problem["msg"][1:]
    value = "" if path[0] == "auth" or _is_secret(path) else f", got {problem['input']!r}"
    return f"setting '{'.'.join(path)}' in {origin}: {message}{value}"


def _is_secret(path: list[str]) -> bool:
    model = dict(sections()).get(path[0])
    field = model.model_fields.get(path[1]) if model is not None and len(path) > 1 else None
    return field is not None and field.annotation is SecretStr
