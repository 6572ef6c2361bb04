"""Extraction: a teacher reads every sample once, and the store grows shard by shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from kava.data.collate import Batch
from kava.data.encoded import Encoded
from kava.extract.bounded import check_alignment, read_bounded
from kava.extract.items import Read
from kava.extract.request import Request
from kava.extract.samples import as_alone, collator_of, read_ids, reads
from kava.extract.store_writer import StoreWriter, Work, begin, begun
from kava.files.locks import lock_folder
from kava.files.outputs import check_output_folder
from kava.fit.paired_traces import moved
from kava.models.capture import check_attention
from kava.models.devices import choose_device
from kava.models.rotary import rotary_of
from kava.ranks import ALONE, Ranks
from kava.store.fingerprints import tokenizer_fingerprint, weights_fingerprint
from kava.store.manifest import FULL, Manifest
from kava.store.teacher import (
    ANSWER,
    CALIBRATION,
    CODI,
    QUERIES,
    TEACHER_FILE,
    WEIGHTS,
    teacher_parts,
)
from kava.store.tensor_file import write_tensors
from kava.store.writer import CACHE_PARTS
from kava.train.cache_budget import budget_of, cache_settings
from kava.train.config import TrainConfig
from kava.train.data import Data, load_data
from kava.train.given import NOTHING_GIVEN, GivenRecords
from kava.train.kept import Keeper
from kava.train.limits import check_models, fit_data
from kava.train.models import (
    build_teacher_tokenizer,
    build_teacher_tokenizers,
    build_tokenizer,
    load_teacher,
)
from kava.train.scores import FILE_NAME, needs_scores, with_scores
from kava.train.side_passes import likelihoods
from kava.train.stored import (
    slots_of,
    store_reads,
    target_settings,
    teacher_settings,
    template_settings,
)
from kava.train.target import attention_flag
from kava.train.teacher_names import TeacherName, teachers_of
from kava.train.teacher_pass import read_frozen


def extract(
    request: Request, given: GivenRecords = NOTHING_GIVEN, ranks: Ranks = ALONE
) -> list[Path]:
    """Read all samples of a run with its teachers, and store what they leave behind.

    What an earlier extraction with the same settings has stored is not read again; a shard of it
    that is missing or damaged is made up for. Several processes share the batches,
    and each writes shards of its own.

    Args:
        request: what to store, and where.
        given: records in place of those that the configuration names.
        ranks: the processes that share the samples; each of them calls this.

    Returns:
        the folder of each teacher's store.

    Raises:
        ValueError: bad data or models, or a store of other settings in the folder.
        OSError: the folder cannot be written to.
        KavaError: another extraction is at work there.
    """
    config = request.config
    ranks.take_device(config.device)
    check_output_folder(request.store, "--store")
    readers = check_models(config)
    tokenizer = build_tokenizer(config)
    teacher_tokenizer = build_teacher_tokenizer(config, tokenizer)
    several = build_teacher_tokenizers(config, tokenizer)
    data = load_data(config, tokenizer, teacher_tokenizer, several, given)
    data = fit_data(config, data, tokenizer, readers)
    tokenizers = several or [tokenizer if teacher_tokenizer is None else teacher_tokenizer]
    teachers = teachers_of(config)
    folders = [request.store / one.label for one in teachers] if several else [request.store]
    for n, (one, folder) in enumerate(zip(teachers, folders)):
        with lock_folder(folder if ranks.first else None, "kava extract"):
            _extract_one(request, n, one, folder, data, tokenizer, tokenizers[n], ranks)
    return folders


def _extract_one(
    request: Request,
    n: int,
    one: TeacherName,
    folder: Path,
    data: Data,
    tokenizer: PreTrainedTokenizerBase,
    its_tokenizer: PreTrainedTokenizerBase,
    ranks: Ranks,
) -> None:
    config = request.config
    device = torch.device(choose_device(config.device))
    model = load_teacher(one, config)
    model.to(device)  # type: ignore[arg-type]
    samples = [as_alone(sample, n) for sample in [*data.train, *data.eval] if reads(sample, n)]
    if not samples:
        raise ValueError(f"there is no sample that teacher {one.label} reads")
    include = request.include | store_reads(config)
    wholes = request.full or CALIBRATION in include
    flag = attention_flag(config)
    if flag is None and include & {QUERIES, WEIGHTS}:
        flag = f"--include {' '.join(sorted(include & {QUERIES, WEIGHTS}))}"
    if flag is not None:
        check_attention(model, flag)
    rotary = rotary_of(model) if config.unrotates or wholes else None
    batch_size = config.batch_size
    if rotary is not None and rotary.num_positions is not None:
        longest = max(samples, key=lambda s: len(read_ids(s)))
        if len(read_ids(longest)) >= rotary.num_positions:
            batch_size = 1  # a text's rotation depends on the longest of its batch
            if wholes:
                raise ValueError(
                    f"the rotary scaling of {one.model} changes at {rotary.num_positions} "
                    f"positions, and sample {longest.id!r} has {len(read_ids(longest))}: its "
                    f"whole text cannot be stored; leave out --full and --include calibration"
                )
    collate = collator_of(tokenizer, its_tokenizer)
    budget = budget_of(config)

    def read(batch: Batch) -> Read:
        found = read_frozen(
            model,
            batch,
            chunk=config.capture_chunk,
            queries=flag is not None,
            hidden_states=CODI in include,
            likelihood=ANSWER in include,
        )
        asked = frozenset({"answer_BN", "text_BN"}) if ANSWER in include else frozenset()
        hidden = found.before_answer() if CODI in include else None
        return Read(found.trace, hidden, *likelihoods(found, asked))

    def read_targets(batch: Batch) -> Read:
        if budget is None:
            return read(batch)
        return read_bounded(model, batch, config, budget, flag is not None)

    targets = settings_of_targets(config, n, samples)
    trace = read_targets(moved(collate(samples[:1]), device)).trace
    settings = {
        "teacher": {**teacher_settings(one, model.config), "weights": weights_fingerprint(model)},
        "tokenizer": tokenizer_fingerprint(its_tokenizer),
        "template": template_settings(data.teacher_templates[n]),
        "targets": targets,
        "include": sorted(include - {CALIBRATION}),
        "whole_queries": wholes and flag is not None,
        "form": request.form,
        # behind what it follows from, so that a difference is named by its cause
        "geometry": {
            name: [part.shape[1], part.shape[2], part.shape[4]]
            for name, part in zip(CACHE_PARTS, (trace.keys, trace.values, trace.queries))
            if part is not None and (name != "queries" or QUERIES in include or wholes)
        },
    }
    with ranks.in_turn():
        if ranks.first:
            manifest = begin(folder, settings, config, n)
            if rotary is None and manifest.of_tier(FULL):
                rotary = rotary_of(model)  # of the whole texts of an earlier extraction
            write_tensors(folder / TEACHER_FILE, *_teacher_file(manifest, rotary, trace))
        else:
            manifest = begun(folder, settings)
    if needs_scores(config):  # in the folder, which is this extraction's now
        path = folder / FILE_NAME
        scored = (
            with_scores(config, model, part, records, data.template, path)
            for part, records in ((data.train, data.train_records), (data.eval, data.eval_records))
        )
        with ranks.in_turn():
            train, held_out = scored
        data = replace(data, train=train, eval=held_out)
        model.to(device)  # type: ignore[arg-type]
        samples = [as_alone(sample, n) for sample in [*train, *held_out] if reads(sample, n)]
    fitted = [sample for sample in data.train if sample.num_reasoning and reads(sample, n)]
    fitted = [sample.as_read_by(n) for sample in fitted[: config.calibration_samples]]
    keeper = None
    if targets is not None:
        keeper = Keeper(
            config,
            rotary,
            slots_of(config)[n],
            queries=QUERIES in include,
            weights=WEIGHTS in include,
        )
    store = StoreWriter(folder, manifest, request.shard_bytes, ranks)
    jobs = store.jobs(config, samples, full=request.full, targets=keeper is not None)
    work = [Work(jobs, read_targets, keeper)]
    if CALIBRATION in include and not request.full:
        whole = store.jobs(config, fitted, full=True, targets=False)
        work.append(Work(whole, read, None))
    store.write(work, collate, device, batch_size, progress=not config.no_progress)


def _teacher_file(manifest: Manifest, rotary: Any, trace: Any) -> tuple[Any, Any]:
    tensors, about = teacher_parts(rotary, trace.attention)
    return tensors, {**about, "store": manifest.store_id}


def settings_of_targets(
    config: TrainConfig, n: int, samples: Sequence[Encoded]
) -> dict[str, Any] | None:
    """How positions are kept; None where no position is, so that only whole texts are stored."""
    if config.resampling is not None:
        return None
    own = any(sample.teacher is not None for sample in samples)
    settings = target_settings(config, slots_of(config)[n], own)
    if config.cache_budget is None:
        return settings
    check_alignment(config, own)
    return settings | cache_settings(config)
