"""The package as a whole: its public names, its start-up, the direction of its imports."""

import ast
import inspect
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from itertools import chain
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import kava

SOURCE = Path(kava.__file__).parent

HOUSE = SOURCE.parents[1] / "scripts/house.py"
house = SourceFileLoader("house", str(HOUSE)).load_module()

PLACE_OF = {part: place for place, part in enumerate(chain(*house.FLOORS.values()))}
# Pure tensors: usable and testable without any model.
PURE = {*house.FLOORS["caches: pure tensors"]}
MODEL_LIBRARIES = {"transformers", "accelerate", "peft", "datasets"}
HEAVY = {*MODEL_LIBRARIES, "torch", "numpy", "scipy", "matplotlib", "tensorboard"}


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """The line and dotted name of all that a file imports, in functions and in strings too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, one.name) for one in node.names if "kava" not in one.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; name the package"
            if str(node.module).split(".")[0] != "kava":
                yield node.lineno, str(node.module)
    yield from (item for item in house.imported_names(tree) if item[1] != "kava.__version__")


def violations(source: Path) -> list[str]:
    """What points the wrong way below `source`, each with its file and line."""
    found = []
    for path in sorted(source.rglob("*.py")):
        part = path.relative_to(source).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        if part not in PLACE_OF:
            found.append(f"{path}: {part!r} has no place in FLOORS")
            continue
        for line, name in sorted({*imports_of(path)}):
            top, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if top == "kava" and other not in PLACE_OF:
                found.append(f"{path}:{line} imports {name}, which has no place in FLOORS")
            elif top == "kava" and PLACE_OF[other] > PLACE_OF[part]:
                found.append(f"{path}:{line} imports {name}, which stands above {part}")
            elif part in PURE and top in MODEL_LIBRARIES:
                found.append(f"{path}:{line} imports {name}, but {part} is pure tensors")
    return found


def python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_imports_point_one_way() -> None:
    assert violations(SOURCE) == []


def test_nothing_imports_in_a_circle() -> None:
    assert house.circles(house.import_graph()) == []


def test_files_are_short() -> None:
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in SOURCE.rglob("*.py")}
    assert [f"{path}: {n}" for path, n in lines.items() if n > house.LONG_FILE] == []


def test_the_picture_of_the_house_shows_every_part() -> None:
    svg = (SOURCE.parents[1] / "docs/images/architecture.svg").read_text(encoding="utf-8")
    assert re.findall(r'class="part">(\w+)<', svg) == [
        part for parts in reversed(house.FLOORS.values()) for part in parts
    ]


@pytest.mark.parametrize(
    ("graph", "found", "longest"),
    [
        ({"a": ["b"], "b": ["c"], "c": []}, [], 3),
        ({"a": ["b"], "b": ["a"], "c": ["a"]}, [["a", "b"]], 2),
        ({"a": ["b", "c"], "b": ["d"], "c": ["b"], "d": ["c"]}, [["b", "c", "d"]], 2),
        ({"a": [], "b": []}, [], 1),
    ],
)
def test_circles_and_depth_of_a_graph(
    graph: dict[str, list[str]], found: list[list[str]], longest: int
) -> None:
    assert house.circles(graph) == found
    assert len(house.depth(graph)) == longest


@pytest.mark.parametrize(
    "line",
    [
        "from kava.b import x",
        "def f():\n    from kava.b import x",
        "if TYPE_CHECKING:\n    from kava.b import x",
        "import kava.b",
        "from kava import b",
        'import_module("kava.b")',
        'names = {"x": "kava.b"}',
    ],
)
def test_every_kind_of_import_is_seen(tmp_path: Path, line: str) -> None:
    source = tmp_path / "kava"
    source.mkdir()
    (source / "__init__.py").write_text("")
    (source / "a.py").write_text(line + "\n")
    (source / "b.py").write_text("x = 1\n")
    assert house.import_graph(source) == {"kava.a": {"kava.b"}, "kava.b": set()}


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("trace.py", "from kava.eviction.base import compress", "stands above trace"),
        ("align/aligner.py", "def f():\n    import kava.models.capture", "stands above align"),
        ("student/latent.py", "from kava import train", "stands above student"),
        ("losses/kv.py", "from transformers.cache_utils import Cache", "pure tensors"),
        ("demo/run.py", "import kava.cli", "stands above demo"),
        ("train/loop.py", "from kava.nowhere import x", "no place in FLOORS"),
        ("mystery.py", "", "no place in FLOORS"),
    ],
)
def test_an_import_that_points_back_is_found_and_named(
    tmp_path: Path, file: str, line: str, complaint: str
) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"import torch\nfrom kava.errors import KavaError\n{line}\n")
    (found,) = violations(tmp_path)
    assert str(path) in found
    assert complaint in found


@pytest.mark.parametrize(
    "program",
    [
        "import kava; dir(kava); kava.__version__",
        "from typer.testing import CliRunner; from kava.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0",
        "from typer.testing import CliRunner; from kava.cli import app\n"
        "assert CliRunner().invoke(app, ['--version']).exit_code == 0",
    ],
    ids=["import kava", "kava --help", "kava --version"],
)
def test_starting_up_loads_nothing_heavy(program: str) -> None:
    loaded = python(f"{program}\nimport sys; print(*sys.modules)").split()
    assert HEAVY.isdisjoint(loaded)


@pytest.mark.parametrize("name", [name for name in kava.__all__ if name != "__version__"])
def test_every_public_name_resolves(name: str) -> None:
    value = getattr(kava, name)
    assert callable(value)
    assert value.__doc__
    assert isinstance(value, type | FunctionType | ModuleType)


def test_the_lists_of_public_names_agree() -> None:
    """The lazy table, `__all__` and the imports that type checkers read."""
    tree = ast.parse(Path(kava.__file__).read_text(encoding="utf-8"))
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == kava._MODULE_OF
    assert {*kava.__all__} == {*typed, "__version__"}
    assert {*kava.__all__} <= {*dir(kava)}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'comprss'"):
        _ = kava.comprss
    with pytest.raises(ImportError):
        from kava import comprss  # noqa: F401


def test_public_functions_are_plain_functions() -> None:
    for name in ("capture", "compress"):
        function = getattr(kava, name)
        assert isinstance(function, FunctionType)
        assert pickle.loads(pickle.dumps(function)) is function
    assert "target_len" in inspect.signature(kava.compress).parameters


def test_every_page_is_in_the_index_and_every_link_leads_somewhere() -> None:
    root = SOURCE.parent.parent
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    links = {
        (page, (page.parent / target).resolve())
        for page in pages
        for target in re.findall(r"\]\(([^)#:\s]+)[^):]*\)", page.read_text(encoding="utf-8"))
    }
    broken = sorted(f"{page.name} links {path}" for page, path in links if not path.exists())
    assert broken == []
    index = {path for page, path in links if page == root / "docs" / "README.md"}
    assert {page.resolve() for page in pages} - {root / "docs" / "README.md"} <= index
