"""A store is whole or says what is not, and fits a run or says why it does not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from extract.stores import TEACHER, manifest_of, store, use, write_rows
from kava.commands.store import main as store_main
from kava.errors import KavaError
from kava.extract import run as run_module
from kava.files.locks import lock_folder
from kava.store import writer as writer_module
from kava.store.manifest import FULL, TARGETS, is_store
from kava.store.reader import MAPPED, Tier
from kava.store.tensor_file import TensorFile
from kava.store.verify import whole_shards
from train.runs import SMALL

SMALL_SHARD = 2**14
"""Bytes of a shard of a few samples."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the samples that the teacher reads, but for the look at the first."""
    ids: list[str] = []
    read = run_module.read_frozen

    def watched(model: Any, batch: Any, **options: Any) -> Any:
        ids.extend(batch["ids"])
        return read(model, batch, **options)

    monkeypatch.setattr(run_module, "read_frozen", watched)
    return ids


def contents(folder: Path, tier: str) -> dict[bytes, dict[str, torch.Tensor]]:
    """All samples of a tier, by digest."""
    reader = Tier(folder, manifest_of(folder), tier)
    return {digest: reader.read(row) for digest, row in reader._row_of.items()}


def same_contents(first: Path, second: Path, tier: str) -> bool:
    ours, theirs = contents(first, tier), contents(second, tier)
    return ours.keys() == theirs.keys() and all(
        ours[digest].keys() == theirs[digest].keys()
        and all(torch.equal(part, theirs[digest][name]) for name, part in ours[digest].items())
        for digest in ours
    )


def test_an_interrupted_extraction_goes_on_where_it_stopped(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path / "whole", full=True, shard_bytes=SMALL_SHARD)
    asked.clear()
    write, written = writer_module.write_tensors, []

    def stopping(path: Path, *parts: Any) -> Any:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        return write(path, *parts)

    monkeypatch.setattr(writer_module, "write_tensors", stopping)
    with pytest.raises(KeyboardInterrupt):
        store(tmp_path / "cut", full=True, shard_bytes=SMALL_SHARD)
    monkeypatch.undo()
    manifest = manifest_of(tmp_path / "cut")
    assert len(manifest.shards) == 5
    done = sum(shard.num_samples for shard in manifest.of_tier(FULL))
    assert 0 < done < 64
    ids: list[str] = []
    read = run_module.read_frozen
    monkeypatch.setattr(
        run_module, "read_frozen", lambda m, b, **o: ids.extend(b["ids"]) or read(m, b, **o)
    )
    store(tmp_path / "cut", full=True, shard_bytes=SMALL_SHARD)
    assert (
        len(set(ids[1:]))
        == len(ids[1:])
        == 64
        - min(
            sum(shard.num_samples for shard in manifest.of_tier(tier)) for tier in (FULL, TARGETS)
        )
    )
    for tier in (FULL, TARGETS):
        assert same_contents(tmp_path / "whole", tmp_path / "cut", tier)
    assert whole_shards(tmp_path / "cut", manifest_of(tmp_path / "cut"))[1] == []


@pytest.mark.slow
def test_a_killed_extraction_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    program = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, 'tests')\n"
        "from kava.store import writer\n"
        "from extract.stores import store\n"
        "flush = writer.TierWriter.flush\n"
        "def slow(self, manifest):\n"
        "    found = flush(self, manifest); print('shard', flush=True); time.sleep(1)\n"
        "    return found\n"
        "writer.TierWriter.flush = slow\n"
        f"store(Path({str(folder)!r}), shard_bytes=8192)\n"
    )
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(2):
        assert process.stdout.readline() == b"shard\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 2 <= len(manifest_of(folder).shards) < 8
    store(folder, shard_bytes=8192)
    store(tmp_path / "whole")
    assert same_contents(folder, tmp_path / "whole", TARGETS)


def test_what_is_stored_is_not_read_again_and_more_data_are_added(
    tmp_path: Path, asked: list[str]
) -> None:
    store(tmp_path / "store")
    asked.clear()
    store(tmp_path / "store")
    assert len(asked) == 1  # the look at the first sample
    more = {"dataset_name": "kava/shell-game?num_train=80"}
    store(tmp_path / "store", **more)
    assert len(asked) == 1 + 1 + 16
    use(tmp_path / "store", **more)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "is damaged: its header tells"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "is damaged: it was cut"),
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(b"words" * 99), "is damaged"),
    ],
    ids=["cut in the middle", "cut in the header", "missing", "other content"],
)
def test_a_shard_that_is_cut_or_missing_is_named_and_made_up_for(
    harm: Callable[[Path], None],
    message: str,
    tmp_path: Path,
    asked: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    store(tmp_path / "store", shard_bytes=SMALL_SHARD)
    second = manifest_of(tmp_path / "store").shards[1]
    harm(second.path(tmp_path / "store"))
    with pytest.raises((OSError, ValueError), match=rf"shard-00001\.safetensors {message}"):
        use(tmp_path / "store")
    with pytest.raises(ValueError, match="has 1 problem"):
        store_main(["verify", str(tmp_path / "store")])
    assert "shard-00001.safetensors " + message in capsys.readouterr().out
    asked.clear()
    store(tmp_path / "store", shard_bytes=SMALL_SHARD)
    assert len(asked) == 1 + second.num_samples
    use(tmp_path / "store")
    store(tmp_path / "whole")
    assert same_contents(tmp_path / "store", tmp_path / "whole", TARGETS)


def test_a_changed_byte_is_named_by_verify_and_when_it_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(tmp_path / "store", shard_bytes=SMALL_SHARD)
    path = manifest_of(tmp_path / "store").shards[1].path(tmp_path / "store")
    content = bytearray(path.read_bytes())
    content[TensorFile(path).places["values"].start + 5] ^= 1
    path.write_bytes(bytes(content))
    reader = Tier(tmp_path / "store", manifest_of(tmp_path / "store"), TARGETS)
    with pytest.raises(ValueError, match=r"shard-00001\.safetensors is damaged: sample '"):
        [reader.read(row) for row in range(len(reader))]
    with pytest.raises(ValueError, match="has 1 problem"):
        store_main(["verify", str(tmp_path / "store")])
    assert "its content is not as it was written" in capsys.readouterr().out


def test_a_shard_of_another_store_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(tmp_path / "store")
    store(tmp_path / "other", seed=1, kv_method="random")
    shard = manifest_of(tmp_path / "store").shards[0].path(tmp_path / "store")
    theirs = manifest_of(tmp_path / "other").shards[0].path(tmp_path / "other")
    shutil.copy(theirs, shard.with_name("shard-00007.safetensors"))
    with pytest.raises(ValueError, match="has 1 problem"):
        store_main(["verify", str(tmp_path / "store")])
    assert "shard-00007.safetensors is in no manifest" in capsys.readouterr().out
    shutil.copy(theirs, shard)
    with pytest.raises(ValueError, match=r"shard-00000\.safetensors is a shard of another store"):
        use(tmp_path / "store")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "teacher": (
        {"teacher_name": "kava/shell-gpt2-teacher", "alignment_mode": "structured"},
        "holds the cache of kava/shell-teacher, and this run's teacher is kava/shell-gpt2-teacher",
    ),
    "dtype": ({"dtype": "bfloat16"}, "holds dtype 'float32', this run needs 'bfloat16'"),
    "method": ({"kv_method": "h2o"}, "holds kv method 'rkv', this run needs 'h2o'"),
    "number": ({"target_len": 2}, "holds target len 3, this run needs 2"),
    "lambda": ({"rkv_lambda": 0.5}, "holds lam 0.1, this run needs 0.5"),
    "scope": ({"kv_scope": "head"}, "holds scope 'model', this run needs 'head'"),
    "key space": (
        {"key_space": "rotated"},
        "holds key space 'unrotated', this run needs 'rotated'",
    ),
    "codi": ({"codi_weight": 1.0}, "holds no codi, which --codi_weight reads: extract it with"),
    "weights": (
        {"attention_weighted_kv": True},
        "holds no weights, which --attention_weighted_kv reads",
    ),
    "queries": (
        {"kv_loss": "structural", "kv_layer_std": False},
        "holds no queries, which --kv_loss structural reads",
    ),
    "tier": ({"store_tier": "full"}, "holds no full: extract it with --full"),
    "template": (
        {"keep_last_step": True},
        "holds template drop last step True, this run needs False",
    ),
    "samples": (
        {"dataset_name": "kava/shell-game?num_train=80"},
        r"lacks 16 of the 80 samples of this run in targets \(the first, '.*', is not there\)",
    ),
    "map": (
        {"alignment_mode": "structured", "calibration_samples": 32},
        "lacks the whole text of 32 of the 32 samples that maps are fitted on",
    ),
    "two teachers": (
        {"teacher_name": None, "teachers": [TEACHER, f"b={TEACHER}"]},
        "names 1, and there are 2 to stand for",
    ),
    "no teacher": ({"teacher_name": None}, "stands for a frozen teacher, and in self-distill"),
    "resampling": (
        {"use_segment_resampling": True, "kv_method": "full"},
        "--use_segment_resampling reads whole texts: pass --store_tier full",
    ),
}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a small run, each choice of positions shared by the model."""
    folder = tmp_path_factory.mktemp("usual") / "store"
    store(folder, kv_scope="model")
    return folder


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_by_name(what: str, usual: Path) -> None:
    changes, message = REFUSED[what]
    use(usual, kv_scope="model")
    with pytest.raises(ValueError, match=message) as error:
        use(usual, **{"kv_scope": "model", **changes})
    assert "\n" not in str(error.value)


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"--store .* holds no manifest.json, so it is no store"):
        use(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds notes\.txt and no store"):
        store(tmp_path)
    assert (tmp_path / "notes.txt").exists()


def test_another_extraction_into_the_folder_is_refused(tmp_path: Path, usual: Path) -> None:
    folder = tmp_path / "store"
    shutil.copytree(usual, folder)
    with pytest.raises(ValueError, match="holds target len 3, this extraction has 2: pass --over"):
        store(folder, kv_scope="model", target_len=2)
    with pytest.raises(ValueError, match=r"holds form 'float32', this extraction has 'int8'"):
        store(folder, kv_scope="model", form="int8")
    with pytest.raises(ValueError, match=r"holds include \[\], this extraction has \['queries'\]"):
        store(folder, kv_scope="model", include=("queries",))
    assert same_contents(folder, usual, TARGETS)
    store(folder, kv_scope="model", target_len=2, overwrite=True)
    assert manifest_of(folder).settings["targets"]["target_len"] == 2


def test_two_extractions_at_a_time_are_refused(tmp_path: Path) -> None:
    with (
        lock_folder(tmp_path / "store", "kava extract"),
        pytest.raises(KavaError, match="is in use: kava extract has been at work there"),
    ):
        store(tmp_path / "store")
    assert not is_store(tmp_path / "store")


def test_a_changed_text_is_told_from_one_that_is_not_there(tmp_path: Path) -> None:
    models = {"model_name": "kava/tiny-gpt2", "teacher_name": "kava/tiny-gpt2", "max_length": 128}
    data = write_rows(tmp_path / "rows.jsonl", 8)
    store(tmp_path / "store", dataset_name=data, **models)
    text = Path(data).read_text().replace("3 and some?", "3 and more?")
    Path(data).write_text(text)
    with pytest.raises(ValueError, match=r"lacks 1 of the 8 samples .* has another text there"):
        use(tmp_path / "store", dataset_name=data, **models)


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({"kv_method": "h2o", "target_len": 2}, ["--kv_method", "h2o", "--target_len", "2"]),
        (
            {"key_space": "rotated", "kv_scope": "head"},
            ["--key_space", "rotated", "--kv_scope", "head"],
        ),
        ({"kv_method": "full"}, ["--kv_method", "full"]),
    ],
)
def test_recompressing_equals_extracting_with_those_options(
    changes: dict[str, Any], flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(tmp_path / "store", full=True, include=("codi", "answer"), eval_size=4)
    store(tmp_path / "direct", include=("codi", "answer"), eval_size=4, **changes)
    capsys.readouterr()
    assert (
        store_main(
            ["recompress", str(tmp_path / "store"), "--output", str(tmp_path / "new"), *flags]
        )
        == 0
    )
    assert "targets:  64 samples" in capsys.readouterr().out
    ours, theirs = (contents(tmp_path / name, TARGETS) for name in ("new", "direct"))
    assert ours.keys() == theirs.keys()
    for digest, parts in ours.items():
        for name, part in theirs[digest].items():
            torch.testing.assert_close(parts[name], part, rtol=1e-5, atol=1e-6)
    assert manifest_of(tmp_path / "new").store_id == manifest_of(tmp_path / "direct").store_id
    use(tmp_path / "new", codi_weight=0.5, eval_size=4, **changes)


def test_recompressing_needs_whole_texts_and_their_queries(tmp_path: Path, usual: Path) -> None:
    with pytest.raises(ValueError, match=r"holds whole texts .* without queries|holds whole texts"):
        store_main(["recompress", str(usual), "--output", str(tmp_path / "new")])
    store(tmp_path / "store", full=True, kv_method="uniform")
    with pytest.raises(ValueError, match="without queries, which --kv_method rkv reads"):
        store_main(
            [
                *("recompress", str(tmp_path / "store"), "--output", str(tmp_path / "new")),
                *("--kv_method", "rkv"),
            ]
        )
    with pytest.raises(ValueError, match="is the store itself"):
        store_main(["recompress", str(usual), "--output", str(usual)])
    assert not (tmp_path / "new").exists()


def test_a_store_says_what_it_holds(usual: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert store_main(["info", str(usual)]) == 0
    told = capsys.readouterr().out
    assert "teacher:  kava/shell-teacher, float32, weights " in told
    assert "kv_method rkv, target_len 3" in told
    assert "float32, nothing lost" in told
    assert store_main(["verify", str(usual)]) == 0


def test_only_a_few_shards_are_mapped_at_a_time(tmp_path: Path) -> None:
    store(tmp_path / "store", shard_bytes=2**12)
    reader = Tier(tmp_path / "store", manifest_of(tmp_path / "store"), TARGETS)
    assert len(reader.shards) > 2 * MAPPED
    for row in torch.randperm(len(reader)).tolist():
        reader.read(row)
        assert len(reader._open) <= MAPPED


def test_a_stored_part_is_a_view_of_its_file(usual: Path) -> None:
    reader = Tier(usual, manifest_of(usual), TARGETS)
    first, again = (reader.read(3, ["keys"])["keys"] for _ in range(2))
    assert first.data_ptr() == again.data_ptr()


def test_the_kept_positions_stand_with_their_scores(usual: Path) -> None:
    parts = Tier(usual, manifest_of(usual), TARGETS).read(0)
    assert parts["columns"].shape == (3,)
    assert bool((parts["columns"].diff() > 0).all())
    assert parts["scores"].shape == (1, 1, 3)


def test_the_shape_of_a_manifest(usual: Path) -> None:
    manifest = manifest_of(usual)
    (shard,) = manifest.shards
    assert asdict(shard)["num_samples"] == 64
    assert manifest.data["config"]["teacher_name"] == TEACHER
    assert SMALL["target_len"] == manifest.settings["targets"]["target_len"]
