"""The store that a run reads: its settings checked against the run, its rows joined to samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from kava.data.encoded import Encoded, TeacherText
from kava.data.records import Template
from kava.eviction import EVICTIONS
from kava.fuse import FUSIONS, UnionFusion, build_fusion
from kava.models.load import load_model_config, model_folder
from kava.store.fingerprints import (
    config_fingerprint,
    files_fingerprint,
    target_digest,
    text_digest,
    tokenizer_fingerprint,
)
from kava.store.manifest import FULL, TARGETS, Manifest, check_equal, read_manifest
from kava.store.teacher import ANSWER, CODI, QUERIES, WEIGHTS, StoredTeacher
from kava.train.cache_budget import cache_settings
from kava.train.config import TrainConfig
from kava.train.kept import eviction_options
from kava.train.matching import compares_queries
from kava.train.target import attention_flag
from kava.train.teacher_names import TeacherName, teachers_of

SAME_TOKENS = "the student's own"
"""In place of a token alignment: teacher and student read the same tokens."""
_EXTRACT = "extract it with this run's flags"
_CACHE = (
    "a bounded cache is an approximation, which the run names: give the flags of the extraction "
    "(--capture_chunk, --cache_budget, --cache_sinks, --cache_recent, --cache_scores), or extract "
    "a store with this run's"
)
_GIVEN_APART = ("scores", "positions", "sample_ids")
"""Options of evictions that belong to a batch."""


def store_reads(config: TrainConfig) -> frozenset[str]:
    """What a run reads of a teacher beside keys and values."""
    likelihood = config.several and FUSIONS[config.fusion].reads & {"answer_BN", "text_BN"}
    wanted = {
        CODI: config.codi_weight > 0,
        ANSWER: bool(likelihood),
        WEIGHTS: config.attention_weighted_kv,
        QUERIES: config.matches_cache and compares_queries(config),
    }
    return frozenset(name for name, is_read in wanted.items() if is_read)


_FLAG_OF = {
    CODI: "--codi_weight",
    ANSWER: "--fusion",
    WEIGHTS: "--attention_weighted_kv",
    QUERIES: "--kv_loss structural",
}


def slots_of(config: TrainConfig) -> list[int | None]:
    """The kept positions of each teacher; None: the run's."""
    count = max(len(teachers_of(config)), 1)
    if config.several and config.fusion == "union":
        weights = None if config.fixed_weights is None else tuple(config.fixed_weights)
        fusion = build_fusion("union", weights=weights)
        assert isinstance(fusion, UnionFusion)
        return list(fusion.slots(config.target_len, count))
    return [None] * count


def target_settings(
    config: TrainConfig, target_len: int | None, own_tokens: bool
) -> dict[str, Any]:
    """What kept positions depend on beside teacher and samples.

    Args:
        config: the run's configuration.
        target_len: the teacher's part of the slots; None: all.
        own_tokens: whether the teacher reads tokens of its own.
    """
    method, given = config.kv_method, eviction_options(config)
    options = {
        one.name: given.get(one.name, one.default)
        for one in fields(EVICTIONS[method])
        if one.name not in _GIVEN_APART
    }
    length = config.target_len if target_len is None else target_len
    ragged = method in ("full", "positions")
    return {
        "kv_method": method,
        "target_len": None if method == "full" else length,
        "slots": None if ragged else length,
        **options,
        **({"knockout_reach": config.knockout_reach} if EVICTIONS[method].needs_scores else {}),
        "token_alignment": config.token_alignment if own_tokens else SAME_TOKENS,
        "key_space": "unrotated" if config.unrotates else "rotated",
    }


def teacher_settings(one: TeacherName, config: PreTrainedConfig) -> dict[str, Any]:
    """A teacher as its files say it is, without its weights."""
    return {
        "name": one.model,
        "dtype": one.dtype,
        "quantization": one.quantization,
        "config": config_fingerprint(config),
        "files": files_fingerprint(model_folder(one.model)),
        "revision": getattr(config, "_commit_hash", None),
    }


def template_settings(template: Template) -> dict[str, Any]:
    """A template by its parts."""
    return {f"template_{name}": part for name, part in asdict(template).items()}


def build_stored(config: TrainConfig) -> list[StoredTeacher]:
    """Open the stores of a run, in the order of its teachers.

    Raises:
        OSError: a store, or a shard of it, is missing.
        ValueError: a store that is damaged, of another teacher, without the tier or a part that
            the run reads, or whose targets were kept otherwise.
    """
    found = []
    reads = store_reads(config)
    for one, folder, target_len in zip(teachers_of(config), config.store or (), slots_of(config)):
        manifest = read_manifest(folder)
        its = load_model_config(one.model, encoders=True)
        _check_teacher(folder, manifest.settings["teacher"], teacher_settings(one, its))
        _check_parts(folder, manifest, config, reads)
        if config.store_tier == TARGETS:
            ours = target_settings(config, target_len, own_tokens=True)
            del ours["token_alignment"]  # the data say whether there are two sorts of tokens
            check_equal(
                folder,
                manifest.settings["targets"],
                ours,
                f"{_EXTRACT}, make it of whole texts by kava store recompress, or pass "
                f"--store_tier full where it has them",
            )
            check_equal(folder, manifest.settings["targets"], cache_settings(config), _CACHE)
        found.append(StoredTeacher(folder, manifest, config.store_tier, its, reads))
    return found


def _check_teacher(folder: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    same_files = None not in (theirs["files"], ours["files"])
    if theirs["config"] != ours["config"] or (not same_files and theirs["name"] != ours["name"]):
        raise ValueError(
            f"--store {folder} holds the cache of {theirs['name']}, and this run's teacher is "
            f"{ours['name']}: name the store of this teacher, or extract one"
        )
    changed = same_files and theirs["files"] != ours["files"]
    known = None not in (theirs["revision"], ours["revision"])
    if changed or (known and not same_files and theirs["revision"] != ours["revision"]):
        raise ValueError(
            f"--store {folder} holds the cache of {theirs['name']} with other weights than "
            f"{ours['name']} has now: extract it again with --overwrite"
        )
    read = {name: ours[name] for name in ("dtype", "quantization")}
    check_equal(folder, theirs, read, _EXTRACT)


def _check_parts(
    folder: str, manifest: Manifest, config: TrainConfig, reads: frozenset[str]
) -> None:
    tier = config.store_tier
    if not manifest.of_tier(tier):
        other = {FULL: "extract it with --full", TARGETS: "pass --store_tier full"}[tier]
        raise ValueError(f"--store {folder} holds no {tier}: {other}")
    have = set(manifest.settings["include"])
    flags = {name: _FLAG_OF[name] for name in reads}
    if tier == FULL:
        # of whole texts, how much the answer looks at a position follows from the queries
        looks = flags.pop(WEIGHTS, None) or attention_flag(config)
        have |= {QUERIES} if manifest.settings["whole_queries"] else set()
        if looks is not None:
            flags[QUERIES] = looks
    for name in sorted(set(flags) - have):
        raise ValueError(
            f"--store {folder} holds no {name}, which {flags[name]} reads: extract it with "
            f"--include {' '.join(sorted(flags))}"
        )


def give_rows(
    config: TrainConfig,
    parts: Sequence[Sequence[Encoded]],
    teachers: Sequence[StoredTeacher],
    tokenizers: Sequence[PreTrainedTokenizerBase],
    templates: Sequence[Template],
) -> list[list[Encoded]]:
    """The samples with their rows in the stores.

    Args:
        config: the run's configuration.
        parts: samples to train on, and to evaluate on.
        teachers: the stores.
        tokenizers: of each teacher.
        templates: of each teacher.

    Raises:
        ValueError: a tokenizer, template or token alignment other than the store's, or samples
            that it lacks.
    """
    rows: list[list[int]] = [[] for part in parts for _ in part]
    samples = [sample for part in parts for sample in part]
    for n, (teacher, tokenizer, template) in enumerate(zip(teachers, tokenizers, templates)):
        settings, folder = teacher.manifest.settings, str(teacher.store)
        check_equal(
            folder,
            settings,
            {"tokenizer": tokenizer_fingerprint(tokenizer)},
            "the teacher's tokenizer has changed since; extract it again with --overwrite",
        )
        check_equal(folder, settings["template"], template_settings(template), _EXTRACT)
        texts = [_text(sample, n) for sample in samples]
        if config.store_tier == TARGETS and any(text is not None for text in texts):
            ours = {"token_alignment": config.token_alignment}
            check_equal(folder, settings["targets"], ours, _EXTRACT)
        missing = []
        for sample, text, found in zip(samples, texts, rows):
            row = teacher.steps.row(digest(config, sample, text)) if _reads(sample, n) else -1
            if row is None:
                missing.append(sample.id)
            found.append(-1 if row is None else row)
        if missing:
            there = teacher.steps.ids()
            why = "has another text there" if missing[0] in there else "is not there"
            raise ValueError(
                f"--store {folder} lacks {len(missing):,} of the {len(samples):,} samples of this "
                f"run in {config.store_tier} (the first, {missing[0]!r}, {why}): run kava extract "
                f"again with this run's data, which adds them"
            )
    numbered = iter([replace(s, stored=tuple(r)) for s, r in zip(samples, rows)])
    return [[next(numbered) for _ in part] for part in parts]


def digest(config: TrainConfig, sample: Encoded, text: TeacherText | None) -> bytes:
    """By what a sample is found in the tier that a run reads."""
    if config.store_tier == FULL:
        return text_digest(sample, text)
    named = config.kv_method == "random"
    return target_digest(sample, text, tokens=config.token_alignment, named=named)


def _text(sample: Encoded, n: int) -> TeacherText | None:
    return sample.sides[n].read if sample.sides else sample.teacher


def _reads(sample: Encoded, n: int) -> bool:
    return not sample.sides or sample.sides[n].present
