"""What PyTorch does in these tests is the same in every run, and what they train is trained here."""

import sys

import pytest


@pytest.fixture(autouse=True)
def one_thread_and_a_seed():
    """Where a test has PyTorch; the others do not import it for this."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch):
    """Calls of few steps are not left to PyTorch, else it would be compared with itself."""
    modules = sys.modules.get("numba_pack.interop._torch_modules")
    if modules is not None:
        monkeypatch.setattr(modules, "is_left", lambda *_: False)
