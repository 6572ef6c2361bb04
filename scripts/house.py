"""Print the shape of the package: its parts, how deep imports go, circles, long files.

    python scripts/house.py            # one line for each part, then the totals
    python scripts/house.py --circles  # the files of each circle too

Every import counts: at the top of a file, inside a function, under TYPE_CHECKING, and the module
names in strings that `import_module` is given. Depth is the longest chain of files that import one
another, a circle counting as one file.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src/kava"
LONG_FILE = 350


def module_name(path: Path, source: Path = SOURCE) -> str:
    """The dotted name of a file below the package.

    Example:
        >>> module_name(SOURCE / "align/heads.py"), module_name(SOURCE / "align/__init__.py")
        ('kava.align.heads', 'kava.align')
    """
    parts = path.relative_to(source.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(tree: ast.AST, package: str = "kava") -> Iterator[tuple[int, str]]:
    """Line and dotted name of all that a file imports from the package, in strings too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == package:
                    yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            if node.module.split(".")[0] == package:
                for alias in node.names:
                    yield node.lineno, f"{node.module}.{alias.name}"
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.startswith(f"{package}.")
            and node.value.replace(".", "").replace("_", "").isalnum()
        ):
            yield node.lineno, node.value


def import_graph(source: Path = SOURCE) -> dict[str, set[str]]:
    """What each file of the package imports, as dotted names.

    The package's own `__init__` is left out: it lists names and loads nothing.
    """
    trees = {
        module_name(path, source): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(source.rglob("*.py"))
    }
    graph: dict[str, set[str]] = {}
    for name, tree in trees.items():
        if name == source.name:
            continue
        found = set()
        for _, dotted in imported_names(tree, source.name):
            while dotted not in trees:
                dotted = dotted.rpartition(".")[0]
                if not dotted:
                    break
            if dotted and dotted not in (name, source.name):
                found.add(dotted)
        graph[name] = found
    return graph


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The groups of nodes that reach one another (Tarjan), of two and more, sorted.

    Example:
        >>> circles({"a": ["b"], "b": ["a"], "c": ["a"]})
        [['a', 'b']]
    """
    return sorted(group for group in _components(graph) if len(group) > 1)


def depth(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """The longest chain of imports, from its top; a circle stands in it once.

    Example:
        >>> depth({"a": ["b", "c"], "b": ["c"], "c": []})
        ['a', 'b', 'c']
    """
    home: dict[str, int] = {}
    chains: list[list[str]] = []
    for number, group in enumerate(_components(graph)):  # imported ones come first
        home.update(dict.fromkeys(group, number))
        below = {home[other] for name in group for other in graph[name]} - {number}
        longest = max((chains[other] for other in below), key=len, default=[])
        chains.append([group[0], *longest])
    return max(chains, key=len, default=[])


def _components(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Strongly connected components, each after those that it leads to."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in index:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == index[name]:
            group = []
            while not group or group[-1] != name:
                group.append(stack.pop())
            found.append(sorted(group))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return found


def part_of(name: str) -> str:
    """The part that a dotted name belongs to: its folder or file right below the package."""
    return name.split(".")[1]


def homes_of(kind: type[ast.stmt], source: Path = SOURCE) -> dict[str, set[str]]:
    """Where each top-level name of a kind (class, function) is defined."""
    homes = defaultdict(set)
    for path in sorted(source.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, kind) and not node.name.startswith("_"):  # type: ignore[attr-defined]
                homes[node.name].add(module_name(path, source))  # type: ignore[attr-defined]
    return homes


def main() -> None:
    """Print what the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--circles", action="store_true", help="name the files of each circle")
    args = parser.parse_args()

    graph = import_graph()
    lines = {
        module_name(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in SOURCE.rglob("*.py")
    }
    parts: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for name, count in lines.items():
        if name != "kava":
            parts[part_of(name)] += count
            files[part_of(name)] += 1
    print(f"{'part':22s}{'files':>7s}{'lines':>8s}")
    for part in sorted(parts, key=lambda one: -parts[one]):
        print(f"{part:22s}{files[part]:7d}{parts[part]:8,d}")

    between = {
        part: {part_of(other) for name in graph if part_of(name) == part for other in graph[name]}
        - {part}
        for part in parts
    }
    of_files, of_parts, chain = circles(graph), circles(between), depth(graph)
    functions = homes_of(ast.FunctionDef)
    twice = {name for name, homes in homes_of(ast.ClassDef).items() if len(homes) > 1}
    too_long = sorted(name for name, count in lines.items() if count > LONG_FILE)
    print(f"\nparts {len(parts)}, files {len(lines)}, lines {sum(lines.values()):,}")
    print(f"depth {len(chain)}: {' > '.join(chain)}")
    print(f"circles of files {len(of_files)}, of parts {len(of_parts)}")
    if args.circles:
        for group in [*of_files, *of_parts]:
            print(f"  {', '.join(group)}")
    print(f"public functions {len(functions)}, classes in several files {len(twice)}: ", end="")
    print(", ".join(sorted(twice)) or "none")
    print(f"files over {LONG_FILE} lines: {', '.join(too_long) or 'none'}")


if __name__ == "__main__":
    main()
