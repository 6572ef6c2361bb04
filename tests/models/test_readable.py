"""What a model cannot read is found before it is loaded, in every command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, OPTConfig

from kava.cli import run
from kava.commands.calibrate import main as calibrate
from kava.commands.costs import main as costs
from kava.commands.evaluate import main as evaluate_main
from kava.commands.generate import main as generate_main
from kava.commands.layer_map import main as layer_map
from kava.commands.profile import main as profile
from kava.commands.train import main as train
from kava.models.tokenizers import byte_tokenizer
from kava.train.build import build_run
from kava.train.config import TrainConfig

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LONG = 30  # tokens of a prompt, and of the reasoning
GOOD = "kava/tiny-gpt2"


def rows(path: Path, text: str = "q") -> Path:
    row = {"reasoning": "r" * LONG, "answer": "a" * 5}
    questions = (text * (LONG - 2) + str(number) for number in range(8))
    path.write_text("".join(json.dumps({"question": q, **row}) + "\n" for q in questions))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., str]:
    def save(positions: int = 512, family: str = "gpt2", vocab_size: int = 258) -> str:
        kinds: dict[str, Any] = {"gpt2": GPT2Config, "opt": OPTConfig, "llama": LlamaConfig}
        config = kinds[family](
            **SIZE, vocab_size=vocab_size, max_position_embeddings=positions, pad_token_id=1
        )
        place = tmp_path / "model"
        AutoModelForCausalLM.from_config(config).save_pretrained(place)
        byte_tokenizer().save_pretrained(place)
        return str(place)

    return save


def settings(tmp_path: Path, **changes: Any) -> TrainConfig:
    values = {
        "dataset_name": str(rows(tmp_path / "data.jsonl")),
        "keep_last_step": True,
        "target_len": 8,
        "max_steps": 1,
        "batch_size": 2,
        "device": "cpu",
        "output_dir": str(tmp_path / "run"),
        "no_progress": True,
        **changes,
    }
    return TrainConfig(**values)


# prompt 30 (with its line break), reasoning 31, cue and answer; 8 latents and two marks between
@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_a_text_longer_than_the_table_of_positions_is_named_before_a_step(
    family: str, folder: Callable[..., str], tmp_path: Path
) -> None:
    model = folder(40, family)
    with pytest.raises(ValueError, match="tokens, more than the 40 positions of") as caught:
        build_run(settings(tmp_path, model_name=model))
    assert "pass --overflow skip, or a model that reads further" in str(caught.value)
    with pytest.raises(ValueError, match="no sample fits the positions of"):
        build_run(settings(tmp_path, model_name=model, overflow="skip"))
    assert not (tmp_path / "run").exists()


def test_rotary_positions_have_no_end(folder: Callable[..., str], tmp_path: Path) -> None:
    build_run(settings(tmp_path, model_name=folder(40, "llama"))).trainer.train()


def test_a_teachers_positions_count_too(folder: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"more than the 40 positions of '.*model'"):
        build_run(settings(tmp_path, model_name=GOOD, teacher_name=folder(40)))


def test_samples_that_are_too_long_are_skipped_and_counted(
    folder: Callable[..., str], tmp_path: Path
) -> None:
    data = rows(tmp_path / "some.jsonl")
    short = {"question": "q", "reasoning": "r" * 10, "answer": "a"}
    data.write_text(data.read_text() + f"{json.dumps(short)}\n" * 2)
    config = settings(tmp_path, model_name=folder(40), dataset_name=str(data), overflow="skip")
    run_of = build_run(config)
    assert len(run_of.data.train) == 2
    assert "8 longer than a model's positions" in str(run_of.data.report)
    run_of.trainer.train()


def test_prompt_latents_and_answer_count_where_the_text_would_fit(
    folder: Callable[..., str], tmp_path: Path
) -> None:
    config = settings(tmp_path, model_name=GOOD)
    (sample, *_) = build_run(config).data.train
    written = len(sample.input_ids)
    answer = written - sample.answer_start
    most = sample.prompt_length + 2 + answer - 1
    fits = folder(written)  # the written text, to the last
    latents = written - most
    build_run(settings(tmp_path, model_name=fits, target_len=latents)).trainer.train()
    again = settings(tmp_path, model_name=fits, target_len=latents + 1, overwrite=True)
    with pytest.raises(ValueError, match=f"a prompt of {sample.prompt_length} tokens, "):
        build_run(again)


@pytest.mark.parametrize(
    "command",
    [
        (calibrate, ["--model_name", "{}", "--teacher_name", GOOD, "--output_dir", "no"]),
        (calibrate, ["--model_name", GOOD, "--teacher_name", "{}", "--output_dir", "no"]),
        (layer_map, ["--student_model", GOOD, "--teacher_model", "{}"]),
        (profile, ["--model_name", "{}", "--target_len", "3"]),
        (train, ["--model_name", "{}", "--target_len", "3"]),
    ],
    ids=["calibrate", "calibrate's teacher", "layer-map", "profile", "train"],
)
@pytest.mark.parametrize(
    ("positions", "vocab_size", "complaint"),
    [(40, 258, "more than the 40 positions of"), (512, 300, "")],
)
def test_every_command_that_reads_texts_says_so(
    command: tuple[Callable[[list[str]], int], list[str]],
    positions: int,
    vocab_size: int,
    complaint: str,
    folder: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    main, flags = command
    data = rows(tmp_path / "data.jsonl")
    monkeypatch.chdir(tmp_path)
    place = folder(positions, vocab_size=vocab_size)
    if not complaint:  # a token of the text beyond the embeddings
        tokenizer = byte_tokenizer()
        tokenizer.add_tokens([f"<{n}>" for n in range(60)] + ["qq"])
        tokenizer.save_pretrained(place)
        complaint = "has the token id 318, but"
    few = {calibrate: ["--calibration_samples", "8"], layer_map: ["--num_samples", "8"]}
    words = [flag.format(place) for flag in flags] + few.get(main, [])
    assert run(main, [*words, "--dataset_name", str(data), "--keep_last_step"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("kava: error: ")
    assert complaint in line


@pytest.mark.parametrize(
    ("main", "flags"),
    [
        (evaluate_main, ["{}", "--dataset_name", "data.jsonl", "--max_new_tokens", "20"]),
        (generate_main, ["{}", "--prompt", "q" * 29, "--max_new_tokens", "20"]),
        (costs, ["{}", "--dataset_name", "data.jsonl", "--max_new_tokens", "20"]),
    ],
    ids=["evaluate", "generate", "costs"],
)
def test_an_answer_that_would_run_past_the_positions_is_not_begun(
    main: Callable[[list[str]], int],
    flags: list[str],
    folder: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows(tmp_path / "data.jsonl")
    monkeypatch.chdir(tmp_path)
    assert run(main, [flag.format(folder(40)) for flag in flags]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"--max_new_tokens 20 does not fit the 40 positions of .* \(30 tokens\)", line)


def test_held_out_questions_are_held_to_the_positions_before_the_first_step(
    folder: Callable[..., str], tmp_path: Path
) -> None:
    config = settings(tmp_path, model_name=folder(100), eval_size=2, max_new_tokens=90)
    with pytest.raises(ValueError, match=r"90 does not fit the 100 .*10 latent ones"):
        build_run(config)
