"""Flags of other programs: the table, the page, and the commands that their users know."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

from conftest import ROOT
from flags.test_check import said
from flags.usages import USAGES, name_of
from kava.flags import Usage
from kava.flags.aliases import table
from kava.flags.known import Instead, Same
from kava.train.config import TrainConfig
from kava.train.flags import USAGE, parse_config


@pytest.mark.parametrize("usage", USAGES.values(), ids=name_of)
def test_every_known_flag_is_taken_or_answered(
    usage: Usage[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, meant in usage.known.items():
        if name in usage.settings:
            continue  # of a command that has it itself
        if isinstance(meant, Same):
            assert meant.flag in usage.settings, f"{usage.prog} --{name} means no flag"
            for ours in meant.values.values():
                assert ours in (usage.settings[meant.flag].flag.choices or ())
            continue
        line = said(usage, [f"--{name}", "x"], capsys)
        assert f"error: --{name} {meant.answer}; see" in line
        for flag in re.findall(r"--(\w+)", meant.answer):
            everywhere = {key for one in USAGES.values() for key in one.settings}
            assert flag in {*everywhere, "best"}, f"{name} names --{flag}, which no command has"
        if meant.where is None and meant.counts is None:
            for word in meant.harmless:
                assert usage.read([f"--{name}", word]) == {}


def test_the_page_holds_the_table() -> None:
    page = (ROOT / "docs" / "aliases.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `--(\w+)` \| (.+) \|$", page, flags=re.M)
    assert rows == list(table())


OTHERS = "--model_name gpt2 --teacher_name gpt2-medium --dataset_name gsm8k --output_dir out"


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        ("--teacher_model gpt2-medium --model_name gpt2", {"teacher_name": "gpt2-medium"}),
        ("--train_file data.jsonl", {"dataset_name": "data.jsonl"}),
        ("--dataset_name openai/gsm8k --dataset_config main --dataset_split train", {}),
        ("--per_device_train_batch_size 4 --num_train_epochs 3 --learning_rate 2e-5",
         {"batch_size": 4, "epochs": 3.0, "lr": 2e-5}),
        ("--alpha2 0.5 --ce_loss_weight 2", {"kv_weight": 0.5, "ce_weight": 2.0}),
        ("--kv_loss_weight 0.1 --kv_compression right", {"kv_method": "right_crop"}),
        ("--kv_compression r-kv --kv_loss_type smoothl1", {"kv_method": "rkv"}),
        ("--use_attention_weighted_kv --attention_weighted_kv_warmup 20",
         {"attention_weighted_kv": True, "attention_weighted_warmup": 20}),
        ("--shuffle_kv", {"wrong_sample": True}),
        ("--gradient_checkpointing true --lora_rank 8 --lora_target_modules q_proj,v_proj",
         {"gradient_checkpointing": True, "lora_r": 8, "lora_targets": ["q_proj", "v_proj"]}),
        ("--lora_r 8 --teacher adapter_off --model_name gpt2",
         {"adapter_off": True, "teacher_name": "gpt2"}),
        ("--torch_dtype bfloat16", {"dtype": "bfloat16"}),
        ("--distill_layers 0-12 --distill_k_only", {"distill_layers": "0-12"}),
        ("--fp16 false --use_lora no --gradient_checkpointing False --num_workers 0", {}),
        ("--trust_remote_code False --bf16 true", {"bf16": True}),
        ("--evaluation_strategy steps --report_to tensorboard --load_best_model_at_end false", {}),
        ("--layer_map_strategy uniform --num_teachers 1", {"layer_mapping": "uniform"}),
        ("--save_interval 100 --eval_interval 50", {"save_steps": 100, "eval_steps": 50}),
        ("--gradient_accumulation 4 --lr_student 5e-5", {"gradient_accumulation_steps": 4}),
        ("--model_name_or_path gpt2 --teacher_models gpt2-medium",
         {"model_name": "gpt2", "teachers": ["gpt2-medium"], "teacher_name": "gpt2-medium"}),
        ("--student_model gpt2 --teacher_models A B --fusion_method learnable --router_type gate",
         {"teachers": ["A", "B"], "fusion": "learnable", "router_type": "gate"}),
        ("--teacher_models A,B --num_teachers 2 --fusion_strategy fixed --fixed_weights 0.5,0.5",
         {"teachers": ["A", "B"], "fixed_weights": [0.5, 0.5]}),
        ("--teacher_models A B --fusion_strategy similarity --similarity_metric euclidean "
         "--temperature 0.5", {"similarity": "l2", "fusion_temperature": 0.5}),
        ("--teacher_models A,B --fusion_strategy learnable --learnable_router_type attention "
         "--router_entropy_weight 0.02", {"router_type": "attention",
                                          "entropy_reg_strength": 0.02}),
        ("--teacher_models A,B --fusion_method learnable --entropy_reg_weight 0.01 "
         "--entropy_target diverse", {"entropy_reg_strength": 0.01, "entropy_target": "diverse"}),
        ("--lambda_k 1 --lambda_v 1.0 --beta_cos 0 --gamma_kl 0.0 --delta_ce 0.5",
         {"ce_weight": 0.5}),
        ("--subset_size 1000 --model_name gpt2 --teacher_name gpt2-medium --output_dir out "
         "--epochs 1 --batch_size 4 --gradient_accumulation_steps 4 --lr 5e-5 --max_length 256 "
         "--target_len 24 --kv_method rkv --kv_loss mercator --rkv_lambda 0.1 --dataset_name gsm8k "
         "--kv_weight 1.0 --codi_weight 0.5 --cka_weight 0.05 --use_cka_layer_mapping "
         "--alignment_mode structured --map_proj_share_dim --map_proj_init_uniform "
         "--save_steps 100 --logging_steps 10 --device cuda", {"device": "cuda"}),
    ],
)  # fmt: skip
def test_a_command_that_users_know_is_taken(command: str, settings: dict[str, Any]) -> None:
    config = parse_config(shlex.split(command))
    assert {name: getattr(config, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("--trust_remote_code", "is refused on purpose: code that comes with a checkpoint"),
        ("--trust_remote_code True", "is refused on purpose"),
        ("--teacher_models A B --num_teachers 3", "is the number of names behind --teachers"),
        ("--num_teachers 2", "is the number of names behind --teachers"),
        ("--router_hidden_dim 256", "is the size of what the router reads"),
        ("--phase 4", "say what a phase is by --teachers, --teacher_prompts and --fusion"),
        ("--train_phase 3", "kava curriculum run"),
        ("--lambda_k 2", "--alpha_k does, with --kv_loss structural or smooth_l1_alpha"),
        ("--beta_cos 0.1", "--kv_loss mercator compares directions"),
        ("--gamma_kl 0.01", "--alpha_attn does, with --kv_loss structural"),
        ("--teacher_models A --teachers B", "mean the same: leave one out"),
        ("--device_map auto", "use --device auto"),
        ("--cache_dir /data", "set HF_HOME"),
        ("--dataset_config wikitext-2-raw-v1", "a task knows its own"),
        ("--dataset_config main --dataset_name svamp", "a task knows its own"),
        ("--num_workers 4", "leave it out"),
        ("--load_in_8bit true", "--teacher_quantization 8bit"),
        ("--lr 1 --learning_rate 1", "mean the same"),
        ("--batch_size most", "--batch_size 'most' is not a whole number"),
        ("--student gpt2", "the student's model is named by --model_name"),
        ("--modelname gpt2", "unknown flag --modelname (did you mean --model_name?)"),
    ],
)
def test_a_command_that_means_something_else_is_answered(
    command: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in said(USAGE, shlex.split(command), capsys)


def test_a_file_names_several_teachers_as_flags_do() -> None:
    file = {"teacher_models": "A, B", "num_teachers": 2, "fusion_strategy": "fixed"}
    expected = {"teachers": ["A", "B"], "fusion": "fixed"}
    assert USAGE.read_mapping(file, "x.yaml") == expected
    assert USAGE.read_mapping({**file, "teacher_models": ["A", "B"]}, "x.yaml") == expected


def test_a_known_flag_is_none_of_ours() -> None:
    for usage in USAGES.values():
        assert not usage.known.keys() & usage.settings.keys() - {"model_name", "teacher_name"}, (
            usage.prog
        )
    assert isinstance(USAGE.known["trust_remote_code"], Instead)
    assert TrainConfig is USAGE.kind
