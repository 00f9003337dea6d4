"""Run a Keras network on arrays, on whichever backend Keras has."""

from __future__ import annotations

import contextlib
import queue
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.catalogue.graph import sink_transposes

Precision = Literal["f32", "bf16"]
Infer = Callable[[NDArray[np.float32]], NDArray[np.float32]]

# Rows and columns of the examples that a network is traced and tried with: multiples of every stride that is likely.
_TRACED: Final = (64, 64)
_TRIED: Final = (96, 128)


def prepare_inference(network: Any, precision: Precision = "f32", threads: int = 1) -> Infer:
    """Give the function that runs a network; threads may share it.

    Parameters
    ----------
    network : keras.Model
        One input and one output, both float32 of shape (N, H, W, 3).
    precision : {"f32", "bf16"}
        Of OpenVINO's convolutions. ``bf16`` is used only where the processor computes with it; it changes the result
        of a residual network by less than one level of 255, but that of others by up to two.
    threads : int
        How many predictions may run at once, each on one core; further ones wait for their turn.
    """
    import keras

    if keras.backend.backend() != "openvino":
        return _KerasInference(network)
    return _OpenVinoInference(network, precision, threads)


class _KerasInference:
    """A network run by Keras: its own threads or its GPU, one prediction at a time."""

    def __init__(self, network: Any) -> None:
        self._network = network
        # `predict_on_batch` is not safe among threads on every backend.
        self._turn = Lock()

    def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._turn:
            result: NDArray[np.float32] = self._network.predict_on_batch(tiles)
        return result


class _OpenVinoInference:
    """A network compiled by OpenVINO for tiles of any size, with a request for each thread.

    Keras' own way leaves the precision to OpenVINO, takes all cores for one prediction and compiles again for every
    new size.
    """

    # Of all models: compiling traces the network with Keras, whose state is the whole process's.
    _compiling: ClassVar[Lock] = Lock()

    def __init__(self, network: Any, precision: Precision, threads: int) -> None:
        self._network = network
        self._configuration = _configuration(precision, threads)
        self._threads = threads
        self._requests_by_size: dict[tuple[int, int] | None, queue.SimpleQueue[Any]] = {}
        self._is_free_in_size = True
        self._is_free_in_size = self._is_right_at(_TRIED)

    def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._request(tiles.shape[1:3]) as request:
            request.infer([tiles])
            # A copy: the request writes its next result to the same place.
            return np.array(request.get_output_tensor().data)

    @contextlib.contextmanager
    def _request(self, size: tuple[int, int]) -> Iterator[Any]:
        key = None if self._is_free_in_size else size
        with self._compiling:
            if key not in self._requests_by_size:
                self._requests_by_size[key] = self._compile(key or _TRACED)
        requests = self._requests_by_size[key]
        request = requests.get()
        try:
            yield request
        finally:
            requests.put(request)

    def _compile(self, size: tuple[int, int]) -> queue.SimpleQueue[Any]:
        import openvino

        core = openvino.Core()
        graph = _export(self._network, size)
        sink_transposes(graph)
        if self._is_free_in_size:
            graph.reshape([-1, -1, -1, 3])
        compiled = core.compile_model(graph, "CPU", self._configuration)
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self._threads):
            requests.put(compiled.create_infer_request())
        return requests

    def _is_right_at(self, size: tuple[int, int]) -> bool:
        """Whether the graph can do other sizes than it was traced with: some layers put theirs into the graph."""
        example = np.random.default_rng(0).random((1, *size, 3), dtype=np.float32)
        whole = self._network(example)
        try:
            found = self(example)
        except RuntimeError:
            return False
        import keras

        expected = keras.ops.convert_to_numpy(whole)
        return found.shape == expected.shape and bool(np.abs(found - expected).max() < 0.02)


def _configuration(precision: Precision, threads: int) -> dict[str, Any]:
    import openvino

    has_bf16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" and has_bf16 else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        # Several processes would pin themselves to the same cores.
        "ENABLE_CPU_PINNING": False,
    }


def _export(network: Any, size: tuple[int, int]) -> Any:
    import keras
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.xml"
        # Without rows and columns, some layers keep those of the example that Keras traces the network with.
        signature = [keras.InputSpec(shape=(None, *size, 3), dtype="float32")]
        network.export(str(path), format="openvino", verbose=False, input_signature=signature)
        return openvino.Core().read_model(path)
