"""Pushing to the hub: refused in one line before anything is written, and one commit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import HfHubHTTPError

from kava.cli import run
from kava.commands.export import main as export


class Hub:
    """A hub that notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.refuses: dict[str, Exception] = {}

    def note(self, name: str, what: Any) -> None:
        self.asked.append((name, what))
        if name in self.refuses:
            raise self.refuses[name]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "a token")

    def whoami(self: object) -> None:
        hub.note("whoami", None)

    def create_repo(self: object, repository: str, **options: Any) -> None:
        hub.note("create_repo", (repository, options))

    def upload_folder(self: object, *, repo_id: str, folder_path: Path, **options: Any) -> None:
        names = sorted(path.name for path in Path(folder_path).iterdir())
        hub.note("upload_folder", (repo_id, names))

    for function in (whoami, create_repo, upload_folder):
        monkeypatch.setattr(f"huggingface_hub.HfApi.{function.__name__}", function)
    return hub


def http_error(status: int) -> HfHubHTTPError:
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return HfHubHTTPError("refused", response=response)


def pushed(runs: Path, tmp_path: Path, *more: str) -> int:
    argv = [str(runs / "latent"), "--output_dir", str(tmp_path / "x" / "out")]
    return run(export, [*argv, "--push", "me/mine", *more])


def test_a_folder_is_pushed_whole(
    runs: Path, tmp_path: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pushed(runs, tmp_path, "--private") == 0
    names = sorted(path.name for path in (tmp_path / "x" / "out").iterdir())
    assert [name for name, _ in hub.asked] == ["whoami", "create_repo", "upload_folder"]
    assert hub.asked[1][1] == ("me/mine", {"private": True, "exist_ok": True})
    assert hub.asked[2][1] == ("me/mine", names)
    assert "/me/mine" in capsys.readouterr().out.splitlines()[-1]
    assert (tmp_path / "x/out/README.md").read_text().count("# me/mine") == 1


def offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def no_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)


def old_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.refuses["whoami"] = http_error(401)


def no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.refuses["whoami"] = ConnectionError("no name\n server")


def broken_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.refuses["whoami"] = http_error(503)


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (offline, "the hub cannot be reached with HF_HUB_OFFLINE set"),
        (no_token, "needs a token of the hub: log in with hf auth login"),
        (old_token, "the hub does not take this token"),
        (no_network, "the hub cannot be reached (no name server)"),
        (broken_hub, "the hub cannot be reached ("),
    ],
)
def test_a_push_that_cannot_be_is_refused_before_anything_is_written(
    trouble: Any,
    message: str,
    runs: Path,
    tmp_path: Path,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trouble(hub, monkeypatch)
    assert pushed(runs, tmp_path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kava: error: --push me/mine")
    assert message in line
    assert list(tmp_path.iterdir()) == []
    assert {name for name, _ in hub.asked} <= {"whoami"}


@pytest.mark.parametrize("name", ["mine", "a/b/c", "me/", "me/my student", "--x/y"])
def test_a_repository_has_a_user_and_a_name(
    name: str, runs: Path, tmp_path: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(runs / "latent"), "--output_dir", str(tmp_path / "out"), f"--push={name}"]
    assert run(export, argv) == 1
    assert "name the repository as user/name" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_push_that_fails_leaves_the_folder(
    runs: Path, tmp_path: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.refuses["upload_folder"] = http_error(403)
    assert pushed(runs, tmp_path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "not pushed (" in line
    assert f"{tmp_path}/x/out is written whole: push again with --overwrite" in line
    assert (tmp_path / "x" / "out" / "kava_latent.json").is_file()


def test_private_is_about_a_push(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(export, ["x", "--output_dir", str(tmp_path / "out"), "--private"]) == 2
    assert "--private is read by --push alone" in capsys.readouterr().err
