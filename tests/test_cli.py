"""The shell: what is listed, what is handed on, and what an error looks like."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import pytest
from typer.testing import CliRunner

from kava import __version__
from kava.cli import COMMANDS, app, module_of, run
from kava.errors import KavaError


@pytest.fixture
def shell() -> CliRunner:
    return CliRunner()


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Every sub-command replaced by one that notes its arguments and returns 7."""
    calls: list[list[str]] = []

    def note(argv: list[str]) -> int:
        calls.append(argv)
        return 7

    for name in COMMANDS:
        module = ModuleType(module_of(name).__name__)
        monkeypatch.setattr(module, "main", note, raising=False)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def failing(error: BaseException) -> Callable[[list[str]], int]:
    def command(argv: list[str]) -> int:
        raise error

    return command


def test_help_lists_every_command_and_the_traceback_switch(shell: CliRunner) -> None:
    result = shell.invoke(app, ["--help"])
    assert result.exit_code == 0
    for name, summary in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", result.output, re.M)
    assert "KAVA_TRACEBACK=1" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_a_file_with_its_flags(name: str) -> None:
    module = module_of(name)
    assert callable(module.main)
    assert name == "lm-eval" if module.USAGE is None else module.USAGE.prog == f"kava {name}"


def test_version(shell: CliRunner) -> None:
    result = shell.invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"kava {__version__}\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian", "--lr", "1"], "there is no command 'trian' (did you mean 'train'?)"),
        (["nowhere"], "there is no command 'nowhere'"),
        (["--no_such_flag"], "unknown flag --no_such_flag"),
        (["--versoin"], "unknown flag --versoin (did you mean '--version'?)"),
    ],
)
def test_wrong_usage_is_one_line(shell: CliRunner, argv: list[str], message: str) -> None:
    result = shell.invoke(app, argv)
    assert result.exit_code == 2
    assert result.output == f"kava: error: {message}; see kava --help\n"


def test_without_a_command_the_help_is_shown(shell: CliRunner) -> None:
    result = shell.invoke(app, [])
    assert result.exit_code == 2
    assert "Usage: kava" in result.output


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_both_names_of_help_are_known(shell: CliRunner, flag: str) -> None:
    result = shell.invoke(app, [flag])
    assert result.exit_code == 0
    assert "--install-completion" in result.output


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("kava tr", {"train"}),
        ("kava train --mod", {"--model_name"}),
        ("kava train --decoding ", {"sequential", "jacobi"}),
        ("kava train --jac", {"--jacobi_iterations"}),
        ("kava train --help ", {"all"}),
        ("kava study st", {"status"}),
        ("kava study run --d", {"--dry_run"}),
        ("kava lm-eval --", set()),
    ],
)
def test_a_shell_completes_commands_flags_and_words(words: str, offered: set[str]) -> None:
    environment = {
        **os.environ,
        "_KAVA_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    program = (
        "import sys\nfrom kava.cli import app\n"
        "try: app(prog_name='kava')\n"
        "finally: assert not {'torch', 'transformers'} & {*sys.modules}"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert set(done.stdout.split()) == offered


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kava", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"kava {__version__}\n")


WRONG_LINES = {
    "lm-eval": ["--no_such_flag"],
    "study": ["run", "--no_such_flag"],
    **{name: ["--no_such_flag"] for name in COMMANDS if name not in ("lm-eval", "study")},
}


@pytest.mark.parametrize("argv", ["wrong", "help"])
def test_no_command_loads_torch_to_refuse_or_to_help(argv: str) -> None:
    lines = {
        name: [name, *(wrong if argv == "wrong" else ["--help"])]
        for name, wrong in WRONG_LINES.items()
    }
    program = (
        "import sys\nfrom typer.testing import CliRunner\nfrom kava.cli import app\n"
        f"for name, argv in {lines!r}.items():\n"
        "    code = CliRunner().invoke(app, argv).exit_code\n"
        "    loaded = {'torch', 'transformers', 'datasets', 'lm_eval.models'} & {*sys.modules}\n"
        "    print(name, code, *loaded, sep=',')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    code = 2 if argv == "wrong" else 0
    assert done.stdout.split() == [f"{name},{code}" for name in lines], done.stderr


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--help"],
        ["-h"],
        ["--model_name", "gpt2", "--map_proj_share_dim", "--lr=-1e-3", "a b", "--version", ""],
        ["question", "--seed", "-1", "--", "--rest"],
    ],
)
def test_everything_behind_the_name_is_handed_on(
    shell: CliRunner, received: list[list[str]], name: str, argv: list[str]
) -> None:
    result = shell.invoke(app, [name, *argv])
    assert received == [argv]
    assert result.exit_code == 7


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("target_len=9 is more\n  than 8"), "target_len=9 is more than 8"),
        (ValueError(), "ValueError"),
        (OSError("no such model 'x'"), "no such model 'x'"),
        (KavaError("the loss is nan at step 12"), "the loss is nan at step 12"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.jsonl"), "No such file: a.jsonl"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/model.safetensors"),
            "the disk is full while writing out/model.safetensors; "
            "free some space or write to another disk",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "the disk is full; free some space or write to another disk",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded", "out/items.jsonl"),
            "the disk quota is used up while writing out/items.jsonl; free some space or write to "
            "another disk",
        ),
        (
            OSError(errno.EFBIG, "File too large", "out/items.jsonl"),
            "the file would grow beyond the limit on the size of files (ulimit -f, or the file "
            "system's) while writing out/items.jsonl; raise it or write to another disk",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "out/items.jsonl"),
            "the file system is read-only while writing out/items.jsonl; write to another disk",
        ),
    ],
)
def test_an_error_of_the_user_is_one_line(
    error: BaseException,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KAVA_TRACEBACK", raising=False)
    assert run(failing(error), []) == 1
    assert capsys.readouterr() == ("", f"kava: error: {line}\n")


def test_the_traceback_is_shown_on_demand(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAVA_TRACEBACK", "1")
    assert run(failing(ValueError("bad")), []) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last)")
    assert err.endswith("kava: error: bad\n")


@pytest.mark.parametrize("error", [TypeError("t"), AssertionError("a"), RuntimeError("r")])
def test_a_defect_keeps_its_traceback(error: BaseException) -> None:
    with pytest.raises(type(error)):
        run(failing(error), [])


def test_ctrl_c_exits_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(failing(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err == "kava: interrupted\n"


@pytest.mark.parametrize(("code", "expected"), [(None, 0), (0, 0), (2, 2), ("no such flag --x", 1)])
def test_the_exit_of_argparse_becomes_the_exit_code(
    code: str | int | None, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(failing(SystemExit(code)), []) == expected
    assert capsys.readouterr().err == (f"kava: error: {code}\n" if isinstance(code, str) else "")


def test_a_reader_that_leaves_early_causes_no_traceback() -> None:
    program = (
        "import sys; from kava.cli import run\n"
        "def lines(argv):\n"
        "    for _ in range(100_000): print('a line of output')\n"
        "    return 0\n"
        "sys.exit(run(lines, []))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("what", ["print('x')", "print('x' * 100_000)", "sys.exit('no')"])
def test_a_full_disk_behind_stdout_or_stderr_is_one_line_at_most(what: str) -> None:
    program = (
        "import sys; from kava.cli import run\n"
        f"def command(argv):\n    {what}\n    return 0\n"
        "sys.exit(run(command, []))"
    )
    with open("/dev/full", "w") as full:
        told = subprocess.run(
            [sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True
        )
        silent = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=full)
    (line,) = told.stderr.splitlines()
    assert line.startswith("kava: error: ")
    assert ("the disk is full" in line) == what.startswith("print")
    assert (told.returncode, silent.returncode) == (1, 1)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_named_on_a_real_write(capsys: pytest.CaptureFixture[str]) -> None:
    def write(argv: list[str]) -> int:
        with open("/dev/full", "w") as file:
            file.write("x")
        return 0

    assert run(write, []) == 1
    assert capsys.readouterr().err.startswith("kava: error: the disk is full")
