"""What the README shows runs as it stands there, and what it names is there."""

import re
from pathlib import Path

import guide
import pytest

ROOT = Path(__file__).resolve().parents[2]
README, CONTRIBUTING = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md"))
BLOCKS = re.findall(r"^```python\n.*?^```$(?:\n```text\n.*?^```$)?", README, flags=re.DOTALL | re.MULTILINE)
PACKAGE = ROOT / "numba_pack"
PAGES = [path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *ROOT.glob("examples/**/*.md"))]


@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_of_the_readme_runs_alone(block):
    guide.run(Path("README.md"), block)


def test_the_readme_shows_a_net_a_batch_a_cell_and_compiled_code():
    shown = "\n".join(BLOCKS)
    for word in ("nbp.LSTM", ".backward(", ".map(", ".each(", ".lengths", ".astype(", "@cell(", "@njit"):
        assert word in shown


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_files_that_a_page_links_to_are_there(page):
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text(encoding="utf-8")):
        assert (ROOT / page.parent / link).exists(), link


def test_the_readme_has_all_rooms():
    names = {f"{path.name}/" if path.is_dir() else path.name for path in PACKAGE.iterdir()}
    names -= {"__init__.py", "__pycache__/", "py.typed"}
    rooms = README.partition("\n| room |")[2].partition("\n\n")[0]
    assert names == set(re.findall(r"`(\w+(?:\.py|/))`", rooms.replace("`python -m numba_pack`", "")))


def test_the_map_of_the_house_names_each_file():
    rooms = {}
    for row in CONTRIBUTING.partition("\n| room | files |\n")[2].partition("\n\n")[0].splitlines()[1:]:
        room, files = row.strip("| ").split(" | ")
        rooms[room.strip("`/")] = set(re.findall(r"`([a-z]\w*\.py)`", files))
    for folder in (path for path in PACKAGE.iterdir() if (path / "__init__.py").exists()):
        files = {path.name for path in folder.glob("[a-z]*.py") if "\n@cell(" not in path.read_text(encoding="utf-8")}
        assert files - rooms[folder.name] == rooms[folder.name] - files == set(), folder.name
