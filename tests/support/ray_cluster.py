"""A real Ray cluster of two nodes on this machine with a service on it; the second node can be killed.

The cluster runs in the environment that has Ray, as a program: ``python ray_cluster.py CONFIG``. It says
``serving`` when every replica is up, and takes lines that say what is to be killed.
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
READY_GUARD = 180.0
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

    def kill(self, what: str) -> None:
        """Ask for the death of the ``replica`` on the second node, or of the ``node`` with all on it;
        :meth:`said` ``killed replica`` when it is done."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(f"{what}\n".encode())
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
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": _STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    second = cluster.add_node(num_cpus=1, object_store_memory=_STORE)
    try:
        subprocess.run(
            ["serve", "run", "--non-blocking", "--address", cluster.address, config], check=True, timeout=90
        )
        ray.init(address=cluster.address, log_to_driver=False)
        _wait_until_up()
        sys.stdout.write("serving\n")
        sys.stdout.flush()
        for line in sys.stdin:
            what = line.strip()
            _wait_until_up()  # what was killed before has been replaced
            raylet = psutil.Process(second.all_processes["raylet"][0].process.pid)
            workers = raylet.children(recursive=True)
            if what == "replica":
                (replica,) = [each for each in workers if "ServeReplica" in " ".join(each.cmdline())]
                replica.kill()
            if what == "node":
                for process in [*workers, raylet]:
                    process.kill()
            sys.stdout.write(f"killed {what}\n")
            sys.stdout.flush()
    finally:
        ray.shutdown()
        cluster.shutdown()


def _wait_until_up() -> None:
    """Both nodes have an ingress and a replica."""
    from ray import serve

    while True:
        status = serve.status()
        up = [
            deployment.replica_states.get("RUNNING", 0) == 2
            for application in status.applications.values()
            for deployment in application.deployments.values()
        ]
        if up and all(up) and len(status.proxies) == 2:
            return
        time.sleep(0.1)


if __name__ == "__main__":
    _main(sys.argv[1])
