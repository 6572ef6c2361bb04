"""The extractor that users of earlier scripts know, and the command."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import kava.train.stored as stored
from extract.stores import SMALL_STORE, check_same_losses, manifest_of, rows_of, store, write_rows
from kava.commands.extract import USAGE
from kava.commands.extract import main as extract_main
from kava.extract import TeacherKVExtractor, extract_from_dataset
from kava.models.load import load_model, load_tokenizer
from kava.store.manifest import FULL, TARGETS
from kava.trace import stack_past_kv
from kava.train.build import build_run
from train.runs import small

TEXTS = ["2 + 2 is 4.", "So it is.", "A longer text, of more tokens than the others."]


@pytest.fixture(scope="module")
def extractor() -> TeacherKVExtractor:
    return TeacherKVExtractor("kava/tiny-llama", device="cpu", batch_size=2)


def test_the_extractor_gives_the_models_own_cache(extractor: TeacherKVExtractor) -> None:
    kvs = extractor.extract_kvs(TEXTS, show_progress=False)
    assert isinstance(kvs, dict)
    model, tokenizer = load_model("kava/tiny-llama"), load_tokenizer("kava/tiny-llama")
    for row, text in enumerate(TEXTS):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            cache = stack_past_kv(model(ids, use_cache=True).past_key_values)  # [L, 2, 1, H, T, D]
        T = ids.shape[1]
        assert int(kvs["attention_mask"][row].sum()) == T
        assert torch.equal(kvs["input_ids"][row, :T], ids[0])
        for part, name in enumerate(("keys", "values")):
            own = cache[:, part, 0].transpose(1, 2).flatten(2)  # [L, T, H·D]
            torch.testing.assert_close(kvs[name][:, row, :T], own, rtol=1e-5, atol=1e-5)
    assert kvs["keys"].abs().sum() > 0


def test_the_extractor_reads_in_chunks(extractor: TeacherKVExtractor) -> None:
    chunked = TeacherKVExtractor("kava/tiny-llama", device="cpu", batch_size=2, capture_chunk=5)
    widths: list[int] = []
    chunked.model.get_input_embeddings().register_forward_hook(
        lambda module, args, output: widths.append(output.shape[1])
    )
    whole, found = (one.extract_kvs(TEXTS, show_progress=False) for one in (extractor, chunked))
    assert isinstance(whole, dict)
    assert isinstance(found, dict)
    assert max(widths) == 5
    for name in ("keys", "values"):
        torch.testing.assert_close(found[name], whole[name], rtol=1e-4, atol=1e-5)


def test_what_the_extractor_saves_is_read_again(
    extractor: TeacherKVExtractor, tmp_path: Path
) -> None:
    kvs = extractor.extract_kvs(TEXTS[:2], show_progress=False)
    assert isinstance(kvs, dict)
    extractor.save_kvs(kvs, tmp_path / "kvs.safetensors")
    again = TeacherKVExtractor.load_kvs(tmp_path / "kvs.safetensors")
    assert again["metadata"] == kvs["metadata"]
    assert all(torch.equal(again[name], kvs[name]) for name in ("keys", "values", "input_ids"))
    pair = extractor.extract_kvs(TEXTS[:2], return_dict=False, show_progress=False)
    assert torch.equal(pair[0], kvs["keys"])


def test_the_extractor_refuses_what_it_does_not_do() -> None:
    with pytest.raises(ValueError, match="capture_chunk=0 must be 1 or more"):
        TeacherKVExtractor("kava/tiny-llama", capture_chunk=0)
    with pytest.raises(ValueError, match="trust_remote_code=True is refused on purpose"):
        TeacherKVExtractor("kava/tiny-llama", trust_remote_code=True)
    with pytest.raises(ValueError, match="set HF_HOME"):
        TeacherKVExtractor("kava/tiny-llama", cache_dir="cache")
    short = TeacherKVExtractor("kava/tiny-llama", device="cpu", max_length=4)
    with pytest.raises(ValueError, match=r"text 1 has 9 tokens.* no text is cut"):
        short.extract_kvs(["2+2", "So it is."], show_progress=False)
    with pytest.raises(ValueError, match="texts must be a list"):
        short.extract_kvs([])


def test_a_data_set_becomes_a_store_of_whole_texts(tmp_path: Path) -> None:
    folder = extract_from_dataset(
        "kava/shell-teacher",
        "kava/shell-game?num_train=16",
        output_dir=tmp_path / "store",
        max_samples=8,
        target_len=2,
        max_length=64,
        device="cpu",
    )
    manifest = manifest_of(folder)
    assert [sum(s.num_samples for s in manifest.of_tier(t)) for t in (FULL, TARGETS)] == [8, 8]


def test_the_command_says_what_it_stored_and_needs_a_teacher_and_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        "--dataset_name",
        "kava/shell-game?num_train=8",
        "--target_len",
        "2",
        "--device",
        "cpu",
    ]
    named = [*flags, "--teacher_name", "kava/shell-teacher", "--no_progress"]
    folder = str(tmp_path / "store")
    assert extract_main([*named, "--store", folder]) == 0
    told = capsys.readouterr().out
    assert "targets:  8 samples in 1 shard" in told
    assert f"next:     kava train --store {folder}" in told
    for argv, message in (
        (named, "--store is missing"),
        ([*flags, "--store", folder], "name the teacher that reads"),
        ([*named, "--store", folder, "--store_tier", "full"], "says what kava train reads"),
        ([*named, "--store", folder, "--include", "all"], "--include 'all' is unknown"),
    ):
        with pytest.raises(SystemExit):
            extract_main(argv)
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert "--store" in USAGE.help()


@pytest.fixture
def folder_teacher(tmp_path: Path) -> str:
    """A teacher in a folder of its own."""
    folder = tmp_path / "teacher"
    load_model("kava/tiny-gpt2").save_pretrained(folder)
    load_tokenizer("kava/tiny-gpt2").save_pretrained(folder)
    return str(folder)


def test_a_teacher_that_was_trained_again_is_refused(tmp_path: Path, folder_teacher: str) -> None:
    settings = {
        **SMALL_STORE,
        "model_name": "kava/tiny-gpt2",
        "teacher_name": folder_teacher,
        "max_length": 128,
        "dataset_name": write_rows(tmp_path / "rows.jsonl", 8),
        "kv_scope": "model",
    }
    store(tmp_path / "store", **settings)
    read = {**settings, "store": [str(tmp_path / "store")], "aligner_fit": "frozen"}
    build_run(small("unused", **read))
    model = load_model(folder_teacher)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    model.save_pretrained(folder_teacher)
    with pytest.raises(ValueError, match=r"with other weights than .* has now: extract it again"):
        build_run(small("unused", **read))


def test_another_tokenizer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path / "store")
    monkeypatch.setattr(stored, "tokenizer_fingerprint", lambda tokenizer: "another")
    with pytest.raises(ValueError, match=r"holds tokenizer .*tokenizer has changed since"):
        build_run(small("unused", **SMALL_STORE, store=[str(tmp_path / "store")]))


def test_a_rounded_store_gives_nearly_the_same_losses(tmp_path: Path) -> None:
    live = rows_of(tmp_path / "live")
    for form, tolerance in (("bfloat16", 2e-2), ("float16", 2e-3), ("int8", 2e-2)):
        store(tmp_path / form, form=form)
        read = rows_of(tmp_path / f"from {form}", store=[str(tmp_path / form)])
        check_same_losses(live, read, tolerance)


def test_a_frozen_base_beneath_adapters_can_be_stored(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    adapters = {
        "model_name": "kava/shell-teacher",
        "teacher_name": "kava/shell-teacher",
        "lora_r": 2,
        "adapter_off": True,
    }
    store(tmp_path / "store", **adapters)
    live = rows_of(tmp_path / "live", **adapters)
    read = rows_of(tmp_path / "stored", store=[str(tmp_path / "store")], **adapters)
    check_same_losses(live, read)
