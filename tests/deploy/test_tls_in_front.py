"""The TLS of deploy/nginx in front of a real server: HTTP, gRPC, and a gateway's calls to a service."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.certificates import made_certificate
from tests.support.dashboard_queries import DEPLOY
from tests.support.deployment_programs import needs
from tests.support.running_server import RunningServer, eventually, free_port

pytestmark = needs("nginx")
NGINX = DEPLOY / "nginx"
# Around a file of conf.d: what the distribution's own configuration has, in a folder of the test's.
AROUND = """
daemon off; pid {folder}/pid; error_log {folder}/log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {text}
}}
"""


@contextlib.contextmanager
def nginx(file: Path, changes: Mapping[str, str], port: int, folder: Path) -> Iterator[None]:
    """The file with addresses and certificates of the test's, for the length of a ``with`` block."""
    text = file.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder, text=text))
    program = shutil.which("nginx")
    assert program is not None
    process = subprocess.Popen([program, "-e", folder / "log", "-p", folder, "-c", folder / "nginx.conf"])

    def listens() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    try:
        eventually(listens, "nginx listens")
        yield
    finally:
        process.terminate()
        process.wait()


def serving(channel: grpc.Channel) -> bool:
    stub = health_pb2_grpc.HealthStub(channel)
    reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=20.0)
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def test_callers_reach_http_and_grpc_at_one_port_by_tls(quiet_server: RunningServer, tmp_path: Path) -> None:
    key, certificate = made_certificate(tmp_path)
    trust = ssl.create_default_context(cafile=certificate)
    port = free_port()
    changes = {
        "server 127.0.0.1:8000": f"server {quiet_server.url.removeprefix('http://')}",
        "server 127.0.0.1:8001": f"server {quiet_server.grpc_address}",
        "listen 443": f"listen 127.0.0.1:{port}",
        "nonet.example.org": "127.0.0.1",
        "/etc/ssl/nonet/certificate.pem": str(certificate),
        "/etc/ssl/nonet/key.pem": str(key),
        "allow 127.0.0.1": "allow 192.0.2.1",
    }
    with nginx(NGINX / "public.conf", changes, port, tmp_path):
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trust) as http:
            assert http.get("/v2/health/ready", timeout=20.0).status_code == 200
            tensor = {"name": "x", "datatype": "FP32", "shape": [1, 500_000], "data": [0.5] * 500_000}
            reply = http.post("/v2/models/echo_fp32/infer", json={"inputs": [tensor]}, timeout=60.0)
            assert reply.status_code == 200
            assert http.get("/metrics", timeout=20.0).status_code == 403
        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
            assert serving(channel)


def test_a_gateway_reaches_a_service_by_tls_with_its_certificate_and_nobody_without(
    quiet_server: RunningServer, tmp_path: Path
) -> None:
    key, certificate = made_certificate(tmp_path)
    near, far = free_port(), free_port()
    changes = {
        "127.0.0.1:9801": f"127.0.0.1:{near}",
        "listen 9443": f"listen 127.0.0.1:{far}",
        "vision-1.example.org:9443": f"127.0.0.1:{far}",
        "vision-1.example.org": "127.0.0.1",
        "127.0.0.1:9001": quiet_server.grpc_address,
        **{f"/etc/ssl/nonet/{name}-key.pem": str(key) for name in ("gateway", "service")},
        **{f"/etc/ssl/nonet/{name}.pem": str(certificate) for name in ("gateway", "service", "authority")},
    }
    with nginx(NGINX / "between.conf", changes, near, tmp_path):
        with grpc.insecure_channel(f"127.0.0.1:{near}") as channel:
            assert serving(channel)
        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(f"127.0.0.1:{far}", credentials) as channel, pytest.raises(grpc.RpcError):
            serving(channel)
