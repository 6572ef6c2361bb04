"""Translate a configuration into the arguments of transformers' trainer."""

from __future__ import annotations

import torch
from transformers import TrainingArguments

from kava.models.devices import choose_device
from kava.train.config import TrainConfig
from kava.train.precision import check_device_precision


def training_arguments(config: TrainConfig, evaluates: bool, answers: bool) -> TrainingArguments:
    """The `TrainingArguments` of a run; its best checkpoint has the best held-out accuracy.

    Raises:
        ValueError: a device that cannot be used here, or that does not support the precision.
    """
    device = torch.device(choose_device(config.device))
    check_device_precision(config, device)
    arguments = TrainingArguments(
        output_dir=config.output_dir,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.lr,
        lr_scheduler_type=config.lr_scheduler,
        optim=config.optim,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=config.bf16,
        fp16=config.fp16,
        seed=config.seed,
        data_seed=config.seed,
        use_cpu=device.type == "cpu",
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=config.save_steps,
        save_only_model=config.save_only_model,
        save_total_limit=None,  # the checkpoint writer removes the checkpoints above the limit
        eval_strategy="steps" if evaluates else "no",
        eval_steps=config.eval_steps,
        metric_for_best_model="eval_accuracy" if answers else None,
        greater_is_better=True if answers else None,
        per_device_eval_batch_size=config.eval_batch_size,
        disable_tqdm=config.no_progress,
        report_to="none",
        remove_unused_columns=False,
        label_names=[],
        accelerator_config={"dispatch_batches": False},  # batches hold more than tensors
        ddp_find_unused_parameters=False,
        log_level="error",
    )
    if arguments.world_size == 1:
        use_one_device(arguments, device)
    elif device.index is not None:
        raise ValueError(
            f"--device {device} names one GPU, but {arguments.world_size} processes train: pass "
            f"--device cuda, and each takes its own"
        )
    return arguments


def use_one_device(arguments: TrainingArguments, device: torch.device) -> None:
    """Make a single process train on the configured device only.

    With several GPUs, transformers would use the first and split batches over all of them with
    `nn.DataParallel`, which cannot split the texts of a batch.
    """
    arguments._n_gpu = min(arguments.n_gpu, 1)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
        vars(arguments)["_setup_devices"] = device  # what `arguments.device` has cached
