"""Trained networks to the files that are served: ONNX, TorchScript and reference answers."""
