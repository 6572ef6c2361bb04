"""Print the shape of the package: its parts, how deep imports go, circles, long files.

    python scripts/house.py                 # one line for each part, then the totals
    python scripts/house.py --circles       # the files of each circle too
    python scripts/house.py --svg house.svg # the picture of docs/architecture.md

Every import counts for circles: at the top of a file, inside a function, under TYPE_CHECKING, and
the module names in strings that `import_module` is given. Depth is the longest chain of imports, a
circle counting as one: between parts, and between files by what their top loads, where names that a
package's `__init__` hands on count as imports of the file that they are in.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src/kava"
LONG_FILE = 350

FLOORS = {
    "base: files, flags, text": (
        *("errors", "lazy", "stopping", "ranks", "format", "files", "inputs", "names", "flags"),
        *("machine", "dataset_names", "data_settings"),
    ),
    "caches: pure tensors": (
        *("attention", "trace", "segments", "rope", "eviction", "align", "fuse"),
        *("losses", "shared"),
    ),
    "data and models": ("data", "models", "store", "fit", "student", "importance"),
    "training": ("train", "extract", "profile", "jobs"),
    "experiments": ("statistics", "evaluate", "study", "curriculum", "cluster"),
    "reports": ("pictures", "report", "demo", "share"),
    "the command line": ("commands", "cli", "__main__"),
}
"""The parts from the ground up: a part may import those before it, on its floor or below."""


def module_name(path: Path, source: Path = SOURCE) -> str:
    """The dotted name of a file below the package.

    Example:
        >>> module_name(SOURCE / "align/heads.py"), module_name(SOURCE / "align/__init__.py")
        ('kava.align.heads', 'kava.align')
    """
    parts = path.relative_to(source.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(tree: ast.AST, source: Path = SOURCE) -> Iterator[tuple[int, str]]:
    """Line and dotted name of all that a file imports from the package.

    A string counts where it is the name of a module that is there.
    """
    package = source.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == package:
                    yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            if node.module.split(".")[0] == package:
                for alias in node.names:
                    yield node.lineno, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value
            if re.fullmatch(rf"{package}(\.\w+)+", name):
                path = source.parent.joinpath(*name.split("."))
                if path.is_dir() or path.with_suffix(".py").is_file():
                    yield node.lineno, name


def import_graph(source: Path = SOURCE) -> dict[str, set[str]]:
    """What each file of the package imports, anywhere in it, as dotted names.

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
        for _, dotted in imported_names(tree, source):
            while dotted not in trees:
                dotted = dotted.rpartition(".")[0]
                if not dotted:
                    break
            if dotted and dotted not in (name, source.name):
                found.add(dotted)
        graph[name] = found
    return graph


def loading_graph(source: Path = SOURCE) -> dict[str, set[str]]:
    """What each file loads by the imports at its top, through `__init__` files to where it is."""
    trees = {
        module_name(path, source): (path.name == "__init__.py", ast.parse(path.read_text("utf-8")))
        for path in sorted(source.rglob("*.py"))
    }

    def home(module: str, name: str) -> str:
        """Where a name comes from that a file takes from a module."""
        if f"{module}.{name}" in trees:
            return f"{module}.{name}"
        is_face, tree = trees[module]
        if is_face:
            for node in tree.body:
                if (
                    isinstance(node, ast.ImportFrom)
                    and node.module in trees
                    and name in {alias.asname or alias.name for alias in node.names}
                ):
                    return home(node.module, name)
        return module

    return {
        name: {
            found
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module in trees
            for alias in node.names
            if not trees[found := home(node.module, alias.name)][0] and found != name
        }
        for name, (is_face, tree) in trees.items()
        if not is_face
    }


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


def picture() -> str:
    """The parts as an SVG: a floor for each kind, a box for each part, as wide as it has lines."""
    lines: Counter[str] = Counter()
    for path in SOURCE.rglob("*.py"):
        name = module_name(path)
        if name != "kava":
            lines[part_of(name)] += len(path.read_text(encoding="utf-8").splitlines())
    width, height, label = 960, 46, 190
    rows = []
    for floor, (title, parts) in enumerate(reversed(FLOORS.items())):
        y = 14 + floor * (height + 10)
        rows.append(f'<text x="12" y="{y + 28}" class="floor">{title}</text>')
        room = width - label - 12 - 6 * (len(parts) - 1)
        # a part with few lines still has room for its name
        wanted = {part: max(lines[part] ** 0.5, 2.1 * len(part) + 6) for part in parts}
        scale = min(room / sum(wanted.values()), 4.4)
        x = float(label)
        for part in parts:
            wide = wanted[part] * scale
            rows.append(
                f'<rect x="{x:.0f}" y="{y}" width="{wide:.0f}" height="{height}" rx="4"/>'
                f'<text x="{x + wide / 2:.0f}" y="{y + 28}" class="part">{part}</text>'
            )
            x += wide + 6
    total = 14 + len(FLOORS) * (height + 10) + 26
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" role="img"'
            ' aria-label="The parts of the package, floor by floor">',
            "<style>rect{fill:#eaf1f8;stroke:#6f8fb3}text{font-family:sans-serif;fill:#222}"
            ".floor{font-size:14px}.part{font-size:13px;text-anchor:middle;font-weight:600}"
            ".lines{font-size:11px;text-anchor:middle;fill:#555}</style>",
            f'<rect width="{width}" height="{total}" style="fill:#fff;stroke:none"/>',
            *rows,
            f'<text x="{label}" y="{total - 10}" class="lines" style="text-anchor:start">'
            "a part imports those to its left and those below; wider parts have more lines</text>",
            "</svg>\n",
        ]
    )


def main() -> None:
    """Print what the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--circles", action="store_true", help="name the files of each circle")
    parser.add_argument("--svg", type=Path, help="draw the parts into this file instead")
    args = parser.parse_args()
    if args.svg is not None:
        args.svg.write_text(picture(), encoding="utf-8")
        return

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
    of_files, of_parts = circles(graph), circles(between)
    functions = homes_of(ast.FunctionDef)
    twice = {name for name, homes in homes_of(ast.ClassDef).items() if len(homes) > 1}
    too_long = sorted(name for name, count in lines.items() if count > LONG_FILE)
    print(f"\nparts {len(parts)}, files {len(lines)}, lines {sum(lines.values()):,}")
    for what, chain in (("parts", depth(between)), ("files", depth(loading_graph()))):
        print(f"depth of {what} {len(chain)}: {' > '.join(chain)}")
    print(f"circles of files {len(of_files)}, of parts {len(of_parts)}")
    if args.circles:
        for group in [*of_files, *of_parts]:
            print(f"  {', '.join(group)}")
    print(f"public functions {len(functions)}, classes in several files {len(twice)}: ", end="")
    print(", ".join(sorted(twice)) or "none")
    print(f"files over {LONG_FILE} lines: {', '.join(too_long) or 'none'}")


if __name__ == "__main__":
    main()
