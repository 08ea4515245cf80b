"""The segments of a model as ONNX graphs."""
