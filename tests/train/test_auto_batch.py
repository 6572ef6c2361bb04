"""`--batch_size auto`: what it chooses, what it leaves as it was, and what a resumed run takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from runs import all_rows, distiller_and_batch, interrupted, run, small, weights

from kava.commands.train import main
from kava.data.collate import Collator
from kava.errors import KavaError
from kava.train import auto_batch
from kava.train.auto_batch import SHARE, choose, free_bytes, settle_batch_size
from kava.train.build import build_run
from kava.train.data import load_data
from kava.train.flags import parse_config
from kava.train.models import build_tokenizer
from one_line import refusal


@pytest.mark.parametrize("base", [0, 70])
@pytest.mark.parametrize("free", [500, 1000, 5000, 123_456])
def test_it_is_the_largest_power_of_two_that_fits(free: int, base: int) -> None:
    """Oracle: all sizes, one after the other."""
    asked: list[int] = []

    def peak_of(size: int) -> int:
        asked.append(size)
        return base + 100 * size

    fits = [n for n in (2**k for k in range(9)) if base + 100 * n <= SHARE * free - 50]
    found = choose(peak_of, 256, free, 50)
    assert found.size == fits[-1]
    # no size is tried that is foretold to pass the limit, but the first doubling
    assert max(asked) <= max(2, found.size)


def test_the_size_divides_the_effective_batch_and_is_no_more_than_the_samples() -> None:
    found = choose(lambda size: size, 1000, 10**9, 0, effective=24)
    assert found.size == 8
    assert "16 does not divide --effective_batch_size 24" in found.reason
    assert choose(lambda size: size, 37, 10**9, 0).size == 32


def test_one_sample_that_does_not_fit_is_refused() -> None:
    with pytest.raises(KavaError, match=r"a step of one sample .*--gradient_checkpointing"):
        choose(lambda size: 1000 * size, 8, 1000, 0)


def test_a_size_that_runs_out_of_memory_is_not_taken() -> None:
    def peak_of(size: int) -> int:
        if size > 4:
            raise torch.OutOfMemoryError
        return 1

    assert choose(peak_of, 64, 10**9, 0) == (4, "a step of 8 runs out of memory")


def test_the_dry_steps_change_nothing() -> None:
    config = small(batch_size="auto", projection_dropout=0.1)
    distiller, _ = distiller_and_batch(config)
    tokenizer = build_tokenizer(config)
    samples = load_data(config, tokenizer).train[:8]
    # a buffer that every pass changes, as a running mean does
    distiller.register_buffer("passes", torch.zeros(()))
    distiller.register_forward_pre_hook(lambda part, args: part.passes.add_(1) and None)
    distiller.eval()
    before, state = weights(distiller), torch.random.get_rng_state()
    assert isinstance(tokenizer.pad_token_id, int)
    line = settle_batch_size(
        config, distiller, samples, Collator(tokenizer.pad_token_id), torch.device("cpu")
    )
    assert config.batch_size == 8
    assert line == "--batch_size auto: 8, since there are no 16 samples"
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[name], part) for name, part in weights(distiller).items())
    assert all(part.grad is None for part in distiller.parameters())
    assert distiller.passes == 0
    assert not distiller.training


def test_a_run_records_the_size_and_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"batch_size": "auto", "effective_batch_size": 16, "save_steps": 2}
    monkeypatch.setattr(auto_batch, "MOST", 4)
    whole = run(small(tmp_path / "whole", **options))
    assert whole.trainer.args.per_device_train_batch_size == 4
    assert whole.trainer.args.gradient_accumulation_steps == 4
    assert "--batch_size auto: 4 × 4 batches a step, since" in capsys.readouterr().out
    interrupted(small(tmp_path / "cut", **options), step=3)
    monkeypatch.setattr(auto_batch, "MOST", 16)  # another machine would choose another size
    run(small(tmp_path / "cut", **options, resume=True))
    assert all_rows(tmp_path / "cut") == all_rows(tmp_path / "whole")
    recorded = json.loads((tmp_path / "cut/checkpoint-4/kava.json").read_text())["config"]
    assert recorded["batch_size"] == 4
    fixed = small(tmp_path / "fixed", batch_size=4, effective_batch_size=16)
    assert all_rows(run(fixed).trainer.config.output_dir) == all_rows(tmp_path / "whole")


def test_the_word_is_taken_from_flags_and_files(tmp_path: Path) -> None:
    assert parse_config(["--batch_size", "auto"]).auto_batch
    file = tmp_path / "run.yaml"
    file.write_text("batch_size: auto\n", encoding="utf-8")
    assert parse_config(["--config", str(file)]).auto_batch
    assert not parse_config(["--config", str(file), "--batch_size", "4"]).auto_batch


def test_free_memory_is_some() -> None:
    assert free_bytes(torch.device("cpu")) > 1_000_000


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ("--batch_size most", "--batch_size 'most' is not a whole number"),
        ("--batch_size 0", "must be from 1 to"),
        ("--batch_size 8 --effective_batch_size 12", "is no multiple of --batch_size 8"),
        (
            "--batch_size 8 --effective_batch_size 16 --gradient_accumulation_steps 4",
            "leave one out",
        ),
    ],
)
def test_sizes_that_do_not_fit_each_other_are_refused(
    flags: str, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--model_name", "kava/shell-teacher", "--output_dir", str(tmp_path / "run")]
    assert part in refusal(main, [*argv, *flags.split()], capsys)


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="several train: give a number"):
        build_run(small(tmp_path, batch_size="auto"))
