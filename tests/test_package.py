"""The package as a whole: its public names, its start-up, the direction of its imports."""

import ast
import inspect
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import kava

SOURCE = Path(kava.__file__).parent

# A part may import itself and the parts before it.
PARTS = (
    *("errors", "lazy", "stopping", "format", "files", "inputs", "names", "flags"),
    *("dataset_names", "attention", "trace", "segments", "rope", "eviction", "align", "losses"),
    *("data", "models", "fit", "student", "importance", "train", "profile", "jobs"),
    *("statistics", "evaluate", "study", "pictures", "report", "demo", "commands"),
    *("cli", "__main__"),
)
PLACE_OF = {part: place for place, part in enumerate(PARTS)}
# Pure tensors: usable and testable without any model.
PURE = {"attention", "trace", "segments", "rope", "eviction", "align", "losses"}
MODEL_LIBRARIES = {"transformers", "accelerate", "peft", "datasets"}
HEAVY = {*MODEL_LIBRARIES, "torch", "numpy", "scipy", "matplotlib", "tensorboard"}


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """The line and dotted name of everything a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; name the package"
            if node.module == "kava":  # `from kava import rope` names a part
                yield from (
                    (node.lineno, f"kava.{alias.name}")
                    for alias in node.names
                    if alias.name != "__version__"
                )
            else:
                yield node.lineno, str(node.module)


def violations(source: Path) -> list[str]:
    """What points the wrong way below `source`, each with its file and line."""
    found = []
    for path in sorted(source.rglob("*.py")):
        part = path.relative_to(source).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        if part not in PLACE_OF:
            found.append(f"{path}: {part!r} has no place in PARTS")
            continue
        for line, name in imports_of(path):
            top, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if top == "kava" and other not in PLACE_OF:
                found.append(f"{path}:{line} imports {name}, which has no place in PARTS")
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


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("trace.py", "from kava.eviction.base import compress", "stands above trace"),
        ("align/aligner.py", "def f():\n    import kava.models.capture", "stands above align"),
        ("student/latent.py", "from kava import train", "stands above student"),
        ("losses/kv.py", "from transformers.cache_utils import Cache", "pure tensors"),
        ("demo/run.py", "import kava.cli", "stands above demo"),
        ("train/loop.py", "from kava.nowhere import x", "no place in PARTS"),
        ("mystery.py", "", "no place in PARTS"),
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
