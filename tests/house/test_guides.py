"""The guides run as they stand, from the root of the repository, and their index names them all."""

import re
from pathlib import Path

import guide
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
PAGES = sorted((EXAMPLES / "guides").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_guide_runs_and_prints_what_it_shows(page, monkeypatch):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"^Needs: `(\w+)`", text, flags=re.MULTILINE):
        pytest.importorskip(name, reason=f"{page.name} is about it")
    monkeypatch.chdir(ROOT)
    guide.run(page, text)


def test_the_index_has_every_guide_and_every_example():
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([\w/]+\.(?:md|py))\)", index))
    scripts = {path.relative_to(EXAMPLES).as_posix() for path in (*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*/*.py"))}
    helpers = {name for name in scripts if "__main__" not in (EXAMPLES / name).read_text(encoding="utf-8")}
    assert {f"guides/{page.name}" for page in PAGES} | (scripts - helpers) <= linked
