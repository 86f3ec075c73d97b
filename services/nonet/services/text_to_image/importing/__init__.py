"""Text-to-image pipelines that were made elsewhere: their ONNX exports read, tried and published."""
