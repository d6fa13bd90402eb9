"""Ctrl-C at every line of a module, one after the other."""

import sys
from pathlib import Path


def interrupted(call, number, *modules):
    """Whether Ctrl-C came: before a line of the modules, counted as they run, if the call has as many.

    Lines with ``with`` do not count: a tracer sees them again as they are left, where Python lets no signal in.
    """
    sources = {module.__file__: Path(module.__file__).read_text(encoding="utf-8").splitlines() for module in modules}
    left = number

    def trace(frame, event, argument):
        nonlocal left
        source = sources.get(frame.f_code.co_filename)
        if source is None:
            return None
        if event == "line" and not source[frame.f_lineno - 1].lstrip().startswith("with "):
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False
