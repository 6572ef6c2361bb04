"""What `--help` prints: flags under their headings, each with what it takes and its default."""

from __future__ import annotations

import shutil
import textwrap
from collections import defaultdict
from collections.abc import Collection, Mapping

from kava.flags.fields import Setting

HEADINGS = (
    *(
        "arguments",
        "environment",
        "profile",
        "models",
        "teachers",
        "store",
        "questions",
        "data",
        "latents",
    ),
    *("adapters", "compression", "alignment", "losses", "training", "memory", "answers", "running"),
    "output",
    *("settings", "flags"),
)
"""In the order in which they are shown; `flags` is that of flags without one."""

INDENT = 26
MOST_CHOICES = 6
_HELP = "  -h, --help              show this and leave"
_HELP_ALL = "  -h, --help [all]        show this, or every flag, and leave"
_WORDS = {str: "TEXT", int: "N", float: "NUMBER", bool: ""}


def help_text(
    settings: Mapping[str, Setting],
    *,
    prog: str,
    summary: str,
    example: str,
    common: Collection[str] | None = None,
    more: str = "",
    has_aliases: bool = False,
) -> str:
    """The help of a command.

    Args:
        settings: all its flags, by name.
        prog: the command, such as `kava train`.
        summary: what it does.
        example: a call that runs.
        common: the flags to show, beside those that have to be given; None: all.
        more: what else is said, behind the flags.
        has_aliases: whether it takes flags of other programs too.
    """
    width = max(60, min(100, shutil.get_terminal_size().columns))
    places = [one for one in settings.values() if one.flag.positional]
    given = "".join(f" {_place(one)}" for one in places)
    lines = [f"usage: {prog}{given} [--FLAG VALUE …]", ""]
    lines += [textwrap.fill(part, width) for part in summary.split("\n")]
    lines += ["", f"example: {example}"]
    shown = [
        one for one in settings.values() if common is None or one.required or one.name in common
    ]
    entries: dict[str, list[str]] = defaultdict(list)
    for setting in shown:
        entries[heading(setting)] += _entry(setting, width)
    for title in sorted(entries, key=HEADINGS.index):
        lines += ["", f"{title}:", *entries[title]]
    is_part = len(shown) < len(settings)
    lines += ["", _HELP_ALL if is_part else _HELP]
    if has_aliases:
        lines += ["", textwrap.fill(
            "Flags of other programs that mean the same, such as --learning_rate for --lr, are "
            "taken too; docs/aliases.md lists them.", width,
        )]  # fmt: skip
    if more:
        lines += ["", *(textwrap.fill(part, width) for part in more.split("\n"))]
    if is_part:
        lines += ["", f"{prog} --help all shows all {len(settings)} flags."]
    return "\n".join(lines)


def heading(setting: Setting) -> str:
    """What a flag stands under, one of `HEADINGS`."""
    return "arguments" if setting.flag.positional else setting.group or "flags"


def _place(setting: Setting) -> str:
    name = setting.flag.metavar or setting.name.upper()
    name += " …" if setting.many else ""
    return name if setting.required else f"[{name}]"


def _entry(setting: Setting, width: int) -> list[str]:
    named = setting.spelled.startswith("--")
    name = setting.spelled if named else _place(setting)
    value = _value(setting) if named else ""
    left = f"  {name} {value}".rstrip()
    body = textwrap.wrap(
        f"{setting.flag.help} ({about(setting)})", width - INDENT, break_on_hyphens=False
    )
    pad = " " * INDENT
    first = [f"{left:<{INDENT}}{body.pop(0)}"] if len(left) < INDENT - 1 else [left]
    return first + [pad + line for line in body]


def _value(setting: Setting) -> str:
    about = setting.flag
    if about.metavar is not None:
        word = about.metavar
    elif about.choices is not None and len(about.choices) <= MOST_CHOICES:
        word = "{" + ",".join(map(str, about.choices)) + "}"
    else:
        word = _WORDS[setting.kind]
    return f"{word} …" if setting.many else word


def about(setting: Setting) -> str:
    """Choices that the value does not show, limits, and the default.

    Example:
        >>> about(flags_of(TrainConfig)["batch_size"])
        'from 1 to 65,536; default: 8'
    """
    parts = []
    choices = setting.flag.choices
    if choices is not None and len(choices) > MOST_CHOICES:
        parts.append(f"one of {', '.join(map(str, choices))}")
    if limits := setting.flag.range():
        parts.append(limits)
    parts.append("required" if setting.required else f"default: {default(setting)}")
    return "; ".join(parts)


def default(setting: Setting) -> str:
    """The default as it would be written."""
    value = setting.default
    if value is None:
        return setting.flag.unset
    if isinstance(value, bool):
        return "on" if value else "off"
    if setting.many:
        return " ".join(map(str, value)) or "none"
    return str(value) if value != "" else "''"
