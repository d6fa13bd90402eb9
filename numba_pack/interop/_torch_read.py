"""Kind, options and parameters of a recurrent module, in any of the forms that PyTorch has for it.

A module of torch.nn tells all by its attributes, and one that was quantized dynamically by what it has packed. Of a
TorchScript module names and shapes tell the most, as of a state dict; the rest is told by its attributes if it was
scripted, and by the call in its graph if it was traced.
"""

from __future__ import annotations

import copy
import re
from typing import Any, NamedTuple

import torch
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from .._arguments import kind_of
from ..layers.from_names import kind_by_shapes, options_by_shapes
from ..layers.module import Module, option_names
from ._torch_kinds import DYNAMIC, KINDS, computes_something_else, not_of_torch_nn, quantized_dynamically

__all__ = ["COMMON", "Found", "options_of", "read", "resolved"]

#: the options that PyTorch has, too, by the same names
COMMON = (
    "input_size", "hidden_size", "num_layers", "nonlinearity", "bias", "batch_first", "dropout", "bidirectional",
    "proj_size",
)  # fmt: skip
_BY_NAME = {torch_kind.__name__: kind for torch_kind, kind in KINDS.items()}
#: PyTorch's classes as TorchScript calls them
_SCRIPTED = re.compile(
    rf"__torch__\.(?P<room>torch\.nn\.modules\.rnn|{re.escape(DYNAMIC)})\."
    rf"(?:___torch_mangle_\d+\.)?(?P<name>{'|'.join(_BY_NAME)})"
)
#: what the graph of a traced layer has besides the call: states of zeros, and where there is one sequence its axis
_AROUND = {"Int", "ScalarImplicit", "detach", "index_select", "size", "squeeze", "unsqueeze", "zeros"}


class Found(NamedTuple):
    """What a layer is made of."""

    kind: type[Module]
    options: dict[str, Any]
    #: tensors by their names in a state dict
    parameters: dict[str, Any]


def options_of(kind: type[Module], source: Any, **known: Any) -> dict[str, Any]:
    """The options that a layer of this kind and PyTorch's module have in common, from either."""
    names = [name for name in option_names(kind) if name in COMMON]
    return {name: known[name] if name in known else getattr(source, name) for name in names}


def read(module: Any) -> Found:
    """What a layer is made of that computes as the module does."""
    torch_kind = next((torch_kind for torch_kind in KINDS if isinstance(module, torch_kind)), None)
    if torch_kind is not None:
        return _read_of_torch_nn(module, torch_kind)
    quantized = quantized_dynamically(module)
    if quantized:
        if "forward" in vars(module):
            raise TypeError(f"module must compute what {kind_of(module)} does; its forward is not that of its class")
        _computed_by_hooks(module, ())
        return _read_quantized(module, quantized)
    scripted = isinstance(module, torch.jit.ScriptModule) and _SCRIPTED.fullmatch(module._c._type().qualified_name())
    if scripted:
        return _read_script(module, scripted["room"], scripted["name"])
    reason = not_of_torch_nn(module)
    raise TypeError(
        f"module must be a torch.nn.RNN, LSTM, GRU or a cell of these; got {kind_of(module)}"
        + (f": {reason}" if reason else "")
    )


# -- torch.nn ----------------------------------------------------------------------------------------------------------


def _read_of_torch_nn(module: Any, torch_kind: Any) -> Found:
    reason = computes_something_else(module, torch_kind)
    if reason:
        raise TypeError(f"module must compute what torch.nn.{torch_kind.__name__} does; {reason}")
    options = options_of(KINDS[torch_kind], module)
    of_a_cell = ["weight_ih", "weight_hh", *["bias_ih", "bias_hh"] * bool(options["bias"])]
    names = getattr(module, "_flat_weights_names", of_a_cell)
    computed = _computed_by_hooks(module, names)
    parameters = {name: computed[name]() if name in computed else _parameter(module, name) for name in names}
    return Found(KINDS[torch_kind], options, parameters)


#: by the class of a hook that PyTorch's older utilities register: the parameter that it computes before each call, and
#: what it makes of it in evaluation
_COMPUTING_HOOKS: dict[Any, Any] = {
    WeightNorm: lambda hook, module: (hook.name, lambda: hook.compute_weight(module)),
    SpectralNorm: lambda hook, module: (hook.name, lambda: hook.compute_weight(module, do_power_iteration=False)),
    BasePruningMethod: lambda hook, module: (hook._tensor_name, lambda: hook.apply_mask(module)),
}


def _computed_by_hooks(module: Any, names: Any) -> dict[str, Any]:
    """What computes parameters before each call, by their names; all other hooks are refused."""
    found = {}
    for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
        known = next((make for kind, make in _COMPUTING_HOOKS.items() if isinstance(hook, kind)), None)
        name, compute = known(hook, module) if known else ("", None)
        if name not in names or name in found:
            shown = getattr(hook, "__qualname__", type(hook).__qualname__)
            raise TypeError(
                f"module must have no forward hooks, which a layer would not call; got {shown}: remove it before"
            )
        found[name] = compute
    return found


def _parameter(module: Any, name: str) -> Any:
    parameter = resolved(module, name)
    if not isinstance(parameter, torch.Tensor):
        raise ValueError(f"module must have the parameter {name}; got {kind_of(parameter)}")
    return parameter


def resolved(module: Any, name: str) -> Any:
    """A parameter, or what the module's parametrizations make of it in evaluation, changing nothing; None for none."""
    if parametrize.is_parametrized(module, name):
        return copy.deepcopy(module.parametrizations[name]).eval()()
    return getattr(module, name, None)


# -- quantized dynamically ---------------------------------------------------------------------------------------------


def _read_quantized(module: Any, name: str) -> Found:
    """Weights are those that the integers, or halves, stand for."""
    kind = _BY_NAME[name]
    if name.endswith("Cell"):
        packed = {"": (module._packed_weight_ih, module._packed_weight_hh)}
    else:
        suffixes = ("", "_reverse") if module.bidirectional else ("",)
        ends = [f"_l{layer}{suffix}" for layer in range(module.num_layers) for suffix in suffixes]
        cells = [part.param.__getstate__()[0][4] for part in module._all_weight_values.children()]
        packed = dict(zip(ends, cells, strict=True))
    parameters = {}
    for end, products in packed.items():
        both = [product.__getstate__()[0][:2] for product in products]
        for of, what in ((0, "weight"), (1, "bias")):
            for pair, which in zip(both, ("ih", "hh"), strict=True):
                parameters[f"{what}_{which}{end}"] = pair[of].dequantize() if pair[of].is_quantized else pair[of]
    return Found(kind, options_of(kind, None, **_by_shapes(name, parameters), **_rest(module, kind)), parameters)


# -- TorchScript -------------------------------------------------------------------------------------------------------


def _read_script(module: Any, room: str, name: str) -> Found:
    if module._c._get_forward_hooks() or module._c._get_forward_pre_hooks():
        raise TypeError("module must have no forward hooks, which a layer would not call; TorchScript compiled some")
    _computed_by_hooks(module, ())
    if room == DYNAMIC:
        return _read_quantized(module, name)
    kind, parameters = _BY_NAME[name], dict(module.named_parameters(recurse=False))
    return Found(kind, options_of(kind, None, **_by_shapes(name, parameters), **_rest(module, kind)), parameters)


def _by_shapes(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The options that follow from names and shapes."""
    try:
        kind, cell = kind_by_shapes(parameters, 1)
        if kind is not _BY_NAME[name]:
            raise ValueError(f"they are those of {kind.__name__}")
        return options_by_shapes(kind, cell, parameters, 1)
    except ValueError as error:
        raise ValueError(f"module must have the parameters of torch.nn.{name}; {error}") from error


def _rest(module: Any, kind: type[Module]) -> dict[str, Any]:
    """The options that names and shapes do not tell."""
    if hasattr(module, "hidden_size"):  # scripted: options are there as they were
        return {
            name: getattr(module, name) for name in ("nonlinearity", "batch_first", "dropout") if hasattr(module, name)
        }
    nodes = [node for node in module.graph.nodes() if not node.kind().startswith("prim::")]
    if "Cell" in kind.__name__:
        return {"nonlinearity": "relu" if any("relu" in node.kind() for node in nodes) else "tanh"}
    calls = [node for node in nodes if node.kind() in ("aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu")]
    others = {node.kind().removeprefix("aten::") for node in nodes if node not in calls} - _AROUND
    if len(calls) != 1 or others:
        got = f"{len(calls)} calls and {', '.join(sorted(others)) or 'nothing'}"
        raise TypeError(f"module must compute what torch.nn.{kind.__name__} does; its graph has {got} besides")
    names = [argument.name for argument in torch._C.parse_schema(calls[0].schema()).arguments]
    given = {name: value.toIValue() for name, value in zip(names, calls[0].inputs(), strict=True)}
    return {
        "nonlinearity": calls[0].kind().rpartition("_")[2],
        "batch_first": bool(given.get("batch_first")),  # of packed input nothing tells, nor is it needed
        "dropout": given["dropout"],
    }
