"""The limit: the same model in a bare ONNX Runtime loop, without any server.

    python bench/bare_loop.py MODEL_DIR tensor|jpeg THREADS SECONDS BATCH [IMAGE ...]

One thread per lane calls ``run()`` on one shared session (one thread inside each call, no spinning), as the
server's lanes do. ``jpeg`` decodes and preprocesses an image before each run with the product's own code.
Prints one JSON line: rows, seconds, CPU seconds.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort


def main() -> None:
    folder, kind, threads, seconds, batch = (
        Path(sys.argv[1]),
        sys.argv[2],
        int(sys.argv[3]),
        float(sys.argv[4]),
        int(sys.argv[5]),
    )
    images = [Path(name).read_bytes() for name in sys.argv[6:]]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    size = json.loads((folder / "manifest.json").read_text())["preprocessing"]["crop"]
    tensor = np.random.default_rng(0).normal(size=(batch, 3, size, size)).astype(np.float32)
    if kind == "jpeg":
        from nonet.runtime.images import Preprocessing, decode_image, preprocess

        spec = Preprocessing.from_manifest(
            json.loads((folder / "manifest.json").read_text())["preprocessing"]
        )
    name = session.get_inputs()[0].name
    done = [0] * threads
    gate = threading.Barrier(threads + 1)
    ends = [0.0]

    def lane(index: int) -> None:
        session.run(None, {name: tensor})
        gate.wait()
        turn = index
        while time.perf_counter() < ends[0]:
            feed = tensor
            if kind == "jpeg":
                pictures = (images[(turn + i) % len(images)] for i in range(batch))
                rows = [preprocess(decode_image(data, target=spec.target), spec) for data in pictures]
                feed = np.stack(rows)
                turn += batch
            session.run(None, {name: feed})
            done[index] += batch

    lanes = [threading.Thread(target=lane, args=(index,)) for index in range(threads)]
    for thread in lanes:
        thread.start()
    ends[0] = time.perf_counter() + 1e9
    gate.wait()
    begin, cpu = time.perf_counter(), cpu_seconds()
    ends[0] = begin + seconds
    for thread in lanes:
        thread.join()
    took = time.perf_counter() - begin
    print(json.dumps({"rows": sum(done), "seconds": took, "cpu": cpu_seconds() - cpu}))


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
