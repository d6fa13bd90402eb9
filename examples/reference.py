"""Make the API reference of what docstrings say, with Sphinx and numpydoc.

There is a page for each public module, with all that its ``__all__`` names. What stands in single backticks is a name:
an argument, an attribute of a class, a public name of this library, or one of another that is installed. Where there
is none, as after a renaming, it is told and the reference has failed, as it has for what else Sphinx and numpydoc find.

    python examples/reference.py
    python examples/reference.py --output build/reference
"""

import argparse
import contextlib
import importlib
import inspect
import re
import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

FACE = "numba_pack"
MODULES = (
    "cells",
    "losses",
    "optim",
    "data",
    "serving",
    "interop",
    "interop.torch",
    "interop.onnx",
    "interop.keras",
    "interop.ray",
)
PAGES = [FACE, *(f"{FACE}.{name}" for name in MODULES)]
SETTINGS = {
    "project": FACE,
    "extensions": ["sphinx.ext.autodoc", "sphinx.ext.mathjax", "numpydoc"],
    "html_theme": "alabaster",
    "html_theme_options": {"description": "Packed recurrent nets for NumPy", "page_width": "68rem"},
    "add_module_names": False,
    "autodoc_typehints": "none",
    "default_role": "literal",
    "numpydoc_show_class_members": False,
    "nitpicky": True,
}
#: the initials of who wrote a paper, which are no number of a list
INITIAL = re.compile(r"^( *)([A-Z]\. )")
#: "(N, *)" is a shape, and not the beginning of an emphasis; what is literal already stays
STAR = re.compile(r"(``.*?``)|(?<=[ (])\*(?=[,)])")
NAME = re.compile(r"(?<![`:\w])`([A-Za-z_][\w.]*)`(?![`_\w])")


def main():
    arguments = parse_arguments()
    target = arguments.output
    source = target / "source"
    shutil.rmtree(target, ignore_errors=True)
    source.mkdir(parents=True)
    names = [name for name in PAGES if can_be_imported(name)]
    for name in names:
        (source / f"{name}.rst").write_text(page(name), encoding="utf-8")
    index = heading(FACE) + ".. toctree::\n\n   " + "\n   ".join(names) + "\n"
    (source / "index.rst").write_text(index, encoding="utf-8")
    app = Sphinx(source, None, target, target / "doctrees", "html", SETTINGS, status=None, warningiserror=True)
    app.connect("autodoc-process-docstring", link_names, priority=100)  # before numpydoc
    app.build()
    print(f"The reference is in {target / 'index.html'}")
    sys.exit(app.statuscode)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("build/reference"), help="default: %(default)s")
    return parser.parse_args()


# ---- pages -----------------------------------------------------------------------------------------------------------


def can_be_imported(name):
    """Whether the library that a module is a door to is installed; the module is left out if it is not."""
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"{name} is left out: {error}")
        return False
    return True


def page(name):
    """A module's docstring, and each public name of it."""
    parts = [heading(name), f".. automodule:: {name}\n"]
    for public, value in publics(name):
        if inspect.isclass(value):
            options = ["members:", "special-members: __call__", *["inherited-members: tuple"] * is_ours(value)]
            parts.append(f".. autoclass:: {name}.{public}\n" + "".join(f"   :{option}\n" for option in options))
        elif inspect.isroutine(value):
            parts.append(f".. autofunction:: {name}.{public}\n")
        elif not inspect.ismodule(value):
            parts.append(f".. autodata:: {name}.{public}\n   :no-value:\n")
    return "\n".join(parts)


def publics(name):
    """What ``__all__`` of a module names, but for doors of libraries that are not installed."""
    module = importlib.import_module(name)
    for public in module.__all__:
        with contextlib.suppress(ImportError):
            yield public, getattr(module, public)


def is_ours(kind):
    """Whether all that it inherits is described here, as it is not of PyTorch's modules and ONNX's backends."""
    return all(base.__module__.startswith((FACE, "builtins", "typing")) for base in kind.__mro__)


def heading(text):
    return f"{text}\n{'=' * len(text)}\n\n"


# ---- names -----------------------------------------------------------------------------------------------------------


def link_names(app, what, name, obj, options, lines):
    """Turn the names in single backticks into references, or into literals if they are described elsewhere.

    Those of a module are looked up, and stay as they are, since it has tables, whose columns would move.
    """
    for i, line in enumerate(lines):
        with_links = NAME.sub(lambda found: linked(found[1], name, obj), line)
        line = line if what == "module" else with_links
        lines[i] = INITIAL.sub(r"\1\\\2", STAR.sub(lambda found: found[1] or r"\*", line))


def linked(text, name, obj):
    module = max((page for page in PAGES if f"{name}.".startswith(f"{page}.")), key=len)
    within = name.removeprefix(module).strip(".").partition(".")[0]
    if text in arguments_of(obj):
        return f"``{text}``"
    for place in [""] * ("." in text) + [f"{module}.{within}"] * bool(within) + [module, FACE, "builtins"]:
        whole = f"{place}.{text}" if place else text
        if exists(whole):
            return f":py:obj:`{text} <{whole}>`" if whole.startswith(f"{FACE}.") or whole == FACE else f"``{text}``"
    if not is_of_a_class(text, module):
        getLogger(__name__).warning("nothing is called %r", text, location=name)
    return f"``{text}``"


def arguments_of(obj):
    try:
        return {*inspect.signature(obj).parameters, *getattr(obj, "_fields", ())}
    except (TypeError, ValueError):
        return set()


def is_of_a_class(text, module):
    """Whether a public class has it, as layers have ``forward``: a name of several things is a link to none."""
    found = [value for place in (module, FACE) for _, value in publics(place)]
    return any(inspect.isclass(value) and hasattr(value, text) for value in found)


def exists(whole):
    """Whether there is something of this name; a module that is not installed may have it."""
    parts = whole.split(".")
    for n in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        except ImportError:  # a door of a library that is not installed
            return True
        for part in parts[n:]:
            try:
                value = getattr(value, part)
            except ImportError:  # the same, opened by the package that it is in
                return True
            except AttributeError:
                return part in getattr(value, "__annotations__", ())
        return True
    return False


if __name__ == "__main__":
    main()
