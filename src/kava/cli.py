"""The command line: `kava train`, `evaluate`, `layer-map` and so on, and its error handling.

A sub-command is a file of `kava.commands` with a function `main`, which takes the arguments and
returns an exit code; it is imported when called, so that `kava --help` loads neither torch nor
transformers. It has its own flags, `USAGE`: everything after the sub-command's name, including
`--help`, is passed on unchanged. `kava --install-completion` lets the shell complete sub-commands,
flags and their values.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from kava.errors import USER_ERRORS, describe
from kava.flags.usage import refuse
from kava.flags.words import near
from kava.stopping import Stopped, stop_on_signals

INTERRUPTED = 130  # 128 + SIGINT, what shells expect after Ctrl-C

COMMANDS = {
    "train": "Distil a teacher's cache into a student.",
    "extract": "Read texts with a teacher once, and store its cache.",
    "store": "Look into a store, check it, keep other positions.",
    "evaluate": "Score a trained student.",
    "generate": "Let a trained student answer questions.",
    "merge": "Add LoRA adapters to the weights beneath.",
    "rationales": "Let teachers write their own chains of thought.",
    "export": "Write a trained student for other programs, with its model card.",
    "costs": "Compare what answers cost: passes, tokens, time.",
    "compare": "Compare models item by item: differences, intervals, p.",
    "leaks": "Find test questions that stand in training data.",
    "lm-eval": "Run lm-evaluation-harness, with students as its model kava.",
    "profile": "Time the stages of a training step and check its shapes.",
    "env": "Show this machine and job, and what is chosen for them.",
    "layer-map": "Measure which layers of a teacher are like a student's.",
    "calibrate": "Fit the map between two models' caches, and judge it.",
    "study": "Compare arms over seeds, by a plan.",
    "cluster": "Run a study as jobs of Slurm or PBS.",
    "curriculum": "Train a student in phases, each from the student of the last.",
    "demo": "Show which signals teach a student to reason in latents.",
}
"""The sub-commands with their descriptions."""


def module_of(name: str) -> ModuleType:
    """Import the module of a sub-command, with `main` and its flags as `USAGE`.

    Example:
        >>> module_of("layer-map").USAGE.prog
        'kava layer-map'
    """
    return import_module(f"kava.commands.{name.replace('-', '_')}")


class Root(TyperGroup):
    """The command `kava`; errors in its command line are one line, as in its sub-commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse an unknown flag and an unknown command."""
        first = next((arg for arg in args if arg.partition("=")[0] not in self._flags(ctx)), None)
        if first is not None and not ctx.resilient_parsing:
            if first.startswith("-"):
                refuse("kava", f"unknown flag {first}{near(first, self._flags(ctx))}")
            if first not in self.commands:
                refuse("kava", f"there is no command {first!r}{near(first, self.commands)}")
        return super().parse_args(ctx, args)

    def _flags(self, ctx: Any) -> list[str]:
        return [word for one in self.get_params(ctx) for word in one.opts]


class SubCommand(TyperCommand):
    """A sub-command that parses its own flags and offers them for completion."""

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Its flags and their values."""
        from kava.flags.complete import offers

        usage = module_of(str(self.name)).USAGE
        return [] if usage is None else list(offers(usage, ctx.args, incomplete))


app = typer.Typer(
    name="kava",
    help="Distil a reasoning model's key/value cache into a small latent-reasoning student.",
    epilog="`kava COMMAND --help` lists a command's flags. An error is one line on stderr; "
    "KAVA_TRACEBACK=1 in the environment shows where it came from.",
    no_args_is_help=True,
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _say(line: str) -> None:
    with suppress(OSError):  # a full disk under stderr does not change the exit code
        print(f"kava: {line}", file=sys.stderr, flush=True)


def _fail(message: str) -> int:
    _say(f"error: {message}")
    return 1


def _drop_output() -> None:
    """Discard what stdout still buffers, so that it does not fail again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(command: Callable[[list[str]], int], argv: Sequence[str]) -> int:
    """Call a command, and print errors that its user can fix as one line without traceback.

    Every entry point uses this function, so that errors look the same everywhere. A bad value
    (`ValueError`), a bad file (`OSError`) and a run that cannot continue (`KavaError`) are for the
    user to fix; anything else is a defect of the program and keeps its traceback.

    Args:
        command: takes the arguments and returns the exit code.
        argv: the arguments, without the program's name.

    A signal (`kava.stopping.SIGNALS`) ends the command in good order.

    Returns:
        The command's exit code; 1 after an error, 2 after wrong usage, 128 plus the signal's number
        after a signal (130 after Ctrl-C, 143 after SIGTERM).

    Example:
        >>> run(lambda argv: 0, ["--seed", "1"])
        0
    """
    with stop_on_signals():
        try:
            code = _code(command, argv)
            sys.stdout.flush()  # a closed pipe or a full disk fails here, not at exit
        except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
            _drop_output()
            return 1
        except Stopped as stop:
            _say(str(stop))
            return stop.exit_code
        except KeyboardInterrupt:
            _say("interrupted")
            return INTERRUPTED
        except USER_ERRORS as error:
            if os.environ.get("KAVA_TRACEBACK") == "1":
                traceback.print_exc()
            _drop_output()
            return _fail(describe(error))
    return code


def _code(command: Callable[[list[str]], int], argv: Sequence[str]) -> int:
    try:
        return command(list(argv))
    except SystemExit as stop:  # argparse exits this way after --help and after a wrong flag
        if isinstance(stop.code, str):
            return _fail(stop.code)
        return stop.code or 0


def _add(name: str, summary: str) -> None:
    @app.command(
        name,
        help=summary,
        cls=SubCommand,
        context_settings={
            "allow_extra_args": True,
            "allow_interspersed_args": False,
            "ignore_unknown_options": True,
            "help_option_names": [],
        },
    )
    def call(context: typer.Context) -> None:
        raise typer.Exit(run(lambda argv: module_of(name).main(argv), context.args))


for _name, _summary in COMMANDS.items():
    _add(_name, _summary)


def _show_version(wanted: bool) -> None:
    if wanted:
        from kava import __version__

        typer.echo(f"kava {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run `kava` on the arguments of this process."""
    app()


if __name__ == "__main__":
    main()
