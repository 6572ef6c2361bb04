"""`kava lm-eval`: lm-evaluation-harness with its model `kava` registered.

lm_eval finds models of other packages by their entry point (group `lm_eval.models`, which this
package declares) in the versions that look for it; 0.4.13, the newest that was released, does not
yet. This command takes lm_eval's own flags, registers the model and calls lm_eval.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from kava.flags.usage import refuse
from kava.flags.words import nearest
from kava.models.devices import check_device
from kava.models.quiet import quiet_libraries

PROG = "kava lm-eval"
USAGE = None
"""The flags are lm_eval's."""


def main(argv: list[str]) -> int:
    """Run lm_eval on its flags, as in `--model kava --model_args pretrained=outputs/run`.

    Raises:
        ValueError: lm_eval is not installed, or a --device that is not there.
    """
    try:
        import lm_eval  # noqa: F401 (whether it is there)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "lm_eval":
            raise
        raise ValueError("lm-evaluation-harness is not installed: pip install lm_eval") from error
    before = sys.argv
    sys.argv = [PROG, *(argv or ["--help"])]
    try:
        with one_line_errors():
            _check_flags()
            quiet_libraries()
            device = _device_of(argv)
            if device is not None:
                check_device(device)
            from lm_eval.__main__ import cli_evaluate

            from kava.evaluate import harness_model  # noqa: F401 (registers the model)

            cli_evaluate()
    finally:
        sys.argv = before
    return 0


def _check_flags() -> None:
    """Let lm_eval read the flags before torch is loaded, in the versions that can."""
    with suppress(ImportError):
        from lm_eval._cli import HarnessCLI

        HarnessCLI().parse_args()


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Inside the block what is wrong with lm_eval's command line is one line."""
    original = argparse.ArgumentParser.error

    def error(self: argparse.ArgumentParser, message: str) -> NoReturn:
        text = " ".join(message.split())
        if text.startswith("unrecognized arguments: "):
            flag = text.split()[2].partition("=")[0]
            close = nearest(flag, _flags_of(self))
            text = f"unknown flag {flag}" + (f" (did you mean {close}?)" if close else "")
        refuse(PROG, text)

    argparse.ArgumentParser.error = error  # type: ignore[method-assign]
    try:
        yield
    finally:
        argparse.ArgumentParser.error = original  # type: ignore[method-assign]


def _flags_of(parser: argparse.ArgumentParser) -> list[str]:
    """The flags of a parser and of its parts."""
    found: list[str] = []
    for action in parser._actions:
        found += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                found += _flags_of(part)
    return [flag for flag in found if flag.startswith("--")]


def _device_of(argv: list[str]) -> str | None:
    """What the flags name as the device; lm_eval itself names cuda:0 where they name none."""
    for word, following in zip(argv, [*argv[1:], None]):
        name, equals, value = word.partition("=")
        if name == "--device":
            return value if equals else following
    return None
