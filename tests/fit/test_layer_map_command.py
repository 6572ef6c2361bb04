"""`kava layer-map` and the script of the same job, end to end."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, MambaConfig, PreTrainedTokenizerFast

from conftest import ROOT
from kava.align import StreamingCKA, load_layer_map
from kava.cli import run
from kava.commands.layer_map import main, make_layer_map, parse
from kava.data import Collator, Template, encode_records, load_records
from kava.data.pairing import encode_for_teacher
from kava.data.splits import data_hash
from kava.fit import LayerMapping
from kava.fit.paired_traces import paired_traces
from kava.models.load import load_model, load_tokenizer
from kava.models.tokenizers import byte_tokenizer

FLAGS = {
    "--student_model": "kava/shell-llama",
    "--teacher_model": "kava/shell-gpt2",
    "--dataset_name": "kava/shell-game?num_train=12",
    "--num_samples": "12",
    "--device": "cpu",
}


def argv(changes: dict[str, str] | None = None) -> list[str]:
    flags = FLAGS | (changes or {})
    return [part for name, value in flags.items() for part in (name, value)]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(capsys: pytest.CaptureFixture[str], changes: dict[str, str]) -> str:
    """The one line that a command gives, which leaves nothing behind."""
    before = set(Path().iterdir())
    capsys.readouterr()
    code = run(main, argv(changes))
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith({1: "kava: error: ", 2: "kava layer-map: error: "}[code])
    assert set(Path().iterdir()) == before
    return line


def test_layers_compared_in_chunks_are_alike() -> None:
    whole, found = (
        make_layer_map(parse(argv(flags))).similarity.mean
        for flags in ({}, {"--capture_chunk": "3"})
    )
    torch.testing.assert_close(found, whole, atol=1e-4, rtol=1e-3)


def test_two_tokenizers_two_families_one_map(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(main, argv()) == 0
    printed = capsys.readouterr().out
    assert sorted(path.name for path in Path().iterdir()) == ["map.json", "map.png"]
    mapping = LayerMapping.load("map.json")
    assert mapping.weights.shape == (2, 4)
    assert torch.equal(load_layer_map("map.json", 4, 2), mapping.weights)
    torch.testing.assert_close(mapping.weights.sum(1), torch.ones(2))
    assert (mapping.weights > 0).sum(1).tolist() == [2, 2]
    assert mapping.similarity.mean.max() > 0.05
    assert str(mapping) in printed
    assert "written to map.json and map.png" in printed
    assert Path("map.png").read_bytes().startswith(b"\x89PNG")
    records = load_records("kava/shell-game?num_train=12")
    facts = mapping.facts
    assert facts["data_hash"] == data_hash(records)
    assert facts["student_model"] == "kava/shell-llama"
    assert facts["teacher_model"] == "kava/shell-gpt2"
    assert facts["num_samples"] == 12
    assert facts["versions"].keys() == {"python", "kava", "torch", "transformers"}


def test_the_script_takes_the_same_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(main, argv({"--top_k": "3", "--output": "command.json"})) == 0
    path = ROOT / "experiments" / "precompute_layer_mapping.py"
    flags = argv({"--top_k": "3", "--output": "script.json"})
    monkeypatch.setattr(sys, "argv", [str(path), *flags])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    assert stop.value.code == 0
    assert Path("script.json").read_bytes() == Path("command.json").read_bytes()
    assert Path("script.png").read_bytes() == Path("command.png").read_bytes()
    assert (load_layer_map("script.json") > 0).sum(1).tolist() == [3, 3]


def test_samples_are_chosen_by_the_seed() -> None:
    few = {"--num_samples": "6", "--strategy": "monotone"}
    assert run(main, argv({**few, "--output": "a.json"})) == 0
    assert run(main, argv({**few, "--output": "b.json", "--seed": "1"})) == 0
    a, b = LayerMapping.load("a.json"), LayerMapping.load("b.json")
    assert a.facts["num_samples"] == b.facts["num_samples"] == 6
    assert a.facts["data_hash"] != b.facts["data_hash"]
    assert a.weights.argmax(1).tolist() == [0, 3]


def test_left_out_all_samples_are_taken_where_there_are_fewer_than_usual(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = {name: value for name, value in FLAGS.items() if name != "--num_samples"}
    assert run(main, [part for pair in flags.items() for part in pair]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "default: --num_samples 12, all that kava/shell-game?num_train=12 has"
    assert LayerMapping.load("map.json").facts["num_samples"] == 12


def test_templates_and_tokens_are_the_users(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"question": f"What is {i}?", "reasoning": f"It is {i} € and no more.", "answer": str(i)}
        for i in range(8)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    Path("rows.jsonl").write_text(text)
    own = {
        "--student_model": "kava/tiny-llama",
        "--teacher_model": "kava/tiny-gpt2",
        "--dataset_name": "rows.jsonl",
        "--num_samples": "8",
    }
    assert "no reasoning once the last of its 1 step" in refusal(capsys, own)
    parts = {"--question_template": "{question} ", "--reasoning_template": "{reasoning} "}
    assert run(main, [*argv(own | parts), "--keep_last_step", "--cue", "So "]) == 0
    assert "8 of 8 records" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--dataset_name": "nowhere.jsonl"}, "dataset 'nowhere.jsonl' is neither a file"),
        ({"--num_samples": "13"}, "--num_samples 13 is more than the 12 records"),
        ({"--num_samples": "0"}, "--num_samples 0 must be at least 1"),
        (
            {"--num_samples": "1"},
            "1 sample of kava/shell-game?num_train=12 with 3 reasoning tokens: layers are compared "
            "by CKA, which needs 4 or more; raise --num_samples",
        ),
        ({"--strategy": "best"}, "--strategy 'best' is unknown; choose top_k, monotone"),
        ({"--strategy": "monotone", "--top_k": "2"}, "--top_k 2 belongs to --strategy top_k"),
        ({"--top_k": "5"}, "top_k=5 must be from 1 to the number of teacher layers, 4"),
        ({"--output": "map.png"}, "--output map.png must end in .json"),
        ({"--teacher_model": "kava/huge"}, "unknown built-in model 'kava/huge'"),
        ({"--max_length": "20"}, "more than --max_length 20"),
    ],
)
def test_bad_input_is_one_line(
    changes: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capsys, changes)


def test_a_flag_that_is_missing_or_unknown_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(main, ["--student_model", "kava/tiny-llama"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--dataset_name and --teacher_model are missing, as in: kava layer-map" in line
    assert "unknown flag --top (did you mean --top_k?)" in refusal(capsys, {"--top": "3"})


@pytest.mark.parametrize("side", ["--student_model", "--teacher_model"])
def test_a_model_without_keys_and_values_is_one_line(
    side: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer: PreTrainedTokenizerFast = byte_tokenizer()
    config = MambaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, state_size=4
    )
    AutoModelForCausalLM.from_config(config).save_pretrained("mamba")
    tokenizer.save_pretrained("mamba")
    line = refusal(capsys, {side: "mamba"})
    assert "MambaForCausalLM has recurrent layers, which keep a state and no keys and" in line


@pytest.mark.shared
def test_pretrained_models_are_alike_on_the_same_text_only(shared: Path) -> None:
    data = json.loads((shared / "data" / "strategyqa" / "dev.json").read_text(encoding="utf-8"))
    rows = (
        {"question": row["question"], "reasoning": " ".join(row["facts"]), "answer": "yes"}
        for row in data
    )
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    names = [str(shared / "models" / name) for name in ("stories260K", "babyllama_tok105")]
    flags = {
        "--student_model": names[0],
        "--teacher_model": names[1],
        "--dataset_name": "rows.jsonl",
        "--num_samples": "40",
        "--overflow": "skip",
        "--question_template": "{question}",
        "--reasoning_template": " {reasoning} ",
        "--cue": "So: ",
    }
    config = parse([*argv(flags), "--keep_last_step"])
    similarity = make_layer_map(config).similarity
    assert 0.03 < similarity.keys.min() < similarity.keys.max() < 0.6
    assert 0.1 < similarity.values.min() < similarity.values.max() < 0.6

    student, teacher = map(load_tokenizer, names)
    template = Template(
        question="{question}", reasoning=" {reasoning} ", cue="So: ", drop_last_step=False
    )
    records = load_records("rows.jsonl")[:32]
    samples, _ = encode_records(records, student, template, 512, overflow="skip")
    samples, _ = encode_for_teacher(records, samples, teacher, template, 512, overflow="skip")
    batch = Collator(student.pad_token_id, teacher.pad_token_id)(samples)
    (pair,) = paired_traces(*map(load_model, reversed(names)), [batch])
    shuffled = StreamingCKA(5, 5)
    both = pair.mask & pair.mask.roll(1, 0)
    shuffled.update(pair.student.values, pair.teacher.values.roll(1, 0), both)
    assert shuffled.matrix().max() < 0.5 * similarity.values.min()
