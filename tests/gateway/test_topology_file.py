"""The topology file: what is read, what is refused, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from nonet.gateway.process.compose import compose
from nonet.gateway.settings.schema import Settings, SettingsError
from nonet.gateway.settings.topology import RemoteService, load_topology


def write(folder: Path, text: str) -> Path:
    path = folder / "topology.toml"
    path.write_text(text)
    return path


def test_services_and_replicas(tmp_path: Path) -> None:
    text = """
    [[service]]
    name = "recognition"
    address = "10.0.0.1:9001"
    lanes = 4
    [[service]]
    name = "recognition"
    address = "[::1]:9001"
    """
    assert load_topology(write(tmp_path, text)) == (
        RemoteService("recognition", "10.0.0.1:9001", 4),
        RemoteService("recognition", "[::1]:9001"),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["[[service]]"]),
        ("service = 1", ["[[service]]"]),
        ("service = [1]", ["[[service]]"]),
        ("[[servise]]\nname = 'a'", ["servise", "'service'"]),
        ("[[service]]\nname = 'recognition'", ["address", "missing"]),
        ("[[service]]\nname = 'recognition'\nadress = 'a:1'", ["adress", "'address'"]),
        ("[[service]]\nname = 'recognition'\naddress = 'nowhere'", ["host:port"]),
        ("[[service]]\nname = 'recognition'\naddress = 'a:99999'", ["65535"]),
        ("[[service]]\nname = 'recognition'\naddress = 'a:0'", ["65535"]),
        ("[[service]]\nname = 'recognition'\naddress = 'a:1'\nlanes = 0", ["lanes", "1024"]),
        ("[[service]]\nname = 'recognition'\naddress = 'a:1'\nlanes = true", ["lanes"]),
        ("[[service]]\nname = 7\naddress = 'a:1'", ["name"]),
        (
            2 * "[[service]]\nname = 'recognition'\naddress = 'a:1'\n",
            ["twice"],
        ),
        ("[[service]", ["TOML"]),
        ("[[service]]\nname = 'recognition'\naddress = 'a:1'\nkind = 'tritn'", ["kind", "triton"]),
        ("[[service]]\nname = 'recognition'\naddress = 'a:1'\nshared_memory = 1", ["service 1", "triton"]),
        (
            "[[service]]\nname = 'g'\nkind = 'triton'\naddress = 'a:1'\ncontrol = true",
            ["service 1", "models"],
        ),
        ("[[service]]\nname = 'g'\nkind = 'triton'\naddress = 'a:1'\nhang_seconds = 0", ["hang_seconds"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load_topology(write(tmp_path, text))
    message = str(caught.value)
    assert "\n" not in message
    assert "topology.toml" in message
    for word in words:
        assert word in message


def test_a_triton_server_has_any_name(tmp_path: Path) -> None:
    text = """
    [[service]]
    name = "gpu"
    kind = "triton"
    address = "10.0.0.1:8001"
    models = ["a", "b"]
    control = true
    """
    (server,) = load_topology(write(tmp_path, text), ("recognition",))
    assert server.models == ("a", "b")
    with pytest.raises(SettingsError, match="unknown service 'gpu'"):
        load_topology(write(tmp_path, text.replace('"triton"', '"nonet"')), ("recognition",))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml"):
        load_topology(tmp_path / "absent.toml")


def test_a_service_nobody_knows_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"known: .*recognition"):
        compose(Settings(), [RemoteService("recogition", "localhost:1")])
