"""The rooms of the package: imports run downward only, from a room into itself and those below it."""

import ast
from pathlib import Path

import numba_cache
import pytest

import numba_pack
from numba_pack._cache import UNCOMPILED

PACKAGE = Path(numba_pack.__file__).parent

#: from the top; what stands side by side does not know the other, as the two engines
ROOMS = [
    ["the face"],
    ["interop"],
    ["serving"],
    ["kit"],
    ["layers"],
    ["cuda", "cpu"],
    ["batch"],
    ["losses", "optim", "data"],
    ["cells"],
    ["packing"],
    ["simd"],
    ["ground"],
]
FACE = {"__init__", "__main__"}
GROUND = {
    "_jit", "_inner", "_sparing", "_linked", "_ahead", "_cache", "_forks", "_backend", "_available", "_arguments",
    "_habits",
}  # fmt: skip

#: what is imported by name, when it is known to be needed: the arrays of the device that was found, and what reads the
#: arrays of a library that is there already
BY_NAME = {("_backend", "cuda"), ("packing.foreign", "interop")}

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}


def room_of(module):
    """The room of a module, named from the package on: ``cpu.scan``."""
    first = module.partition(".")[0]
    return "the face" if first in FACE or not first else "ground" if first in GROUND else first


FLOORS = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}


def statements(node):
    """All nodes but those that only type checkers see."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" == ast.unparse(node.test):
        children = node.orelse
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield child
        yield from statements(child)


def resolved(module, level, name):
    """The module of this package that an import names, from the package on; None if it is another's."""
    if level == 0:
        first, _, rest = name.partition(".")
        return rest if first == "numba_pack" else None
    folder = module.split(".")[:-1]
    return ".".join([*folder[: len(folder) - level + 1], *filter(None, [name])])


def imports(module):
    """All imports from this package: the module, and the name that is taken of it, or None for the module itself."""
    for node in statements(MODULES[module]):
        if isinstance(node, ast.Import):
            found = [(resolved(module, 0, alias.name), None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [(resolved(module, node.level, node.module or ""), alias.name) for alias in node.names]
        else:
            continue
        for target, name in found:
            if target is None:
                continue
            inner = f"{target}.{name}".lstrip(".")
            is_module = inner in MODULES or f"{inner}.__init__" in MODULES
            yield (inner, None) if is_module else (target, name)


def imports_by_name(module):
    """The modules of this package that are imported by a name in a string, or in the beginning of one."""
    for node in statements(MODULES[module]):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            name = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            text = name.value if isinstance(name, ast.Constant) else ""
            dots = len(text) - len(text.lstrip("."))
            if dots or text.startswith("numba_pack."):
                yield resolved(module, dots, text[dots:])


@pytest.mark.parametrize("module", [module for module in MODULES if room_of(module) in UNCOMPILED])
def test_nothing_is_compiled_in_rooms_whose_change_leaves_what_is_kept(module):
    assert not {target for target, _ in imports(module)} & {"_jit", "_inner"}
    assert not [
        node for node in ast.walk(MODULES[module]) if ast.unparse(node).startswith(("import numba", "from numba"))
    ]


def test_the_caches_of_tests_leave_out_the_same_rooms():
    assert numba_cache.UNCOMPILED == UNCOMPILED


def test_every_module_has_a_room():
    assert {room_of(module) for module in MODULES} == set(FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downward(module):
    mine = room_of(module)
    for target, name in imports(module):
        room = room_of(target)
        assert room == mine or FLOORS[room] > FLOORS[mine], f"{module} imports {name or 'itself'} of {target}"


def test_what_is_imported_upward_by_name_is_what_is_said_above():
    upward = {
        (module, room_of(target))
        for module in MODULES
        for target in imports_by_name(module)
        if room_of(target) != room_of(module) and FLOORS[room_of(target)] <= FLOORS[room_of(module)]
    }
    assert upward == BY_NAME


def test_nothing_outside_its_room_imports_cuda():
    for module, tree in MODULES.items():
        for node in statements(tree):
            if room_of(module) == "cuda" or not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            names = [f"{getattr(node, 'module', None) or ''}.{alias.name}".lstrip(".") for alias in node.names]
            of_cuda = [name for name in names if name.startswith(("numba.cuda", "numba_cuda", "cupy"))]
            assert not of_cuda, f"{module} imports {of_cuda}"


def test_the_layers_alone_import_the_engine_for_cuda():
    outside = {module for module in MODULES if any(room_of(target) == "cuda" for target, _ in imports(module))}
    assert {module for module in outside if room_of(module) != "cuda"} == {"layers.engine"}


def exported(module):
    """What a module says that it exports."""
    for node in MODULES[module].body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


@pytest.mark.parametrize("module", MODULES)
def test_other_rooms_take_what_a_module_exports(module):
    mine = room_of(module)
    for target, name in imports(module):
        if name is not None and room_of(target) != mine:
            assert not name.startswith("_"), f"{module} imports {name} of {target}"
            assert name in exported(target), f"{target}.__all__ lacks {name}, which {module} imports"
