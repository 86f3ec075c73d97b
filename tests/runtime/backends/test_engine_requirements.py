"""What a job may require of a worker's engines."""

from __future__ import annotations

import pytest

from nonet.runtime.backends import installed_backends, registry
from nonet.runtime.backends.requirement import engine_requirements, installed_engines


def test_a_worker_has_the_words_of_what_it_can_compute_with_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A capture needs the words of its gateway's engine; the one that is always there needs none."""
    has = {word for word, missing in installed_engines().items() if not missing}
    wanted = [
        engine_requirements(engine.name, precision)
        for engine in installed_backends()
        for precision in engine.precisions()
    ]
    assert has == {word for words in wanted for word in words}
    assert engine_requirements("onnxruntime", "fp32") == ()
    assert engine_requirements("openvino", "fp32") == ("engine:openvino",)
    assert engine_requirements("openvino", "bf16") == ("engine:openvino:bf16",)
    registry.backend.cache_clear()
    monkeypatch.setattr(registry.openvino, "installed", lambda: False)
    assert "pip install" in installed_engines()["engine:openvino"]
    monkeypatch.setattr(registry.openvino, "installed", lambda: True)

    def broken() -> None:
        raise OSError("libopenvino.so: cannot open shared object file")

    monkeypatch.setattr(registry.openvino, "OpenVinoBackend", broken)
    assert installed_engines()["engine:openvino"] == "libopenvino.so: cannot open shared object file"
    registry.backend.cache_clear()
