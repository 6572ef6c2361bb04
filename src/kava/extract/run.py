"""Extraction: a teacher reads every sample once, and the store grows shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from kava import __version__
from kava.data.collate import Batch, Collator
from kava.data.encoded import Encoded
from kava.eviction.bounded import CacheBudget
from kava.extract.bounded import budget_settings, read_bounded
from kava.extract.items import Job, Read, target_items, whole_items
from kava.extract.request import Request, said
from kava.extract.samples import as_alone, collator_of, read_ids, reads
from kava.files.locks import clear_folder, lock_folder
from kava.files.outputs import check_output_folder
from kava.fit.paired_traces import moved
from kava.models.capture import check_attention
from kava.models.devices import choose_device
from kava.models.rotary import rotary_of
from kava.store.fingerprints import (
    target_digest,
    text_digest,
    tokenizer_fingerprint,
    weights_fingerprint,
)
from kava.store.manifest import FULL, TARGETS, Manifest, check_equal, is_store, read_manifest
from kava.store.reader import Tier
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
from kava.store.verify import whole_shards
from kava.store.writer import CACHE_PARTS, TierWriter
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

Reader = Callable[[Batch], Read]


def extract(request: Request, given: GivenRecords = NOTHING_GIVEN) -> list[Path]:
    """Read all samples of a run with its teachers, and store what they leave behind.

    What an earlier extraction with the same settings has stored is not read again; a shard of it
    that is missing or damaged is made up for.

    Args:
        request: what to store, and where.
        given: records in place of those that the configuration names.

    Returns:
        the folder of each teacher's store.

    Raises:
        ValueError: bad data or models, or a store of other settings in the folder.
        OSError: the folder cannot be written to.
        KavaError: another extraction is at work there.
    """
    config = request.config
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
        with lock_folder(folder, "kava extract"):
            _extract_one(request, n, one, folder, data, tokenizer, tokenizers[n])
    return folders


def _extract_one(
    request: Request,
    n: int,
    one: TeacherName,
    folder: Path,
    data: Data,
    tokenizer: PreTrainedTokenizerBase,
    its_tokenizer: PreTrainedTokenizerBase,
) -> None:
    config = request.config
    device = torch.device(choose_device(config.device))
    model = load_teacher(one, config)
    model.to(device)  # type: ignore[arg-type]
    if needs_scores(config):
        path = folder / FILE_NAME
        scored = (
            with_scores(config, model, part, records, data.template, path)
            for part, records in ((data.train, data.train_records), (data.eval, data.eval_records))
        )
        train, held_out = scored
        data = replace(data, train=train, eval=held_out)
        model.to(device)  # type: ignore[arg-type]
    samples = [as_alone(sample, n) for sample in [*data.train, *data.eval] if reads(sample, n)]
    fitted = [sample for sample in data.train if sample.num_reasoning and reads(sample, n)]
    fitted = [sample.as_read_by(n) for sample in fitted[: config.calibration_samples]]
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
        if request.budget is None:
            return read(batch)
        return read_bounded(model, batch, config, request.budget, flag is not None)

    targets = settings_of_targets(config, n, samples, request.budget)
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
    manifest = begin(folder, settings, config, n)
    write_tensors(folder / TEACHER_FILE, *_teacher_file(manifest, rotary, trace))
    keeper = None
    if targets is not None:
        keeper = Keeper(
            config,
            rotary,
            slots_of(config)[n],
            queries=QUERIES in include,
            weights=WEIGHTS in include,
        )
    store = StoreWriter(folder, manifest, request.shard_bytes)
    shown = not config.no_progress
    jobs = store.jobs(config, samples, full=request.full, targets=keeper is not None)
    if CALIBRATION in include and not request.full:
        whole = store.jobs(config, fitted, full=True, targets=False)
        store.write(whole, read, None, collate, device, batch_size, progress=shown)
    store.write(jobs, read_targets, keeper, collate, device, batch_size, progress=shown)


def _teacher_file(manifest: Manifest, rotary: Any, trace: Any) -> tuple[Any, Any]:
    tensors, about = teacher_parts(rotary, trace.attention)
    return tensors, {**about, "store": manifest.store_id}


def settings_of_targets(
    config: TrainConfig, n: int, samples: Sequence[Encoded], budget: CacheBudget | None = None
) -> dict[str, Any] | None:
    """How positions are kept; None where no position is, so that only whole texts are stored."""
    if config.resampling is not None:
        return None
    own = any(sample.teacher is not None for sample in samples)
    settings = target_settings(config, slots_of(config)[n], own)
    return settings if budget is None else settings | budget_settings(config, budget, own)


def begin(folder: Path, settings: dict[str, Any], config: TrainConfig, n: int) -> Manifest:
    """The manifest to go on from: that of an earlier extraction, or a new one.

    Raises:
        ValueError: the folder holds a store of other settings, or something else.
    """
    fresh = Manifest(
        settings=settings,
        data={"config": said(config), "teacher_index": n},
        version=__version__,
    )
    if config.overwrite:
        clear_folder(folder)
    elif is_store(folder):
        found = read_manifest(folder)
        mend = "pass --overwrite to extract it anew, or name another folder"
        for name, ours in settings.items():
            theirs = found.settings[name]
            whose = "this extraction has"
            if isinstance(ours, dict) and isinstance(theirs, dict):
                check_equal(folder, theirs, ours, mend, whose=whose)
            check_equal(folder, {name: theirs}, {name: ours}, mend, whose=whose)
        usable, problems = whole_shards(folder, found)
        for problem in problems:
            print(f"kava: made up for: {problem}", flush=True)
        return replace(found, shards=usable)
    else:
        others = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if set(others) - {FILE_NAME}:
            raise ValueError(
                f"--store {folder} holds {others[0]} and no store: name an empty folder, or pass "
                f"--overwrite to clear it"
            )
    fresh.save(folder)
    return fresh


class StoreWriter:
    """Writes the tiers of a store.

    Args:
        folder: of the store, which is locked.
        manifest: to go on from.
        shard_bytes: size of a shard.
    """

    def __init__(self, folder: Path, manifest: Manifest, shard_bytes: int):
        self.folder = folder
        self.manifest = manifest
        self.tiers = {tier: TierWriter(folder, tier, shard_bytes) for tier in (FULL, TARGETS)}
        self.there = {tier: Tier(folder, manifest, tier) for tier in (FULL, TARGETS)}
        for writer in self.tiers.values():
            writer.continue_from(manifest)

    def jobs(
        self, config: TrainConfig, samples: Sequence[Encoded], *, full: bool, targets: bool
    ) -> list[Job]:
        """The samples that are not stored yet, each once."""
        named = config.kv_method == "random"
        tokens = config.token_alignment
        found: list[Job] = []
        seen: set[bytes] = set()
        for sample in samples:
            whole = text_digest(sample, sample.teacher) if full else None
            kept = None
            if targets:
                kept = target_digest(sample, sample.teacher, tokens=tokens, named=named)
            if whole is not None and (self.there[FULL].row(whole) is not None or whole in seen):
                whole = None
            if kept is not None and (self.there[TARGETS].row(kept) is not None or kept in seen):
                kept = None
            seen.update(digest for digest in (whole, kept) if digest is not None)
            if whole is not None or kept is not None:
                found.append(Job(sample, whole, kept))
        return found

    @torch.no_grad()
    def write(
        self,
        jobs: list[Job],
        read: Reader,
        keeper: Keeper | None,
        collate: Collator,
        device: torch.device,
        batch_size: int,
        *,
        progress: bool,
    ) -> None:
        """Read samples and store them, shard by shard.

        Raises:
            ValueError: numbers that the form cannot hold.
            OSError: a shard cannot be written.
        """
        own = self.manifest.settings["targets"]
        own = own is not None and own["token_alignment"] == "none"
        with tqdm(total=len(jobs), unit=" samples", disable=not progress or not jobs) as bar:
            for at in range(0, len(jobs), batch_size):
                some = jobs[at : at + batch_size]
                batch = moved(collate([job.sample for job in some]), device)
                found = read(batch)
                queries = self.manifest.settings["whole_queries"]
                for item in whole_items(found, batch.get("teacher", batch), some, queries):
                    self.manifest = self.tiers[FULL].add(item, self.manifest)
                if keeper is not None and any(job.target is not None for job in some):
                    kept = found.in_the_text(keeper(found.trace, batch, scores=True))
                    for item in target_items(found, kept, batch, some, own and "teacher" in batch):
                        self.manifest = self.tiers[TARGETS].add(item, self.manifest)
                bar.update(len(some))
        for writer in self.tiers.values():
            self.manifest = writer.flush(self.manifest)
