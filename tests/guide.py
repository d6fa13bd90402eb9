"""Pages with code: each block of Python runs, and prints what the block of text after it shows."""

import contextlib
import doctest
import io
import re

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
#: "..." in what is shown stands for anything
SHOWN = doctest.ELLIPSIS


def run(page, text, names=None):
    """Run the code of a page from top to bottom; return the names that it has made."""
    names = {"__name__": page.stem} if names is None else names
    blocks = [match.groups() for match in BLOCK.finditer(text)]
    for (kind, code), (after, shown) in zip(blocks, [*blocks[1:], ("", "")], strict=False):
        if kind == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(code, str(page), "exec"), names)
            shown, printed = shown if after == "text" else "", printed.getvalue()
            assert doctest.OutputChecker().check_output(shown, printed, SHOWN), f"{code}\nprints\n{printed}"
    return names
