"""Measuring an image as a job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nonet.runtime.job_context import JobContext


def measure(job: JobContext) -> Mapping[str, Any]:
    """The brightness of the image, also as a file."""
    data = job.input("image").read_bytes()
    job.report(0.5, "measuring")
    brightness = sum(data) / len(data) * float(job.spec["scale"])
    text = json.dumps(brightness)
    (job.folder / "facts.json").write_text("{}")
    (job.folder / "answer").write_text(text)
    job.publish(job.folder / "answer", job.folder / "facts.json")
    return {
        "brightness": brightness,
        "file": f"/v1/jobs/{job.job}/result",
        "content_type": "application/json",
        "bytes": len(text),
    }
