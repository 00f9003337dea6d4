"""Make a graph that Keras exported to OpenVINO run as fast as its convolutions can.

Keras keeps channels last and wraps every convolution, which OpenVINO wants with channels first, in two transpositions.
What stands between two convolutions (a bias, an activation, a sum) keeps OpenVINO from cancelling them, and they took
half of the time. Here each transposition is moved behind what follows it, until it meets its inverse.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

# Each computes every value from the value at the same place, of one input or of several.
_ELEMENTWISE: Final = frozenset(
    {"Add", "Clamp", "Elu", "Maximum", "Minimum", "Multiply", "PRelu", "Relu", "Sigmoid", "Subtract", "Swish", "Tanh"}
)


def sink_transposes(model: Any) -> None:
    """Move transpositions towards the outputs and drop those that undo each other; the results stay the same.

    Parameters
    ----------
    model : openvino.Model
        Changed in place.
    """
    from openvino.passes import ConstantFolding, Manager

    # Keras casts every value to the dtype that it has, and computes on its constants.
    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(model)
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "Convert" and node.get_element_type() == node.input_value(0).get_element_type():
            node.output(0).replace(node.input_value(0))
        elif kind == "Transpose":
            _cancel(node)
        elif kind in _ELEMENTWISE:
            _sink_below(node)
    model.validate_nodes_and_infer_types()


def _cancel(transpose: Any) -> None:
    """Bypass a transposition of what another one has just transposed the other way."""
    before = transpose.input_value(0).get_node()
    first, second = _order(before), _order(transpose)
    if first and second and [first[axis] for axis in second] == sorted(second):
        transpose.output(0).replace(before.input_value(0))


def _sink_below(node: Any) -> None:
    """Transpose the result of `node` instead of its inputs, if those are transposed alike or constant."""
    from openvino import opset13

    sources = [source.get_source_output().get_node() for source in node.inputs()]
    orders = [_order(source) for source in sources]
    known = [order for order in orders if order is not None]
    if not known or any(order != known[0] for order in known):
        return
    if any(
        order is None and source.get_type_name() != "Constant" for source, order in zip(sources, orders, strict=True)
    ):
        return
    order = known[0]
    for place, source, own in zip(node.inputs(), sources, orders, strict=True):
        if own is not None:
            place.replace_source_output(source.input_value(0))
        elif source.get_data().size > 1:
            values = source.get_data()
            aligned = values.reshape((1,) * (len(order) - values.ndim) + values.shape)
            turned = np.ascontiguousarray(aligned.transpose(np.argsort(order)))
            place.replace_source_output(opset13.constant(turned).output(0))
    targets = node.output(0).get_target_inputs()
    node.validate_and_infer_types()
    after = opset13.transpose(node.output(0), opset13.constant(np.array(order, np.int64)))
    for target in targets:
        target.replace_source_output(after.output(0))


def _order(node: Any) -> list[int] | None:
    """Return the order of the axes that a transposition makes; None if `node` is none, or its order no constant."""
    if node.get_type_name() != "Transpose" or node.input_value(1).get_node().get_type_name() != "Constant":
        return None
    return [int(axis) for axis in node.input_value(1).get_node().get_data()]
