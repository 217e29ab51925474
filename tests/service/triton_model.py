"""Runs inside Triton's python backend, one file for all models: ONNX Runtime on the model.onnx beside it."""

import json
import os

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb

if int(np.__version__.split(".")[0]) >= 2:
    raise RuntimeError(f"numpy {np.__version__}: this build of Triton reads tensors wrongly with numpy 2")


class TritonPythonModel:
    def initialize(self, args):
        self.outputs = [output["name"] for output in json.loads(args["model_config"])["output"]]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = [node.name for node in self.session.get_inputs()]

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        feeds = {name: pb.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
        values = self.session.run(self.outputs, feeds)
        return pb.InferenceResponse([pb.Tensor(*pair) for pair in zip(self.outputs, values)])  # noqa: B905 (Python 3.9)
