"""YAML in files: plans and configurations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from kava.inputs.errors import Malformed
from kava.inputs.text import line_of, read_text

_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"
# YAML 1.1 reads 010 as 8 and 1:30 as 90, which hardly anyone who writes them means
_SURPRISING = re.compile(r"[-+]?(?:0[0-9_]+|[0-9_]+(?::[0-9_.]+)+)")


def read_yaml(path: str | Path) -> Any:
    """The value in a YAML file; keys are the text that is written, also `no:`, `1:` and `010:`.

    Raises:
        Malformed: no UTF-8 text, no YAML, a key twice in one mapping, a number that YAML reads
            as another one than is written; the message names the line.
        OSError: the file cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.yaml").write_text("lr: 0.5\\nno: [1, 2]\\n")
        ...     read_yaml(f"{folder}/a.yaml")
        {'lr': 0.5, 'no': [1, 2]}
    """
    text = read_text(path)
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        problem = " ".join((error.problem or error.context or "damaged").split())
    except yaml.reader.ReaderError as error:
        line = line_of(text, error.position)
        problem = f"the character {error.character!r} is not allowed"
    except RecursionError:
        line, problem = None, "it is nested too deep"
    place = "" if line is None else f"line {line}: "
    raise Malformed(path, None, f"is not valid YAML: {place}{problem}") from None


class _Loader(yaml.SafeLoader):
    """A `SafeLoader` that overwrites no key and rewrites none."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._open: list[str] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse an alias inside of what it stands for, which would have no end."""
        event = self.peek_event()
        anchor: str | None = event.anchor
        if isinstance(event, yaml.AliasEvent):
            if anchor in self._open:
                raise yaml.MarkedYAMLError(
                    problem=f"*{anchor} stands inside of &{anchor}",
                    problem_mark=event.start_mark,  # type: ignore[arg-type]
                )
            return super().compose_node(parent, index)
        self._open.append(anchor or "")
        node = super().compose_node(parent, index)
        self._open.pop()
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Name the line of a value that cannot be made, such as the date 2024-13-01."""
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            problem = str(error).partition(";")[0]
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Hold a mapping to one value for each key, and keep its keys as they are written."""
        if isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.MarkedYAMLError(
                        problem="a key must be text", problem_mark=key.start_mark
                    )
                if key.tag == _MERGE:
                    continue
                if key.value in lines:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} stands twice, on line {lines[key.value]} "
                        f"already; leave one of them out",
                        problem_mark=key.start_mark,
                    )
                lines[key.value] = key.start_mark.line + 1
            self.flatten_mapping(node)
            for key, _ in node.value:
                key.tag = _TEXT
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """A number, where YAML reads the one that is written."""
        if _SURPRISING.fullmatch(node.value):
            raise yaml.MarkedYAMLError(
                problem=f"{node.value} is another number in YAML; write it in plain digits, or "
                f"in quotes where text is meant",
                problem_mark=node.start_mark,
            )
        whole = node.tag == "tag:yaml.org,2002:int"
        made: int | float = (self.construct_yaml_int if whole else self.construct_yaml_float)(node)
        return made


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)
