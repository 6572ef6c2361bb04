"""Keeping other positions of whole texts that are stored, without the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kava.data.collate import Batch
from kava.extract.items import Read
from kava.extract.run import settings_of_targets
from kava.extract.samples import as_alone, collator_of, reads
from kava.extract.store_writer import StoreWriter, Work, begin
from kava.files.locks import lock_folder
from kava.files.outputs import check_output_folder
from kava.models.load import load_model_config
from kava.store.fingerprints import text_digest, tokenizer_fingerprint
from kava.store.manifest import FULL, Manifest, check_equal, read_manifest
from kava.store.teacher import (
    ANSWER,
    CODI,
    QUERIES,
    TEACHER_FILE,
    WEIGHTS,
    StoredTeacher,
    teacher_parts,
)
from kava.store.tensor_file import write_tensors
from kava.trace import KVTrace
from kava.train.config import TrainConfig
from kava.train.data import load_data
from kava.train.kept import Keeper
from kava.train.limits import check_models, fit_data
from kava.train.models import build_teacher_tokenizer, build_teacher_tokenizers, build_tokenizer
from kava.train.scores import FILE_NAME, needs_scores, with_scores
from kava.train.stored import slots_of, store_reads, template_settings
from kava.train.target import attention_flag
from kava.train.teacher_names import teachers_of


def recompress(
    store: str | Path,
    output: str | Path,
    changes: Mapping[str, Any],
    *,
    form: str | None = None,
    shard_bytes: int,
) -> Manifest:
    """Keep other positions of a store's whole texts, and store those.

    Args:
        store: it holds whole texts of all of its samples.
        output: folder of the new store, which holds targets alone.
        changes: settings of the run that are others now.
        form: how numbers are stored; None: as in `store`.
        shard_bytes: size of a shard.

    Returns:
        The manifest of the new store.

    Raises:
        ValueError: a store without the whole texts, or without the queries that the method
            reads; bad settings; a store of other settings in `output`.
        OSError: a folder that cannot be read or written.
        KavaError: another command is at work in `output`.
    """
    store, output = Path(store), Path(output)
    if store.resolve() == output.resolve():
        raise ValueError(f"--output {output} is the store itself; name another folder")
    if store.resolve().is_relative_to(output.resolve()):
        raise ValueError(f"--output {output} holds the store {store} itself; name another folder")
    check_output_folder(output, "--output")
    manifest = read_manifest(store)
    overwrite = bool(changes.get("overwrite"))
    try:
        n: int = manifest.data["teacher_index"]
        values = {**manifest.data["config"], "overwrite": overwrite, **changes}
        config = TrainConfig(**values)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"--store {store} was extracted by flags that this version cannot read ({error}): "
            f"extract it again with --overwrite"
        ) from error
    one = teachers_of(config)[n]
    readers = check_models(config)
    tokenizer = build_tokenizer(config)
    teacher_tokenizer = build_teacher_tokenizer(config, tokenizer)
    several = build_teacher_tokenizers(config, tokenizer)
    data = load_data(config, tokenizer, teacher_tokenizer, several)
    data = fit_data(config, data, tokenizer, readers)
    its = (several or [teacher_tokenizer or tokenizer])[n]
    template = data.teacher_templates[n]
    ours = {"tokenizer": tokenizer_fingerprint(its)}
    check_equal(store, manifest.settings, ours, "extract it again")
    check_equal(store, manifest.settings["template"], template_settings(template), "extract again")
    include = frozenset(manifest.settings["include"]) | store_reads(config)
    flag = attention_flag(config)
    if flag is None and include & {QUERIES, WEIGHTS}:
        flag = f"what is included ({', '.join(sorted(include))})"
    if flag is not None and not manifest.settings["whole_queries"]:
        raise ValueError(
            f"--store {store} holds whole texts without queries, which {flag} reads: extract it "
            f"with --full --include queries"
        )
    lacking = (include & {CODI, ANSWER}) - set(manifest.settings["include"])
    if lacking:
        raise ValueError(
            f"--store {store} holds no {', '.join(sorted(lacking))}, which these settings read: "
            f"extract it with --full --include {' '.join(sorted(lacking))}"
        )
    kinds = include & {CODI, ANSWER}
    teacher = StoredTeacher(
        store, manifest, FULL, load_model_config(one.model, encoders=True), kinds
    )
    if needs_scores(config):
        path = store / FILE_NAME
        parts = ((data.train, data.train_records), (data.eval, data.eval_records))
        train, held_out = (
            with_scores(config, teacher, some, records, data.template, path)
            for some, records in parts
        )
        data = replace(data, train=train, eval=held_out)
    samples = [as_alone(sample, n) for sample in [*data.train, *data.eval] if reads(sample, n)]
    rows = [teacher.steps.row(text_digest(sample, sample.teacher)) for sample in samples]
    missing = [sample.id for sample, row in zip(samples, rows) if row is None]
    if missing:
        raise ValueError(
            f"--store {store} holds whole texts of {len(samples) - len(missing):,} of the "
            f"{len(samples):,} samples (not of {missing[0]!r}): extract it with --full"
        )
    samples = [replace(s, stored=(row,)) for s, row in zip(samples, rows) if row is not None]
    geometry = dict(manifest.settings["geometry"])
    if QUERIES not in include:
        geometry.pop("queries", None)
    settings = {
        **manifest.settings,
        "geometry": geometry,
        "targets": settings_of_targets(config, n, samples),
        "include": sorted(include),
        "whole_queries": False,
        "form": form or manifest.settings["form"],
    }
    if settings["targets"] is None:
        raise ValueError("--use_segment_resampling reads whole texts and keeps no positions")

    def read(batch: Batch) -> Read:
        found = teacher.read(batch)
        assert isinstance(found.trace, KVTrace)
        return Read(found.trace, found.hidden, found.answer_B, found.text_B)

    keeper = Keeper(
        config,
        teacher.rotary,
        slots_of(config)[n],
        queries=QUERIES in include,
        weights=WEIGHTS in include,
    )
    with lock_folder(output, "kava store recompress"):
        new = begin(output, settings, config, n)
        new = replace(new, data={**new.data, "made_of": manifest.settings["form"]})
        tensors, about = teacher_parts(teacher.rotary, teacher.attention)
        write_tensors(output / TEACHER_FILE, tensors, {**about, "store": new.store_id})
        writer = StoreWriter(output, new, shard_bytes)
        jobs = writer.jobs(config, samples, full=False, targets=True)
        writer.write(
            [Work(jobs, read, keeper)],
            collator_of(tokenizer, its),
            torch.device("cpu"),
            config.batch_size,
            progress=not config.no_progress,
        )
    return writer.manifest
