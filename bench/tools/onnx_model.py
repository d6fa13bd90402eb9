"""A recurrent net as an ONNX model, for the peers that run those."""

import numpy as np

from bench.tools.environment import load
from bench.tools.workloads import GATES

#: where ONNX's gates stand among PyTorch's: LSTM i, o, f, g among i, f, g, o; GRU z, r, n among r, z, n
_ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
_STATES = {"LSTM": ("h", "c"), "GRU": ("h",), "RNN": ("h",)}


def onnx_model(workload, parameters, T, sequence_lens=False, state=False):
    """Bytes of a model from "X" (T, B, I) to "Y" (T, D, B, H), D being the directions of the last layer.

    With ``sequence_lens`` it has an input of that name, (B,) int32. With ``state`` it takes "h_0" and, for an LSTM,
    "c_0", each (D, B, H), and gives "h_n" and "c_n"; it then has one layer.
    """
    onnx = load("onnx")
    helper = onnx.helper
    B, D, H = workload.B, workload.directions, workload.H
    real = helper.np_dtype_to_tensor_dtype(np.dtype(workload.dtype))
    wide = [("X", real, [T, B, workload.input_size])]
    wide += [("sequence_lens", onnx.TensorProto.INT32, [B])] * sequence_lens
    states = _STATES[workload.cell] if state else ()
    wide += [(f"{s}_0", real, [D, B, H]) for s in states]
    results = [("Y", real, [T, D, B, H])] + [(f"{s}_n", real, [D, B, H]) for s in states]

    nodes, constants, below = [], {"rows": np.array([T, B, D * H])}, "X"
    attributes = {"hidden_size": H, "direction": "bidirectional" if workload.bidirectional else "forward"}
    if workload.cell == "GRU":
        attributes["linear_before_reset"] = 1
    for k in range(workload.layers):
        constants |= {f"{name}{k}": value for name, value in _weights(workload, parameters, k).items()}
        last = k == workload.layers - 1
        lengths = "sequence_lens" if sequence_lens else ""
        takes = [below, f"W{k}", f"R{k}", f"B{k}", lengths, *[f"{s}_0" for s in states]]
        gives = ["Y" if last else f"Y{k}", *[f"{s}_n" for s in states]]
        nodes.append(helper.make_node(workload.cell, takes, gives, **attributes))
        if not last:  # (T, D, B, H) -> (T, B, D * H)
            nodes.append(helper.make_node("Transpose", [f"Y{k}"], [f"turned{k}"], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", [f"turned{k}", "rows"], [f"X{k + 1}"]))
            below = f"X{k + 1}"
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(*value) for value in wide],
        [helper.make_tensor_value_info(*value) for value in results],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8).SerializeToString()


def _weights(workload, parameters, layer):
    """W (D, G, I), R (D, G, H) and B (D, 2 G) of one layer."""
    order, gates, H = list(_ORDER[workload.cell]), GATES[workload.cell], workload.H

    def turned(name):
        value = parameters[name]
        return value.reshape(gates, H, *value.shape[1:])[order].reshape(value.shape)

    ends = [f"_l{layer}{suffix}" for suffix in ("", "_reverse")[: workload.directions]]
    return {
        "W": np.stack([turned("weight_ih" + end) for end in ends]),
        "R": np.stack([turned("weight_hh" + end) for end in ends]),
        "B": np.stack([np.concatenate([turned("bias_ih" + end), turned("bias_hh" + end)]) for end in ends]),
    }
