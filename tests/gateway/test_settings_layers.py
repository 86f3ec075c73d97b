"""Settings: which layer wins, what is refused and how, and that every setting is documented."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.gateway.settings.loader import load_settings, variable_name
from nonet.gateway.settings.reference import reference_page
from nonet.gateway.settings.schema import Settings, SettingsError, sections, setting_keys

KEYS = setting_keys()
ROOT = Path(__file__).parents[2]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes nonet.toml; the environment has no settings of ours."""
    import os

    for name in list(os.environ):
        if name.startswith("NONET_"):
            monkeypatch.delenv(name)

    def write_file(text: str) -> Path:
        path = tmp_path / "nonet.toml"
        path.write_text(text)
        return path

    return write_file


def refused(config: Path | None = None, flags: dict | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(config, flags)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_flags_win_over_the_environment_over_the_file_over_the_default(write, monkeypatch) -> None:
    assert load_settings().server.http_port == 8000
    config = write("[server]\nhttp_port = 1001\ngrpc_port = 1002\nhost = 'file'\n")
    assert load_settings(config).server.http_port == 1001
    monkeypatch.setenv("NONET_SERVER__HTTP_PORT", "2001")
    monkeypatch.setenv("nonet_server__grpc_port", "2002")
    settings = load_settings(config, {"server": {"http_port": 3001, "grpc_port": None}})
    assert (settings.server.http_port, settings.server.grpc_port, settings.server.host) == (
        3001,
        2002,
        "file",
    )


def test_fault_74_an_unknown_key_is_refused_with_the_nearest_valid_one(write) -> None:
    message = refused(write("[server]\nhttp_prot = 8000\n"))
    assert "'server.http_prot'" in message
    assert "'server.http_port'" in message
    assert "nonet.toml" in message
    assert "'server'" in refused(write("[sever]\nhttp_port = 1\n"))
    assert "'server.grace'" in refused(write("grace = 1\n"))
    assert "'server.http_port'" in refused(write("[cache]\nhttp_port = 1\n"))


@given(key=st.sampled_from(KEYS), data=st.data())
def test_fault_74_one_wrong_letter_finds_the_key_meant(
    tmp_path_factory, key: str, data: st.DataObject
) -> None:
    section, _, field = key.partition(".")
    place = data.draw(st.integers(0, len(field) - 1))
    wrong = field[:place] + data.draw(st.sampled_from("qxz")) + field[place + 1 :]
    if f"{section}.{wrong}" in KEYS:
        return
    config = tmp_path_factory.getbasetemp() / "typo.toml"
    config.write_text(f"[{section}]\n{wrong} = 1\n")
    message = refused(config)
    suggested = message.rpartition("did you mean '")[2].removesuffix("'?")
    assert suggested in KEYS
    likeness = difflib.SequenceMatcher(None, f"{section}.{wrong}", suggested).ratio()
    assert suggested == key or likeness >= difflib.SequenceMatcher(None, f"{section}.{wrong}", key).ratio()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("NONET_SERVER__HTTP_PROT", "NONET_SERVER__HTTP_PORT"),
        ("NONET_SERVER_HTTP_PORT", "NONET_SERVER__HTTP_PORT"),
        ("NONET_SEVER__HOST", "NONET_SERVER__HOST"),
    ],
)
def test_fault_74_an_unknown_variable_is_refused_too(write, monkeypatch, name: str, nearest: str) -> None:
    monkeypatch.setenv(name, "1")
    message = refused()
    assert name in message
    assert nearest in message


@pytest.mark.parametrize("name", ["NONET_CACHE", "NONET_DATA", "NONET_SERVICE_HOST", "NONET_PORT_8000_TCP"])
def test_variables_of_other_kinds_are_left_alone(write, monkeypatch, name: str) -> None:
    monkeypatch.setenv(name, "/somewhere")
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[server]\nhttp_port = 70000\n", ["server.http_port", "65535", "70000"]),
        ("[server]\nhttp_port = 'x'\n", ["server.http_port", "integer"]),
        ("[cache]\nttl = -1\n", ["cache.ttl", "greater than 0"]),
        ("[cache]\nttl = nan\n", ["cache.ttl"]),
        ("[logging]\nlevel = 'loud'\n", ["logging.level", "'info'"]),
        ("[server\n", ["TOML"]),
        ("server = 1\n", ["[server]"]),
        ("[auth.keys]\n'a b' = 'k'\n", ["auth.keys"]),
    ],
)
def test_a_bad_value_is_one_line_with_key_and_origin(write, text: str, words: list[str]) -> None:
    message = refused(write(text))
    assert "nonet.toml" in message
    for word in words:
        assert word in message


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "absent.toml" in refused(tmp_path / "absent.toml")


def test_secrets_are_never_shown(write, monkeypatch) -> None:
    settings = load_settings(write("[auth.keys]\nalice = 'sesame'\n"))
    assert settings.auth.keys["alice"].get_secret_value() == "sesame"
    assert "sesame" not in repr(settings)
    assert "sesame" not in settings.model_dump_json()
    monkeypatch.setenv("NONET_AUTH__KEYS", '{"alice": 5, "b b": "sesame"}')
    assert "sesame" not in refused()
    monkeypatch.delenv("NONET_AUTH__KEYS")
    assert "5550123" not in refused(write("[jobs]\nwebhook_secret = 5550123\n"))
    assert "5550123" not in refused(write('[jobs]\nstore = ["redis://:5550123@host"]\n'))


def test_lists_and_tables_come_as_json_from_the_environment(write, monkeypatch) -> None:
    monkeypatch.setenv("NONET_AUTH__KEYS", '{"alice": "sesame"}')
    monkeypatch.setenv("NONET_REPOSITORY__PREFERRED_FAMILIES", '["grocery"]')
    settings = load_settings()
    assert settings.auth.keys["alice"].get_secret_value() == "sesame"
    assert settings.repository.preferred_families == ("grocery",)
    monkeypatch.setenv("NONET_REPOSITORY__PREFERRED_FAMILIES", "grocery")
    assert "JSON" in refused()


def test_the_defaults_read_nothing(monkeypatch) -> None:
    monkeypatch.setenv("NONET_SERVER__HTTP_PORT", "1")
    assert Settings().server.http_port == 8000


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().server.http_port = 1  # type: ignore[misc]


def test_every_setting_says_what_it_is_for() -> None:
    for section, model in sections():
        assert model.__doc__, section
        for name, field in model.model_fields.items():
            assert field.description, f"{section}.{name}"
            assert len(field.description) >= 40, f"{section}.{name}: why, and how to choose?"
            assert field.description.rstrip().endswith("."), f"{section}.{name}"


def test_variable_names_are_unique() -> None:
    assert len({variable_name(key) for key in KEYS}) == len(KEYS)


def test_the_reference_page_is_current() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page == reference_page(), "run: make docs"
