"""Rules that spoil a file: what is put in its place, and whether that must be refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Spoiled(NamedTuple):
    """A way to spoil a file.

    Attributes:
        name: what is done to it.
        spoil: does it.
        refused: whether a command that reads it must refuse it; otherwise it may also work.
    """

    name: str
    spoil: Callable[[Path], None]
    refused: bool


def any_file() -> Iterator[Spoiled]:
    """What can happen to a file of any kind."""
    yield Spoiled("missing", _remove, True)
    yield Spoiled("empty", lambda path: _write(path, b""), True)
    yield Spoiled("a folder", _folder, True)
    yield Spoiled("cut in the middle", _cut, True)
    yield Spoiled("random bytes", lambda path: _write(path, bytes(range(256)) * 8), True)
    yield Spoiled("NUL bytes", lambda path: _write(path, b"\0" * 2000), True)
    yield Spoiled(
        "a pickle", lambda path: _write(path, b"\x80\x04\x8c\x08builtins\x8c\x04exec."), True
    )


def plain_lines() -> Iterator[Spoiled]:
    """What can happen to a file of one text a line, of which half may be whole, too."""
    for way in any_text():
        yield way._replace(refused=way.refused and way.name != "cut in the middle")


def any_text() -> Iterator[Spoiled]:
    """What can happen to a text file."""
    yield from any_file()
    yield Spoiled("Latin-1", lambda path: _write(path, path.read_bytes() + b"\n\xe9\xff"), True)
    yield Spoiled("UTF-16", lambda path: _write(path, path.read_text().encode("utf-16")), True)
    yield Spoiled(
        "byte order mark", lambda path: _write(path, b"\xef\xbb\xbf" + path.read_bytes()), False
    )
    yield Spoiled(
        "CRLF", lambda path: _write(path, path.read_bytes().replace(b"\n", b"\r\n")), False
    )


def any_json() -> Iterator[Spoiled]:
    """What can happen to a file that holds one JSON value."""
    yield from any_text()
    for text in (
        "null",
        "3",
        '"text"',
        "[]",
        "{}",
        "[null]",
        "NaN",
        "[" * 100_000,
        '{"a":' * 50_000,
    ):
        yield Spoiled(f"the JSON {text[:6]}", _text(text), True)
    yield Spoiled(
        "a trailing comma", lambda path: _write(path, path.read_bytes().rstrip()[:-1] + b",}"), True
    )


def json_keys(path: Path) -> Iterator[Spoiled]:
    """Every key of a JSON object, and of objects in it: null, of other types, left out, twice."""
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        return
    for keys in _paths(document):
        name = ".".join(keys)
        for value in (None, "text", -1, [], {}, 1e308, [[[[]]]]):
            yield Spoiled(f"{name} = {json.dumps(value)}", _setting(keys, value), False)
        yield Spoiled(f"no {name}", _without(keys), False)
    key = next(iter(document))
    twice = "{" + f"{json.dumps(key)}: null," + json.dumps(document)[1:]
    yield Spoiled(f"{key} twice", _text(twice), True)


def jsonl_rows() -> Iterator[Spoiled]:
    """What can happen to a file of one JSON object a line, with the field `answer`."""
    yield from any_text()
    bad = {
        "null": "null",
        "a number": "3",
        "a text": '"text"',
        "a list": "[1, 2]",
        "an empty object": "{}",
        "half a line": '{"question": "What',
        "two objects": "{} {}",
        "deep": "[" * 100_000,
        "a deep field": '{"question": ' + "[" * 100_000,
        "NaN": '{"question": NaN}',
        "single quotes": "{'question': 'x'}",
        "a key twice": '{"id": 1, "id": 2}',
        "a lone surrogate": _all_fields('"\\ud800"'),
        "a huge number": '{"id": ' + "9" * 10_000 + "}",
        "null fields": _all_fields("null"),
        "list fields": _all_fields("[]"),
        "object fields": _all_fields("{}"),
        "empty fields": _all_fields('""'),
    }
    for name, line in bad.items():
        yield Spoiled(f"a line that is {name}", _appending(line + "\n"), True)
    yield Spoiled("the last line again", _repeating, True)


def _all_fields(value: str) -> str:
    fields = ("id", "question", "reasoning", "answer", "correct")
    return "{" + ", ".join(f'"{name}": {value}' for name in fields) + "}"


def yaml_keys(path: Path) -> Iterator[Spoiled]:
    """What can happen to a YAML file, and every key of it: null, of other types, or twice."""
    import yaml

    yield from any_text()
    for text in (
        "null",
        "3",
        "text",
        "[]",
        "{}",
        "- a",
        "a: b: c",
        "a: &x [*x]",
        "? [1]\n: 2",
        "!!python/object:os.system {}",
        "\t- x",
        "{" * 2000,
    ):
        yield Spoiled(f"the YAML {text[:20]!r}", _text(text), True)
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    for keys in _paths(document):
        name = ".".join(keys)
        for value in ("", "text", -1, [], {}, float("nan"), float("inf"), 10**30, "2026-01-01"):
            yield Spoiled(f"{name} = {value!r:.12}", _yaml_setting(keys, value), False)
        yield Spoiled(f"no {name}", _yaml_without(keys), False)
    key = next(iter(document))
    yield Spoiled(f"{key} twice", _appending(f"{key}: x\n"), True)
    yield Spoiled("an unknown key", _appending("no_such_key: 1\n"), True)


def _paths(document: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, value in document.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, inner) for inner in value)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write(path: Path, content: bytes) -> None:
    # the file may be a link to the whole example, which stays as it is
    if path.exists():
        path.unlink()
    path.write_bytes(content)


def _text(text: str) -> Callable[[Path], None]:
    return lambda path: _write(path, text.encode())


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _cut(path: Path) -> None:
    """Cut within a line: what ends with a line may be whole."""
    content = path.read_bytes()
    middle = len(content) // 2
    line = content.rfind(b"\n", 0, middle) + 1
    _write(path, content[: line + 3 if line else middle])


def _appending(text: str) -> Callable[[Path], None]:
    return lambda path: _write(path, path.read_bytes() + text.encode())


def _repeating(path: Path) -> None:
    content = path.read_bytes()
    _write(path, content + content.splitlines(keepends=True)[-1])


def _change(document: Any, keys: tuple[str, ...], value: Any = None, *, drop: bool = False) -> None:
    for key in keys[:-1]:
        document = document[key]
    if drop:
        del document[keys[-1]]
    else:
        document[keys[-1]] = value


def _setting(keys: tuple[str, ...], value: Any, *, drop: bool = False) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        document = json.loads(path.read_text(encoding="utf-8"))
        _change(document, keys, value, drop=drop)
        _write(path, json.dumps(document).encode())

    return spoil


def _without(keys: tuple[str, ...]) -> Callable[[Path], None]:
    return _setting(keys, None, drop=True)


def _yaml_setting(
    keys: tuple[str, ...], value: Any, *, drop: bool = False
) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        import yaml

        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        _change(document, keys, value, drop=drop)
        _write(path, yaml.safe_dump(document).encode())

    return spoil


def _yaml_without(keys: tuple[str, ...]) -> Callable[[Path], None]:
    return _yaml_setting(keys, None, drop=True)
