"""The flags that users of other programs know: the Hugging Face trainer's, and earlier KV scripts'.

One table for the command line, for keys of a `--config` file, and for docs/aliases.md, which a
test compares with it.
"""

from __future__ import annotations

from collections.abc import Iterator

from kava.flags.known import OFF, Instead, Known, Same

_PHASE = (
    "selects nothing by itself: say what a phase is by --teachers, --teacher_prompts and --fusion, "
    "or let kava curriculum run go through all of them"
)
_QUANTISATION = (
    "quantises one of two models without saying which: --teacher_quantization 8bit or 4bit does, "
    "of a frozen teacher, and what is trained is not quantised"
)
_ONE = ("1", "1.0")
_ZERO = ("0", "0.0")

ANYWHERE: Known = {
    "trust_remote_code": Instead(
        "is refused on purpose: code that comes with a checkpoint is never run; use a model whose "
        "architecture transformers has",
        OFF,
    ),
    "cache_dir": Instead(
        "is left to the Hugging Face libraries, for models and data alike: set HF_HOME in the "
        "environment"
    ),
    "device_map": Instead(
        "spreads a model over devices, and here a model is on one: use --device auto, cpu, cuda, "
        "cuda:N or mps"
    ),
}
"""Of every command that loads a model."""

READING: Known = {
    **ANYWHERE,
    "torch_dtype": Same("dtype"),
    "dataset": Same("dataset_name"),
    "dataset_path": Same("dataset_name"),
    "train_file": Same("dataset_name"),
    "dataset_split": Same("split"),
    "dataset_config": Instead(
        "names a part of a hub's data set, and a task knows its own: leave it out, or save the "
        "part as a file and name that by --dataset_name",
        ("main",),
        ("dataset_name", ("gsm8k", "openai/gsm8k")),
    ),
    "num_workers": Instead(
        "counts processes that load batches, and samples are encoded once, before training: leave "
        "it out",
        ("0",),
    ),
}
"""Of every command that reads data, too."""

MODELS: Known = {
    "model_name_or_path": Same("model_name"),
    "student_model": Same("model_name"),
    "student_model_name_or_path": Same("model_name"),
    "teacher": Same("teacher_name"),
    "teacher_model": Same("teacher_name"),
    "teacher_model_name_or_path": Same("teacher_name"),
}
"""Of commands with a student and a teacher."""

TEACHERS: Known = {
    "teacher_models": Same("teachers", commas=True),
    "num_teachers": Instead(
        "is the number of names behind --teachers: leave it out",
        ("1",),
        where=("teachers", (None,)),
        counts="teachers",
    ),
    "fusion_method": Same("fusion"),
    "fusion_strategy": Same("fusion"),
    "temperature": Same("fusion_temperature"),
    "similarity_metric": Same("similarity", {"euclidean": "l2"}),
    "learnable_router_type": Same("router_type"),
    "router_hidden_dim": Instead(
        "is the size of what the router reads, the student's values at one position: leave it out"
    ),
    "router_entropy_weight": Same("entropy_reg_strength"),
    "entropy_reg_weight": Same("entropy_reg_strength"),
    "phase": Instead(_PHASE),
    "train_phase": Instead(_PHASE),
}
"""Of commands with several teachers."""

TRAINING: Known = {
    **READING,
    **MODELS,
    **TEACHERS,
    "alpha2": Same("kv_weight"),
    "kv_loss_weight": Same("kv_weight"),
    "ce_loss_weight": Same("ce_weight"),
    "delta_ce": Same("ce_weight"),
    "shuffle_kv": Same("wrong_sample"),
    "use_attention_weighted_kv": Same("attention_weighted_kv"),
    "attention_weighted_kv_warmup": Same("attention_weighted_warmup"),
    "use_teacher_attention": Instead(
        "is what rkv, h2o, snapkv and tova do by themselves: leave it out; --attention_weighted_kv "
        "weighs the loss by it",
        OFF,
    ),
    "cka_layers": Instead(
        "restricts one loss to some layers: --distill_layers restricts the KV and the CKA loss"
    ),
    "rkv_keep_recent": Instead(
        "keeps the newest positions whatever their score: --kv_method rkv_official does"
    ),
    "kv_compression": Same("kv_method", {"right": "right_crop", "r-kv": "rkv"}),
    "kv_loss_type": Same("kv_loss", {"smoothl1": "smooth_l1"}),
    "layer_mapping_strategy": Same("layer_mapping"),
    "layer_map_strategy": Same("layer_mapping"),
    "alignment_strategy": Instead(
        "chooses between cutting a teacher's positions off and blending them, and nothing is cut "
        "here: use --token_alignment hard or soft"
    ),
    "head_adapt_strategy": Instead(
        "adapts heads and head dims: --alignment_mode structured does, and flat without their "
        "structure"
    ),
    "rope_scaling": Instead(
        "is read from each model's own configuration; --key_space unrotated takes the rotation out"
    ),
    "rope_scaling_method": Instead(
        "is read from each model's own configuration; --key_space unrotated takes the rotation out"
    ),
    "lambda_k": Instead(
        "weighs keys: --alpha_k does, with --kv_loss structural or smooth_l1_alpha; the other "
        "losses are the mean of keys and values, so that 1 and 1 are --kv_weight 2",
        _ONE,
    ),
    "lambda_v": Instead(
        "weighs values: --alpha_v does, with --kv_loss structural or smooth_l1_alpha; the other "
        "losses are the mean of keys and values, so that 1 and 1 are --kv_weight 2",
        _ONE,
    ),
    "beta_cos": Instead(
        "weighs directions beside the distance: --kv_loss mercator compares directions", _ZERO
    ),
    "gamma_kl": Instead(
        "weighs a divergence of attention: --alpha_attn does, with --kv_loss structural", _ZERO
    ),
    "teacher_kv_dir": Same("store"),
    "max_samples": Same("subset_size"),
    "train_samples": Same("subset_size"),
    "val_samples": Same("eval_size"),
    "use_extended_datasets": Instead("adds data sets: use --dataset_name mix:TASK=SHARE,…", OFF),
    "num_train_epochs": Same("epochs"),
    "per_device_train_batch_size": Same("batch_size"),
    "per_device_eval_batch_size": Same("eval_batch_size"),
    "gradient_accumulation": Same("gradient_accumulation_steps"),
    "learning_rate": Same("lr"),
    "lr_student": Same("lr"),
    "lr_scheduler_type": Same("lr_scheduler"),
    "warmup_ratio": Instead("is a share of the run: use --warmup_steps", ("0", "0.0")),
    "save_interval": Same("save_steps"),
    "save_strategy": Instead("is by steps: use --save_steps", ("steps",)),
    "eval_interval": Same("eval_steps"),
    "eval_strategy": Instead("is by steps: use --eval_size and --eval_steps", ("steps",)),
    "evaluation_strategy": Instead("is by steps: use --eval_size and --eval_steps", ("steps",)),
    "load_best_model_at_end": Instead(
        "is done where a checkpoint is read: kava evaluate --best takes the best", OFF
    ),
    "metric_for_best_model": Instead(
        "is the held-out accuracy, by which kava evaluate --best chooses", ("eval_accuracy",)
    ),
    "use_wandb": Instead("names one tracker: use --report_to wandb", OFF),
    "logging_dir": Instead("is the folder tensorboard in --output_dir: leave it out"),
    "overwrite_output_dir": Same("overwrite"),
    "resume_from_checkpoint": Same("resume_from"),
    "load_in_8bit": Instead(_QUANTISATION, OFF),
    "load_in_4bit": Instead(_QUANTISATION, OFF),
    "use_lora": Instead("is said by --lora_r, the rank of the adapters: pass that", OFF),
    "lora_rank": Same("lora_r"),
    "lora_target_modules": Same("lora_targets", commas=True),
}
"""Of `kava train`."""

PROFILING: Known = {
    **TRAINING,
    "seq_length": Instead("makes up a length, and real samples are profiled: use --max_length"),
}
"""Of `kava profile`."""

_NO_STREAM: Known = {
    "streaming": Instead(
        "is of kava train; here a part of the data is read before: use --num_samples or "
        "--calibration_samples",
        OFF,
    )
}

COMPARING_LAYERS: Known = {
    **READING,
    **_NO_STREAM,
    "model_name": Same("student_model"),
    "model_name_or_path": Same("student_model"),
    "teacher_name": Same("teacher_model"),
}
"""Of `kava layer-map`."""

CALIBRATING: Known = {
    **READING,
    **_NO_STREAM,
    **MODELS,
    "teacher_models": Same(
        "teacher_name", several="names several, and a map is of one: name it by --teacher_name"
    ),
    "num_samples": Same("calibration_samples"),
}
"""Of `kava calibrate`."""

ANSWERING: Known = {
    **ANYWHERE,
    "checkpoint_dir": Same("checkpoint"),
    "model_path": Same("checkpoint"),
    "model_name": Same("checkpoint"),
}
"""Of `kava generate`."""

EXPORTING: Known = {
    **ANYWHERE,
    "checkpoint_dir": Same("checkpoint"),
    "model_path": Same("checkpoint"),
    "model_name": Same("checkpoint"),
    "torch_dtype": Same("dtype"),
    "push_to_hub": Same("push"),
    "repo_id": Same("push"),
    "hub_model_id": Same("push"),
    "overwrite_output_dir": Same("overwrite"),
}
"""Of `kava export`."""

EVALUATING: Known = {
    **ANSWERING,
    "dataset_split": Same("split"),
    "eval_dataset": Same("dataset_name"),
    "eval_datasets": Same("tasks"),
    "output_file": Same("output"),
}
"""Of `kava evaluate`."""


def table() -> Iterator[tuple[str, str]]:
    """What docs/aliases.md says of each: the flag, and what becomes of it.

    Example:
        >>> dict(table())["learning_rate"]
        '`--lr`'
    """
    for name, meant in PROFILING.items():
        if isinstance(meant, Instead):
            nothing = f" (`{'`, `'.join(meant.harmless)}`: taken)" if meant.harmless else ""
            if meant.counts is not None:
                nothing = " (the right number: taken)"
            yield name, f"refused: {meant.answer}{nothing}"
        else:
            words = "".join(f"; `{theirs}` is `{ours}`" for theirs, ours in meant.values.items())
            how = "; with spaces or commas between them" if meant.commas else ""
            yield name, f"`--{meant.flag}`{words}{how}"
