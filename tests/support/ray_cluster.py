"""A real Ray cluster of two nodes on this machine with a service on it; the second node can be killed.

The cluster runs in the environment that has Ray, as a program: ``python ray_cluster.py CONFIG``. It says
``serving`` when every replica is up, and takes the line ``kill`` for the second node.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
READY_GUARD = 100.0
_STORE = 78 << 20  # the smallest that Ray takes


def interpreter() -> Path | None:
    """The Python of the environment that ``make test`` makes, or None."""
    for place in (Path(sys.prefix) / "ray", ROOT / ".venv" / "ray"):
        if (place / "bin" / "serve").is_file():
            return place / "bin" / "python"
    return None


class RayCluster:
    """The program, from outside.

    Args:
        config: of Ray Serve.
        folder: for its log.
        second_port: port of the gRPC ingress on the second node.
        second_http_port: of its HTTP ingress.
    """

    def __init__(self, config: Path, folder: Path, second_port: int, second_http_port: int) -> None:
        found = interpreter()
        assert found is not None
        self._log = folder / "ray.log"
        wings = [str(ROOT / wing) for wing in ("gateway", "services", "runtime", "jobs")]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("NONET_")},
            "PYTHONPATH": os.pathsep.join(wings),
            "PATH": f"{found.parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "RAY_SERVE_WORKER_PROXY_GRPC_PORT": str(second_port),
            "RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(second_http_port),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                [str(found), __file__, str(config)],
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder,
            )  # fmt: skip

    def said(self, word: str) -> bool:
        """Whether it has said ``word`` on a line. Raises RuntimeError with its log if it has ended."""
        lines = self._log.read_text(errors="replace").splitlines()
        if word not in lines and self.popen.poll() is not None:
            raise RuntimeError("the cluster ended:\n" + "\n".join(lines[-40:]))
        return word in lines

    def kill_second_node(self) -> None:
        """Ask for it; :meth:`said` ``killed`` when it is done."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(b"kill\n")
        self.popen.stdin.flush()

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            assert self.popen.stdin is not None
            self.popen.stdin.close()
        try:
            self.popen.wait(30)
        finally:
            self.popen.kill()


@contextlib.contextmanager
def serving(config: Path, folder: Path, second_port: int, second_http_port: int) -> Iterator[RayCluster]:
    """A cluster whose replicas are all up."""
    from tests.support.running_server import eventually

    cluster = RayCluster(config, folder, second_port, second_http_port)
    try:
        eventually(lambda: cluster.said("serving"), "the service runs on both nodes", READY_GUARD)
        yield cluster
    finally:
        cluster.close()


def _main(config: str) -> None:
    import psutil
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": _STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    second = cluster.add_node(num_cpus=1, object_store_memory=_STORE)
    try:
        subprocess.run(
            ["serve", "run", "--non-blocking", "--address", cluster.address, config], check=True, timeout=90
        )
        ray.init(address=cluster.address, log_to_driver=False)
        while True:
            status = serve.status()
            applications, proxies = status.applications.values(), status.proxies.values()
            if all(each.status == "RUNNING" for each in applications) and len(proxies) == 2:
                break
            time.sleep(0.1)
        sys.stdout.write("serving\n")
        sys.stdout.flush()
        for line in sys.stdin:
            if line.strip() == "kill":
                raylet = psutil.Process(second.all_processes["raylet"][0].process.pid)
                for process in [*raylet.children(recursive=True), raylet]:
                    process.kill()
                sys.stdout.write("killed\n")
                sys.stdout.flush()
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    _main(sys.argv[1])
