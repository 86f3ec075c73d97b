"""All tests. They run in as many workers as there are cores, so each keeps to one thread: sets of threads
that wait for each other on busy cores take many times their own work (k-means of 240 scans: four times)."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
