"""Stores of teachers that read with a cache of bounded size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from extract.stores import manifest_of, store, use
from kava.cli import run as command
from kava.commands.extract import main as extract_main
from kava.commands.train import main as train_main
from kava.extract.request import ExtractConfig, Request
from kava.extract.run import extract
from kava.store.manifest import TARGETS
from kava.store.reader import Tier
from one_line import refusal
from train.runs import SMALL, all_rows

VERBOSE = "kava/shell-game?form=verbose&num_train=24"
FLAGS = [
    *("--teacher_name", "kava/shell-teacher", "--dataset_name", VERBOSE, "--eval_size", "4"),
    *("--max_length", "64", "--target_len", "2", "--device", "cpu", "--no_progress"),
]


def bounded(folder: Path, budget: int, **changes: Any) -> Path:
    """A small store of a teacher with a bounded cache."""
    config = ExtractConfig(
        **{
            **SMALL,
            "teacher_name": "kava/shell-teacher",
            "text_ce_weight": 0.0,
            "batch_size": 4,
            "dataset_name": VERBOSE,
            "capture_chunk": 4,
            "cache_budget": budget,
            "output_dir": "unused",
            **changes,
        }
    )
    (found,) = extract(Request(config=config, store=folder))
    return found


def contents(folder: Path) -> list[dict[str, torch.Tensor]]:
    tier = Tier(folder, manifest_of(folder), TARGETS)
    return [tier.read(row) for row in range(16)]


@pytest.mark.parametrize("method", ["rkv", "h2o", "uniform", "snapkv"])
@pytest.mark.parametrize("scope", ["model", "head"])
def test_a_cache_that_holds_all_keeps_what_the_whole_text_does(
    method: str, scope: str, tmp_path: Path
) -> None:
    options = {"kv_method": method, "kv_scope": scope, "dataset_name": VERBOSE}
    store(tmp_path / "whole", **options)
    bounded(tmp_path / "bounded", 64, **options)
    for ours, theirs in zip(contents(tmp_path / "bounded"), contents(tmp_path / "whole")):
        assert ours.keys() == theirs.keys()
        for name, part in ours.items():
            if part.dtype.is_floating_point:
                torch.testing.assert_close(part, theirs[name], atol=1e-4, rtol=1e-3)
            else:
                assert torch.equal(part, theirs[name]), name


def test_columns_of_a_cut_cache_are_those_of_the_text(tmp_path: Path) -> None:
    """The newest reasoning positions stay in the cache, whatever else is dropped."""
    options = {"kv_method": "right_crop", "dataset_name": VERBOSE}
    store(tmp_path / "whole", **options)
    bounded(tmp_path / "bounded", 16, cache_scores="recent", **options)
    for ours, theirs in zip(contents(tmp_path / "bounded"), contents(tmp_path / "whole")):
        assert torch.equal(ours["columns"], theirs["columns"])
        assert torch.equal(ours["positions"], theirs["positions"])
        first, whole = ours["keys"], theirs["keys"]
        assert torch.allclose(first[0], whole[0], atol=1e-4)
        assert not torch.allclose(first[-1], whole[-1], atol=1e-4)


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cut") / "store"
    cache = "--capture_chunk 4 --cache_budget 16"
    assert command(extract_main, [*FLAGS, "--store", str(folder), *cache.split()]) == 0
    return folder


def test_the_command_stores_with_a_bounded_cache_and_a_run_reads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--store", str(tmp_path / "store")]
    cache = "--capture_chunk 4 --cache_budget 16 --cache_sinks 2 --cache_scores h2o"
    argv = [*FLAGS, "--model_name", "kava/shell-llama", *where]
    assert command(extract_main, [*argv, *cache.split(), "--include", "calibration"]) == 0
    printed = capsys.readouterr().out
    assert "cache_budget 16, cache_block 4, cache_sinks 2, cache_recent 7, cache_scores h2o" in (
        printed
    )
    run = ["--max_steps", "2", "--batch_size", "4", "--output_dir", str(tmp_path / "run")]
    assert command(train_main, [*argv, *cache.split(), *run]) == 0
    assert all_rows(tmp_path / "run")
    capsys.readouterr()
    live = [flag for flag in [*argv, *run, "--resume"] if flag not in where]
    assert "name it by --store" in refusal(train_main, [*live, *cache.split()], capsys)
    assert "cache_budget" in refusal(train_main, live, capsys)


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ("", "holds cache budget 16, this run needs None: a bounded cache is an approximation"),
        ("--capture_chunk 4 --cache_budget 20", "holds cache budget 16, this run needs 20"),
        ("--capture_chunk 5 --cache_budget 16", "holds cache block 4, this run needs 5"),
        (
            "--capture_chunk 4 --cache_budget 16 --cache_scores h2o",
            "holds cache scores 'rkv', this run needs 'h2o'",
        ),
        ("--capture_chunk 4 --cache_budget 16 --rkv_lambda 0.2", "holds lam 0.1, this run needs"),
        ("--capture_chunk 4 --cache_budget 16 --store_tier full", "--store_tier full reads whole"),
        ("--cache_sinks 3", "--cache_sinks 3 is about a cache of bounded size"),
    ],
)
def test_a_run_of_another_cache_than_the_stores_is_refused(
    flags: str, part: str, cut: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*FLAGS, "--model_name", "kava/shell-llama", "--alignment_mode", "identity"]
    argv += ["--store", str(cut), "--output_dir", str(tmp_path / "run"), *flags.split()]
    assert part in refusal(train_main, argv, capsys)
    assert not (tmp_path / "run").exists()


def test_a_run_with_a_bounded_cache_does_not_take_whole_texts(tmp_path: Path) -> None:
    options = {"dataset_name": VERBOSE, "capture_chunk": 4}
    store(tmp_path / "whole", **options)
    with pytest.raises(ValueError, match="holds cache budget None, this run needs 16"):
        use(tmp_path / "whole", **options, cache_budget=16)
    use(tmp_path / "whole", **options)


def test_a_store_of_another_cache_is_not_gone_on_with(tmp_path: Path) -> None:
    bounded(tmp_path / "store", 16)
    with pytest.raises(ValueError, match="cache budget 16, this extraction has 20"):
        bounded(tmp_path / "store", 20)
    with pytest.raises(ValueError, match="cache block 4, this extraction has 5"):
        bounded(tmp_path / "store", 16, capture_chunk=5)


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ("--cache_budget 16", "say how long these are, by --capture_chunk"),
        ("--cache_budget 0 --capture_chunk 4", "--cache_budget 0 must be at least 1"),
        ("--cache_recent 8", "--cache_recent 8 is about a cache of bounded size"),
        (
            "--capture_chunk 4 --cache_budget 8 --cache_sinks 4 --cache_recent 5",
            "4 sinks and 5 recent positions are more than the 8 of the cache",
        ),
        ("--capture_chunk 4 --cache_budget 1", "fewer positions than --target_len 2"),
        ("--capture_chunk 4 --cache_budget 16 --full", "--full needs all of them"),
        ("--capture_chunk 4 --cache_budget 16 --kv_method full", "--kv_method full needs all"),
        ("--capture_chunk 4 --cache_budget 16 --include codi", "which --include codi stores"),
        ("--capture_chunk 4 --cache_budget 16 --codi_weight 1", "which --codi_weight matches"),
        ("--capture_chunk 4 --cache_budget 16 --cache_scores tova", "choose rkv, h2o, recent"),
    ],
)
def test_what_a_bounded_cache_does_not_leave_is_refused(
    flags: str, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*FLAGS, "--store", str(tmp_path / "store"), *flags.split()]
    assert part in refusal(extract_main, argv, capsys)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("budget", "changes", "part"),
    [
        (3, {"cache_sinks": 3, "cache_recent": 0}, "reasoning positions of sample"),
        (
            12,
            {"cache_sinks": 12, "cache_recent": 0},
            "looks at their queries: raise --cache_recent 0",
        ),
        (
            16,
            {
                "model_name": "kava/tiny-qwen2",
                "alignment_mode": "structured",
                "max_length": 256,
            },
            "--token_alignment hard reads the teacher's cache",
        ),
    ],
)
def test_a_sample_of_which_too_little_is_left_is_named(
    budget: int, changes: dict[str, Any], part: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=part):
        bounded(tmp_path / "store", budget, **changes)
