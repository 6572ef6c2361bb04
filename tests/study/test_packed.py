"""The packed logs of a study read as its runs do, and nothing is lost on the way."""

from pathlib import Path

import pytest

from kava.cli import run
from kava.commands.study import main
from kava.report.logs import load_study
from kava.study.packed import PACKED_FILE, check_unpacked, pack_runs, unpacked
from report.made_up import write_study


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path / "study", {"flat": 0.4, "per_head": 0.6, "wrong": 0.4})


def hide(runs: Path) -> None:
    runs.rename(runs.with_name("elsewhere"))


def test_packed_logs_read_as_the_runs_do(study: Path) -> None:
    before = load_study(study)
    packed = pack_runs(study)
    hide(study / "runs")
    after = load_study(study)
    assert (after.arms, after.ids, after.folder) == (before.arms, before.ids, study)
    assert packed.stat().st_size < sum(
        path.stat().st_size for path in (study / "elsewhere").rglob("*") if path.is_file()
    )


def test_the_same_logs_give_the_same_bytes(study: Path) -> None:
    first = pack_runs(study).read_bytes()
    for path in (study / "runs").rglob("*"):
        path.touch()
    assert pack_runs(study).read_bytes() == first


def test_a_cut_file_is_named(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = pack_runs(study)
    hide(study / "runs")
    packed.write_bytes(packed.read_bytes()[:-100])
    assert run(main, ["report", str(study)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{packed} is cut or damaged" in line


def test_what_is_wrong_inside_is_named_by_the_packed_file(study: Path) -> None:
    (path,) = list((study / "runs").glob("*/seed-0/items.jsonl"))[:1]
    path.write_text(path.read_text() + "\n{}\n")
    packed = pack_runs(study)
    hide(study / "runs")
    with pytest.raises(ValueError, match=f"{packed}/runs/.*items.jsonl"):
        load_study(study)


def test_a_study_goes_on_unpacked_only(study: Path) -> None:
    packed = pack_runs(study)
    check_unpacked(study)
    hide(study / "runs")
    with pytest.raises(ValueError, match=f"tar -xf {packed} -C {study}"):
        check_unpacked(study)
    with unpacked(study) as there:
        assert there != study
    assert not there.exists()


def test_there_must_be_runs(study: Path) -> None:
    hide(study / "runs")
    with pytest.raises(ValueError, match="nothing to pack"):
        pack_runs(study)
    assert not (study / PACKED_FILE).exists()
