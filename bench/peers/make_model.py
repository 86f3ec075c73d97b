"""The model that all peers serve: FasterNet-T0 at 224 x 224, as a repository for Nonet and one for Triton.

    python bench/peers/make_model.py FOLDER

The weights are those of ``fasternet_t0_grocery``, which was trained at 128; the network takes any size, and
what its answers are worth at this one does not matter here. A picture is 602 KB as FP32.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx

ROOT = Path(__file__).resolve().parents[2]
SIZE = 224
NAME = "fasternet_t0"
CLASSES = 81

NONET_CONFIG = f"""\
name: "{NAME}"
platform: "onnxruntime_onnx"
backend: "onnxruntime"
max_batch_size: 16
input {{ name: "image" data_type: TYPE_FP32 dims: [3, {SIZE}, {SIZE}] }}
output {{ name: "logits" data_type: TYPE_FP32 dims: [{CLASSES}] }}
dynamic_batching {{ }}
"""
TRITON_CONFIG = f"""\
name: "{NAME}"
backend: "python"
max_batch_size: 16
input {{ name: "image" data_type: TYPE_FP32 dims: [3, {SIZE}, {SIZE}] }}
output {{ name: "logits" data_type: TYPE_FP32 dims: [{CLASSES}] }}
dynamic_batching {{ default_queue_policy {{ allow_timeout_override: true timeout_action: REJECT }} }}
instance_group {{ kind: KIND_CPU count: 1 }}
"""
TRITON_MODEL = """\
import numpy as np
import onnxruntime
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = f"{args['model_repository']}/{args['model_version']}/model.onnx"
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        rows = [pb.get_input_tensor_by_name(each, "image").as_numpy() for each in requests]
        (logits,) = self.session.run(None, {"image": np.concatenate(rows)})
        parts = np.split(logits, np.cumsum([len(each) for each in rows])[:-1])
        return [pb.InferenceResponse([pb.Tensor("logits", part)]) for part in parts]
"""


def main(folder: Path) -> None:
    """Write both repositories, if they are not there."""
    model = onnx.load(ROOT / "model_repository" / "fasternet_t0_grocery" / "1" / "model.onnx")
    image = model.graph.input[0].type.tensor_type.shape.dim
    for dimension in image[2:]:
        dimension.dim_value = SIZE
    del model.graph.value_info[:]
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model, strict_mode=True))
    for kind, config in (("nonet", NONET_CONFIG), ("triton", TRITON_CONFIG)):
        version = folder / kind / NAME / "1"
        version.mkdir(parents=True, exist_ok=True)
        onnx.save(model, version / "model.onnx")
        (version.parent / "config.pbtxt").write_text(config)
    (folder / "triton" / NAME / "1" / "model.py").write_text(TRITON_MODEL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
