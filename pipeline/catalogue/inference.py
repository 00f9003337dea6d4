"""Run a Keras network on arrays, on whichever backend Keras has."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Infer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def prepare_inference(network: Any) -> Infer:
    """Give the function that runs a network; it is not safe among threads.

    Parameters
    ----------
    network : keras.Model
        One input and one output, both float32 with any number of rows first.
    """
    import keras

    if keras.backend.backend() != "openvino":
        infer: Infer = network.predict_on_batch
        return infer
    return _OpenVinoInference(network)


class _OpenVinoInference:
    """A network compiled in full precision, once for each number of rows and columns.

    Keras' own way leaves the precision to OpenVINO, which then computes in bfloat16 where the processor can: colours
    shift by up to two levels, and the same image differs from machine to machine. And a strided network that is
    exported without rows and columns keeps those of the example that Keras traces it with.
    """

    def __init__(self, network: Any) -> None:
        self._network = network
        self._compiled_by_shape: dict[tuple[int, ...], Any] = {}

    def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        shape = tiles.shape[1:]
        if shape not in self._compiled_by_shape:
            self._compiled_by_shape[shape] = self._compile(shape)
        result: NDArray[np.float32] = self._compiled_by_shape[shape](tiles)[0]
        return result

    def _compile(self, shape: tuple[int, ...]) -> Any:
        import keras
        import openvino

        core = openvino.Core()
        with tempfile.TemporaryDirectory() as folder:
            exported = Path(folder) / "network.xml"
            signature = [keras.InputSpec(shape=(None, *shape), dtype="float32")]
            self._network.export(str(exported), format="openvino", verbose=False, input_signature=signature)
            graph = core.read_model(exported)
        return core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
