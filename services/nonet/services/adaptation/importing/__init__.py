"""Regressors made elsewhere: ONNX graphs with a file of what they were measured to do."""
