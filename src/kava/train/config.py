"""The configuration of a training run: one flat dataclass, one help text per field.

The same keys serve as command-line flags (`--kv_weight 5`), as keys of a YAML file (`--config`)
and as arguments in Python. Flags win over the file; an unknown key is refused in all three.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

from kava.align import ALIGNMENT_MODES, FLAT_VARIANTS, LAYER_MAPS, TOKEN_ALIGNMENTS
from kava.align.resample import SegmentResampling
from kava.compress import EVICTIONS
from kava.importance.stages import REACHES
from kava.losses import KV_LOSSES, LAYER_EMPHASES
from kava.student.config import DECODINGS
from kava.trace import SCOPES
from kava.train.matching import check_matching
from kava.train.resampling import INTERPOLATED, REASONING_ONLY, resampling_of

STUDENTS = ("latent", "explicit")
DIRECTIONS = ("teacher_to_student", "student_to_teacher")
KEY_SPACES = ("unrotated", "rotated", "student")
ALIGNER_FITS = ("calibrated", "frozen", "joint", "calibrated_joint")


def _flag(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(kw_only=True)
class TrainConfig:
    """Everything that decides a run.

    Raises:
        ValueError: a value outside its range, or values that exclude each other; the message
            names the flag.

    Example:
        >>> TrainConfig(model_name="kava/tiny-gpt2", output_dir="outputs/x", target_len=4)
    """

    # models
    model_name: str = _flag(
        "kava/shell-teacher",
        "student: a hub id, a local folder, or a built-in kava/ name; also where it starts from",
    )
    teacher_name: str | None = _flag(
        None,
        "frozen teacher (same kinds of name). Left out, the student teaches itself: its own "
        "weights read the written reasoning (self-distillation, as in the KaVa paper)",
    )
    student: str = _flag(
        "latent",
        "latent: M latent tokens replace the written reasoning; explicit: the student reads it",
    )
    target_len: int = _flag(6, "M, the number of latents, and of kept cache positions; 0: none")
    decoding: str = _flag("sequential", f"how latents are decoded: {' or '.join(DECODINGS)}")
    jacobi_iterations: int = _flag(
        3, "T, Jacobi passes after the first; target_len equals sequential, 0 is pause tokens"
    )
    projection_dropout: float = _flag(0.0, "dropout in the projection from hidden state to latent")

    # data
    dataset_name: str = _flag(
        "kava/shell-game",
        "kava/shell-game (built in, with options such as ?num_moves=4&form=verbose), gsm8k (from "
        "the hub), or the path of a jsonl file",
    )
    split: str = _flag("train", "split to train on, where the source has splits")
    eval_dataset_name: str | None = _flag(
        None, "data to evaluate on; left out, eval_size samples are set apart from dataset_name"
    )
    eval_split: str = _flag("test", "split of eval_dataset_name")
    subset_size: int | None = _flag(None, "use this many training samples, taken at random")
    eval_size: int = _flag(0, "evaluation samples; 0: no evaluation during training")
    question_field: str = _flag("question", "field of a jsonl row that holds the question")
    reasoning_field: str = _flag("reasoning", "field that holds the reasoning")
    answer_field: str = _flag("answer", "field that holds the answer")
    text_field: str | None = _flag(
        None,
        "field of a raw text, whose parts are found by their markers; left out: text, where a row "
        "has no question",
    )
    reasoning_triggers: list[str] | None = _flag(  # noqa: RUF009
        None, "markers at which the reasoning of a raw text begins; left out: kava.segments's"
    )
    answer_triggers: list[str] | None = _flag(  # noqa: RUF009
        None,
        "markers before the answer of a raw text, or of an answer that holds its reasoning; left "
        "out: kava.segments's",
    )
    reasoning_form: str = _flag(
        "text",
        "calculator annotations <<a=b>>: text strips them, annotated leaves them, equations keeps "
        "nothing else",
    )
    keep_last_step: bool = _flag(
        False, "keep the last reasoning step, which states the answer (the paper leaves it out)"
    )
    max_length: int = _flag(512, "most tokens of a sample, with its end-of-sequence token")
    overflow: str = _flag(
        "error",
        "a sample that is too long, has fewer reasoning tokens than target_len, or whose segments "
        "are not found: error, or skip (counted and reported)",
    )

    keep_short: bool = _flag(
        False,
        "keep samples with fewer reasoning tokens than target_len: all of their positions are "
        "kept, and their last latents are left without a target",
    )

    # the teacher's cache: compression, alignment
    kv_method: str = _flag("rkv", f"which positions are kept: {', '.join(EVICTIONS)}")
    kv_scope: str | None = _flag(
        None,
        f"how widely kept positions are shared: {', '.join(SCOPES)}; left out, the method's own",
    )
    rkv_lambda: float | None = _flag(
        None, "weight of importance against redundancy in rkv and rkv_official; left out: theirs"
    )
    knockout_reach: str = _flag(
        "later_steps",
        "knockout: whose loss counts when a position is hidden. later_steps: that of later steps "
        "and of the answer's value; all: that of every later token",
    )
    kv_scores_path: str | None = _flag(
        None,
        "file of knockout's scores: read where it is there, made and completed where not; left "
        "out: kv_scores.safetensors in output_dir",
    )
    alignment_mode: str = _flag(
        "identity",
        "how the teacher's cache is brought to the student's geometry; identity needs equal ones",
    )
    map_proj_share_dim: bool = _flag(False, "structured: one dim map for all heads")
    map_proj_init_uniform: bool = _flag(
        False, "structured: start from uniform head groups and identity dims, not at random"
    )
    flat_variant: str | None = _flag(
        None,
        "flat: elastic, linear or residual projector; left out: elastic, and linear where maps "
        "are calibrated, which is what least squares can fit",
    )
    layer_mapping: str | None = _flag(
        None,
        f"which teacher layers a student layer matches, by depth: {', '.join(LAYER_MAPS)}; left "
        f"out: ratio",
    )
    use_cka_layer_mapping: bool = _flag(
        False,
        "match layers by how alike they are (CKA): the map of layer_mapping_path or, without one, "
        "measured before training on calibration_samples",
    )
    layer_mapping_path: str | None = _flag(
        None, "a layer map's file, such as kava layer-map writes; takes the place of layer_mapping"
    )
    aligner_fit: str = _flag(
        "calibrated",
        "calibrated: per-layer maps fitted in closed form on texts that both models read, then "
        "frozen; frozen: the maps keep their start; joint: they learn beside the student, which "
        "can collapse (the run logs the wrong-sample control); calibrated_joint: fitted, then "
        "joint. identity alignment has nothing to fit",
    )
    align_direction: str = _flag(
        "teacher_to_student",
        "where caches are compared: teacher_to_student maps the teacher's cache; "
        "student_to_teacher maps the student's, so that the target cannot collapse",
    )
    map_rank: str | None = _flag(
        None,
        "structured, calibrated: number of head-mix ⊗ dim-map terms per layer, or auto (the "
        "smallest whose held-out R² is near the full map's); left out: 1",
    )
    calibration_samples: int = _flag(1000, "training samples that the aligner is fitted on")
    token_alignment: str = _flag(
        "hard",
        "a teacher with another tokenizer: hard takes the teacher's position where the student's "
        "token is complete, soft the mean over the positions it covers, none (latent students) "
        "keeps the teacher's own positions",
    )
    key_space: str = _flag(
        "unrotated",
        "compare keys unrotated (rotary embedding taken out), rotated (as both models cache them) "
        "or student (the teacher's taken out, aligned, and rotated as the student's are cached)",
    )
    use_segment_resampling: bool = _flag(
        False,
        "warp the teacher's segments (0 prompt, 1 reasoning, 2 answer) to the student's slots, "
        "each by itself, in place of evicting positions; needs --kv_method full",
    )
    segment_ratios: str = _flag(
        REASONING_ONLY,
        "slots for each position of a segment, as 0:1.0,1:0.5,2:1.0; segments that are not named "
        "are left out. Latents are shared out in these proportions",
    )
    segment_alphas: str = _flag(
        INTERPOLATED,
        "how smoothly a segment is read between its positions: 0 the nearest, 1 interpolated",
    )

    # losses
    kv_loss: str = _flag("smooth_l1", f"{', '.join(KV_LOSSES)}")
    kv_weight: float = _flag(1.0, "α₂, weight of the KV loss; 0 leaves it out")
    kv_layer_std: bool = _flag(False, "divide the KV error by the teacher's std, layer by layer")
    alpha_k: float = _flag(1.0, "weight of keys (structural, smooth_l1_alpha)")
    alpha_v: float = _flag(1.0, "weight of values (structural, smooth_l1_alpha)")
    alpha_attn: float = _flag(0.5, "weight of the attention divergence (structural)")
    distill_layers: str | None = _flag(
        None, "match these layers of the student alone, as 0,2,5; left out: all"
    )
    distill_k_only: bool = _flag(False, "match keys alone")
    distill_v_only: bool = _flag(False, "match values alone")
    attention_weighted_kv: bool = _flag(
        False, "weigh the slots of the KV loss by the attention of the teacher's answer to them"
    )
    attention_weighted_warmup: int = _flag(
        0, "for so many steps all slots weigh alike, then the weights come in over as many again"
    )
    layer_weight_annealing: str = _flag(
        "none",
        f"{', '.join(LAYER_EMPHASES)}: which of the student's layers weigh most at first, in the "
        f"KV and CKA losses; linearly to all alike",
    )
    layer_weight_annealing_steps: int | None = _flag(
        None, "steps after which all layers weigh alike; left out: the whole run"
    )
    cka_weight: float = _flag(
        0.0, "weight of 1 - CKA between the student's cache and its target; 0 leaves it out"
    )
    codi_weight: float = _flag(0.0, "α₁, weight of the CODI loss; 0 leaves it out")
    ce_weight: float = _flag(1.0, "weight of the student's cross-entropy")
    teacher_ce_weight: float = _flag(
        1.0, "self-distillation: weight of the cross-entropy of the written reasoning"
    )
    wrong_sample: bool = _flag(
        False, "control: give every sample the teacher's cache of another one"
    )

    # optimisation
    epochs: float = _flag(3.0, "passes over the data")
    max_steps: int = _flag(-1, "optimiser steps; above 0 it overrides epochs")
    batch_size: int = _flag(8, "samples per device and step")
    gradient_accumulation_steps: int = _flag(1, "batches per optimiser step")
    lr: float = _flag(5e-5, "peak learning rate of AdamW")
    lr_scheduler: str = _flag("cosine", "a transformers scheduler name: cosine, linear, constant…")
    warmup_steps: int = _flag(0, "steps of linear warm-up")
    weight_decay: float = _flag(0.01, "AdamW's weight decay")
    max_grad_norm: float = _flag(1.0, "clip gradients to this norm")
    bf16: bool = _flag(False, "train in bfloat16 autocast")
    dtype: str = _flag("float32", "dtype in which weights are loaded: float32, bfloat16, float16")
    seed: int = _flag(0, "seed of initialisation, data order and dropout")
    device: str = _flag("auto", "auto (an accelerator where there is one) or cpu")

    # the run
    output_dir: str = _flag("outputs/run", "folder for checkpoints, metrics and TensorBoard")
    logging_steps: int = _flag(10, "log every so many steps")
    save_steps: int = _flag(500, "write a checkpoint every so many steps, and at the end")
    save_total_limit: int | None = _flag(None, "keep this many latest checkpoints")
    eval_steps: int = _flag(500, "evaluate every so many steps, and at the end")
    eval_batch_size: int = _flag(64, "samples per batch in evaluation")
    max_new_tokens: int = _flag(64, "most tokens to generate per answer in evaluation")
    resume: bool = _flag(False, "go on from the newest checkpoint in output_dir")
    overwrite: bool = _flag(False, "start anew although output_dir holds checkpoints")
    no_progress: bool = _flag(False, "no progress bars")

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_ranges()
        if self.student == "explicit" and self.codi_weight:
            raise ValueError(
                "--codi_weight needs a latent student: an explicit one reads the same text as its "
                "teacher; pass --codi_weight 0"
            )
        if self.student == "explicit" and self.teacher_name is None and self.matches_cache:
            raise ValueError(
                "an explicit student that is its own teacher would match its own cache, which "
                f"carries no information: name a --teacher_name or pass {self._no_matching}"
            )
        if self.alignment_mode != "identity" and self.kv_scope == "head":
            raise ValueError(
                f"--alignment_mode {self.alignment_mode} mixes heads, which --kv_scope head would "
                f"fill with other positions: pass --kv_scope model"
            )
        self._check_maps()
        self._check_layer_map()
        if (
            self.token_alignment == "none"
            and self.student == "explicit"
            and not self.use_segment_resampling
        ):
            raise ValueError(
                "--token_alignment none keeps the teacher's own positions, which an explicit "
                "student does not have: choose hard or soft, or add --use_segment_resampling"
            )
        if self.key_space == "student" and self.align_direction != "teacher_to_student":
            raise ValueError(
                f"--key_space student rotates the target as the student's keys are, but "
                f"--align_direction {self.align_direction} compares them as the teacher's: pass "
                f"--key_space unrotated"
            )
        resampling_of(self)
        check_matching(self)
        if self.kv_scores_path is not None and not EVICTIONS[self.kv_method].needs_scores:
            raise ValueError(
                f"--kv_scores_path holds knockout's scores, which --kv_method {self.kv_method} "
                f"does not read; leave it out"
            )
        if self.resume and self.overwrite:
            raise ValueError("--resume and --overwrite exclude each other")

    def _check_maps(self) -> None:
        if self.flat_variant is not None and self.flat_variant not in FLAT_VARIANTS:
            raise ValueError(
                f"--flat_variant {self.flat_variant!r} is unknown; choose "
                f"{', '.join(FLAT_VARIANTS)}"
            )
        if self.calibrates and self.flat_variant not in (None, "linear"):
            raise ValueError(
                f"--flat_variant {self.flat_variant} cannot be fitted in closed form: pass "
                f"--flat_variant linear, or --aligner_fit frozen or joint"
            )
        if self.align_direction != "teacher_to_student" and self.alignment_mode == "identity":
            raise ValueError(
                f"--align_direction {self.align_direction} maps one geometry onto another, but "
                f"--alignment_mode identity maps none: choose structured or flat"
            )
        if self.map_rank is None:
            return
        if not (self.map_rank == "auto" or (self.map_rank.isdigit() and int(self.map_rank) > 0)):
            raise ValueError(f"--map_rank {self.map_rank!r} must be a number above 0, or auto")
        if self.alignment_mode != "structured" or not self.calibrates:
            raise ValueError(
                f"--map_rank {self.map_rank} is the rank of calibrated structured maps: it needs "
                f"--alignment_mode structured and --aligner_fit calibrated"
            )

    def _check_layer_map(self) -> None:
        if self.layer_mapping is not None:
            if self.layer_mapping not in LAYER_MAPS:
                raise ValueError(
                    f"--layer_mapping {self.layer_mapping!r} is unknown; choose "
                    f"{', '.join(LAYER_MAPS)}, or give a file with --layer_mapping_path"
                )
            for name in ("use_cka_layer_mapping", "layer_mapping_path"):
                if getattr(self, name):
                    raise ValueError(
                        f"--layer_mapping {self.layer_mapping} and --{name} each name a layer "
                        f"map: leave one out"
                    )
        if self.measures_layers and self.alignment_mode == "identity":
            raise ValueError(
                "--use_cka_layer_mapping chooses among a teacher's layers, but --alignment_mode "
                "identity matches each layer with its own: choose structured or flat"
            )

    def _check_choices(self) -> None:
        choices: dict[str, tuple[str, ...]] = {
            "student": STUDENTS,
            "decoding": DECODINGS,
            "kv_method": tuple(EVICTIONS),
            "knockout_reach": REACHES,
            "alignment_mode": ALIGNMENT_MODES,
            "aligner_fit": ALIGNER_FITS,
            "align_direction": DIRECTIONS,
            "token_alignment": TOKEN_ALIGNMENTS,
            "key_space": KEY_SPACES,
            "kv_loss": tuple(KV_LOSSES),
            "layer_weight_annealing": LAYER_EMPHASES,
            "overflow": ("error", "skip"),
            "reasoning_form": ("text", "annotated", "equations"),
            "dtype": ("float32", "bfloat16", "float16"),
            "device": ("auto", "cpu"),
        }
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"--{name} {value!r} is unknown; choose {', '.join(allowed)}")
        if self.kv_scope is not None and self.kv_scope not in SCOPES:
            raise ValueError(f"--kv_scope {self.kv_scope!r} is unknown; choose {', '.join(SCOPES)}")

    def _check_ranges(self) -> None:
        positive = (
            "epochs", "batch_size", "calibration_samples", "gradient_accumulation_steps", "lr",
            "max_length",
            "logging_steps", "save_steps", "eval_steps", "eval_batch_size", "max_new_tokens",
        )  # fmt: skip
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"--{name} {getattr(self, name)} must be above 0")
        not_negative = (
            "target_len", "jacobi_iterations", "projection_dropout", "eval_size", "kv_weight",
            "codi_weight", "ce_weight", "teacher_ce_weight", "alpha_k", "alpha_v", "alpha_attn",
            "cka_weight", "attention_weighted_warmup", "warmup_steps", "weight_decay",
            "max_grad_norm",
        )  # fmt: skip
        for name in not_negative:
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} {getattr(self, name)} must not be negative")
        for name in ("subset_size", "save_total_limit", "layer_weight_annealing_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)} must be above 0")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed {self.seed} must lie between 0 and 2**32 - 1")
        if self.target_len == 0 and self.student == "latent" and self.matches_cache:
            raise ValueError(f"--target_len 0 leaves no latent to match: pass {self._no_matching}")
        if self.decoding == "jacobi" and self.jacobi_iterations > self.target_len:
            raise ValueError(
                f"--jacobi_iterations {self.jacobi_iterations} is above --target_len "
                f"{self.target_len}, where it equals sequential decoding; lower it"
            )

    @property
    def self_distillation(self) -> bool:
        """Whether the student's own weights are the teacher."""
        return self.teacher_name is None

    @property
    def calibrates(self) -> bool:
        """Whether the aligner is fitted before training."""
        return self.alignment_mode != "identity" and self.aligner_fit.startswith("calibrated")

    @property
    def trains_aligner(self) -> bool:
        """Whether the aligner learns beside the student."""
        return self.alignment_mode != "identity" and self.aligner_fit.endswith("joint")

    @property
    def trains_target(self) -> bool:
        """Whether the target moves while the student learns, so that the two can collapse."""
        return self.trains_aligner and self.align_direction == "teacher_to_student"

    @property
    def measures_layers(self) -> bool:
        """Whether the layer map is measured before training."""
        return self.use_cka_layer_mapping and self.layer_mapping_path is None

    @property
    def matches_cache(self) -> bool:
        """Whether the student's cache is compared with the teacher's."""
        return self.kv_weight > 0 or self.cka_weight > 0

    @property
    def _no_matching(self) -> str:
        return "--kv_weight 0" if self.kv_weight else "--cka_weight 0"

    @property
    def unrotates(self) -> bool:
        """Whether the teacher's keys are aligned without their rotation."""
        return self.key_space != "rotated"

    @property
    def resampling(self) -> SegmentResampling | None:
        """How the teacher's segments are warped to the student's slots, if they are."""
        return resampling_of(self)

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher's forward is part of the step."""
        if self.matches_cache or self.codi_weight:
            return True
        return self.student == "latent" and self.self_distillation and self.teacher_ce_weight > 0


# what a resumed run may change without becoming another run
RESUMABLE = frozenset(
    {"resume", "overwrite", "no_progress", "output_dir", "save_steps", "save_total_limit", "device"}
    | {"kv_scores_path"}
)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The keys of a configuration file.

    Raises:
        ValueError: no such file, not a mapping, or a key that `TrainConfig` does not have.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"--config {path}: no such file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(
            f"--config {path} is not valid YAML: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(values, dict) or not values:
        raise ValueError(f"--config {path} must hold keys and values, such as `lr: 5e-5`")
    kinds = get_type_hints(TrainConfig)
    unknown = [key for key in values if key not in kinds]
    if unknown:
        raise ValueError(f"--config {path}: unknown key {unknown[0]!r}; see kava train --help")
    return {key: _checked(path, key, value, kinds[key]) for key, value in values.items()}


_KIND_NAMES = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "text",
    list[str]: "a list of texts",
}


def _checked(path: Path, key: str, value: Any, hint: Any) -> Any:
    """A value of a file, held to the type of its field."""
    kind, *optional = get_args(hint) or (hint,)
    if value is None and optional:
        return None
    if kind is float and isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 5e-5 as text
        except ValueError:
            pass
    elif kind == list[str]:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
    elif type(value) is kind:
        return value
    raise ValueError(f"--config {path}: {key}: {value!r} is not {_KIND_NAMES[kind]}")


def parse_config(argv: list[str], prog: str = "kava train") -> TrainConfig:
    """Flags, and a `--config` file below them, as a `TrainConfig`.

    Unknown flags and malformed values leave by `SystemExit(2)`, as argparse does, with one line
    in place of the usage, which would fill the screen.

    Args:
        argv: the arguments, without the program's name.
        prog: the command that they were given to, for messages.

    Raises:
        ValueError: a value that `TrainConfig` refuses, or a bad file.
    """
    import argparse

    from transformers import HfArgumentParser

    class Parser(HfArgumentParser):
        def error(self, message: str) -> NoReturn:
            self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")

    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    found, _ = finder.parse_known_args(argv)
    parser = Parser(
        TrainConfig,  # type: ignore[arg-type]
        prog=prog,
        description="Distil a teacher's key/value cache into a student.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", help="YAML file with the same keys as the flags; flags win")
    if found.config is not None:
        parser.set_defaults(**read_yaml(found.config))
    namespace = vars(parser.parse_args(argv))
    namespace.pop("config")
    return TrainConfig(**namespace)
