"""The latent student: its two decodings, padding, gradients, the shared prompt, its files."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from families import FAMILIES, VOCAB_SIZE
from kava.models.capture import capture
from kava.names import THOUGHT_POSITIONS
from kava.student import LatentStudent
from kava.student.cache import pairs_of
from kava.student.config import LatentStudentConfig

P, A, M = 7, 3, 4
DECODINGS = [
    {"decoding": "sequential"},
    {"decoding": "jacobi", "num_iterations": 2},
    {"decoding": "jacobi", "num_iterations": 0},
]


def places(kind: str, prompt: int, thoughts: int, length: int) -> Tensor:
    """Positions [1, length] of an unpadded sample, counted token by token."""
    position, found = -1, []
    for column in range(length):
        shares = kind == "shared" and column in (prompt, prompt + 1 + thoughts)
        position += 0 if shares else 1
        found.append(position)
    return torch.tensor([found])


def wrap(model: PreTrainedModel, num_latents: int = M, **options: object) -> LatentStudent:
    torch.manual_seed(0)
    options.setdefault("num_iterations", min(2, num_latents))
    student = LatentStudent.wrap(model, num_latents=num_latents, **options).eval()
    if hasattr(student, "projection"):
        # loud enough that one latent's error shows in the next
        for parameter in student.projection.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return student


@pytest.fixture(name="batch")
def _batch() -> tuple[Tensor, Tensor, Tensor]:
    """Prompts of 7, 4 and 5 tokens, left-padded, and answers of 3 tokens."""
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(1, VOCAB_SIZE, (3, P), generator=generator)
    mask = torch.ones_like(prompts)
    mask[1, :3] = 0
    mask[2, :2] = 0
    answers = torch.randint(1, VOCAB_SIZE, (3, A), generator=generator)
    return prompts.masked_fill(mask == 0, 0), mask, answers


def test_wrapping_leaves_the_base_model_as_it_is(family_model: PreTrainedModel) -> None:
    before = {name: part.clone() for name, part in family_model.state_dict().items()}
    student = wrap(family_model)
    assert student.base is family_model
    for name, part in student.base.state_dict().items():
        assert torch.equal(part, before[name]), name


@pytest.mark.parametrize("kind", THOUGHT_POSITIONS)
def test_sequential_latents_equal_a_loop_over_the_whole_sequence(
    family_model: PreTrainedModel, batch: tuple[Tensor, Tensor, Tensor], kind: str
) -> None:
    """The oracle: no cache, no batch; the whole sequence is read again for every latent."""
    prompts, mask, answers = batch
    student = wrap(family_model, thought_positions=kind)
    output = student(prompts, mask, answers)
    embed = student.get_input_embeddings()
    for row in range(len(prompts)):
        length = int(mask[row].sum())
        position_ids = places(kind, length, M, length + M + 1 + A)
        sequence = [embed(prompts[row][mask[row] == 1]), student.thought_embeddings[:1]]
        for _ in range(M):
            read = torch.cat(sequence)[None]
            hidden = family_model.base_model(
                inputs_embeds=read, position_ids=position_ids[:, : read.shape[1]]
            ).last_hidden_state
            sequence.append(student.projection(hidden[0, -1:]))
        sequence += [student.thought_embeddings[1:], embed(answers[row, :-1])]
        outputs, trace = capture(
            family_model, inputs_embeds=torch.cat(sequence)[None], position_ids=position_ids
        )
        torch.testing.assert_close(output.logits[row], outputs.logits[0, -A:], atol=2e-4, rtol=1e-3)
        start = length + 1
        latents = trace.slice(start, start + M)
        torch.testing.assert_close(output.trace.keys[row], latents.keys[0], atol=2e-4, rtol=1e-3)
        torch.testing.assert_close(
            output.trace.values[row], latents.values[0], atol=2e-4, rtol=1e-3
        )
        first = length if kind == "shared" else length + 1
        assert output.trace.positions[row].tolist() == list(range(first, first + M))
    assert output.num_passes == M + 1


@pytest.mark.parametrize("kind", THOUGHT_POSITIONS)
def test_what_is_generated_is_what_the_forward_predicts(
    family_model: PreTrainedModel, batch: tuple[Tensor, Tensor, Tensor], kind: str
) -> None:
    prompts, mask, _ = batch
    student = wrap(family_model, thought_positions=kind)
    tokens = student.answer(prompts, mask, max_new_tokens=A).tokens
    predicted = student(prompts, mask, tokens).logits.argmax(-1)
    assert torch.equal(predicted, tokens)


def test_thought_vectors_start_near_the_mean_embedding(family_model: PreTrainedModel) -> None:
    student = wrap(family_model, thought_positions="shared")
    vocabulary = torch.arange(VOCAB_SIZE)
    embeddings = family_model.get_input_embeddings()(vocabulary)
    away = student.thought_embeddings - embeddings.mean(0)
    assert 0 < away.std() < 0.5 * embeddings.std()
    assert not torch.equal(student.thought_embeddings[0], student.thought_embeddings[1])


def test_a_student_of_an_earlier_version_has_positions_of_its_own() -> None:
    config = LatentStudentConfig(num_latents=2).to_dict()
    del config["thought_positions"]
    assert LatentStudentConfig.from_dict(config).thought_positions == "own"


def test_as_many_jacobi_iterations_as_latents_equal_sequential_decoding(
    family_model: PreTrainedModel, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    sequential = wrap(family_model)
    jacobi = wrap(family_model, decoding="jacobi", num_iterations=M)
    jacobi.projection.load_state_dict(sequential.projection.state_dict())
    jacobi.thought_embeddings.data.copy_(sequential.thought_embeddings.data)
    ours, theirs = jacobi(*batch), sequential(*batch)
    torch.testing.assert_close(ours.logits, theirs.logits, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(ours.trace.keys, theirs.trace.keys, atol=1e-4, rtol=1e-3)
    fewer = wrap(family_model, decoding="jacobi", num_iterations=M - 1)
    fewer.load_state_dict(jacobi.state_dict())
    other = fewer(*batch).trace
    # latent j is right after j passes: all but the last one
    torch.testing.assert_close(
        other.slice(0, M - 1).keys, theirs.trace.slice(0, M - 1).keys, atol=1e-4, rtol=1e-3
    )
    error = (other.keys - theirs.trace.keys)[..., -1, :].abs().max()
    assert error > 1e-3


def test_no_iterations_are_pause_tokens(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    prompts, _, answers = batch
    model = FAMILIES["llama"]()
    student = wrap(model, decoding="jacobi", num_iterations=0)
    output = student(prompts, None, answers)
    embed = student.get_input_embeddings()
    middle = [student.thought_embeddings[:1], student.placeholders, student.thought_embeddings[1:]]
    whole = torch.cat(
        [embed(prompts), torch.cat(middle).expand(3, -1, -1), embed(answers[:, :-1])], dim=1
    )
    expected = model(inputs_embeds=whole).logits[:, -A:]
    torch.testing.assert_close(output.logits, expected, atol=1e-4, rtol=1e-3)
    assert output.num_passes == 1
    assert not hasattr(student, "projection")


@pytest.mark.parametrize("options", DECODINGS, ids=["sequential", "jacobi", "pause"])
def test_a_sample_gives_the_same_alone_and_in_a_padded_batch(
    options: dict[str, object],
    family_model: PreTrainedModel,
    batch: tuple[Tensor, Tensor, Tensor],
) -> None:
    prompts, mask, answers = batch
    student = wrap(family_model, **options)
    together = student(prompts, mask, answers, queries=True)
    for row in range(len(prompts)):
        alone = student(
            prompts[row][mask[row] == 1][None], None, answers[row : row + 1], queries=True
        )
        for name, ours, theirs in [
            ("logits", together.logits, alone.logits),
            ("keys", together.trace.keys, alone.trace.keys),
            ("values", together.trace.values, alone.trace.values),
            ("queries", together.trace.queries, alone.trace.queries),
        ]:
            torch.testing.assert_close(
                ours[row], theirs[0], atol=2e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize("options", DECODINGS, ids=["sequential", "jacobi", "pause"])
def test_gradients_reach_all_parameters_through_all_latents(
    options: dict[str, object], batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    student = wrap(FAMILIES["qwen2"](), **options)
    output = student(*batch)
    (output.logits.square().mean() + output.trace.keys.square().mean()).backward()
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0 or name.endswith("k_proj.bias"), name


@pytest.mark.parametrize("slot", range(M))
def test_the_cache_at_each_latent_depends_on_the_prompt(
    slot: int, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    student = wrap(FAMILIES["llama"]())
    before = student(*batch).trace.keys
    prompts = batch[0].clone()
    prompts[0, -1] = (prompts[0, -1] + 1) % VOCAB_SIZE
    after = student(prompts, *batch[1:]).trace.keys
    assert (before[0, 1:, :, slot] - after[0, 1:, :, slot]).abs().max() > 1e-3
    torch.testing.assert_close(before[1:], after[1:])


@pytest.mark.parametrize("options", DECODINGS, ids=["sequential", "jacobi", "pause"])
def test_continuing_from_a_pass_over_the_prompt_gives_the_same_gradients(
    options: dict[str, object],
    family_model: PreTrainedModel,
    batch: tuple[Tensor, Tensor, Tensor],
) -> None:
    """One reading of the prompt stands for two, to 1e-6 (norms compute in single precision)."""
    prompts, mask, answers = batch
    student = wrap(family_model.double(), **options)
    text = torch.cat([prompts, answers, answers], dim=1)
    text_mask = torch.cat([mask, torch.ones_like(answers), torch.ones_like(answers)], dim=1)

    def gradients(share: bool) -> dict[str, Tensor]:
        student.zero_grad()
        outputs, _ = capture(student.base, text, text_mask)
        pairs = pairs_of(outputs.past_key_values, P) if share else None
        output = student(prompts, mask, answers, prompt_pairs=pairs, hidden_states=True)
        loss = outputs.logits[:, P:].square().mean() + output.logits.square().mean()
        loss = loss + output.trace.keys.square().mean() + output.trace.values.sum()
        loss = loss + sum(state[:, 0].mean() for state in output.hidden_states)
        loss.backward()
        return {name: p.grad.clone() for name, p in student.named_parameters()}

    shared, separate = gradients(True), gradients(False)
    for name, gradient in separate.items():
        error = (shared[name] - gradient).abs().max() / gradient.abs().max().clamp(min=1.0)
        assert error < 1e-6, name


def test_no_latents_answer_at_once(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    prompts, _, answers = batch
    model = FAMILIES["llama"]()
    student = wrap(model, num_latents=0)
    output = student(prompts, None, answers)
    assert output.trace is None
    assert output.num_passes == 1
    embed = student.get_input_embeddings()
    both = student.thought_embeddings.expand(3, -1, -1)
    expected = model(
        inputs_embeds=torch.cat([embed(prompts), both, embed(answers[:, :-1])], dim=1)
    ).logits[:, -A:]
    torch.testing.assert_close(output.logits, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", DECODINGS, ids=["sequential", "jacobi", "pause"])
def test_a_saved_student_comes_back_the_same(
    family: str,
    options: dict[str, object],
    batch: tuple[Tensor, Tensor, Tensor],
    tmp_path: object,
) -> None:
    student = wrap(FAMILIES[family](), **options)
    student.save_pretrained(tmp_path)
    again = LatentStudent.from_pretrained(tmp_path).eval()
    assert again.config.num_latents == M
    for name, part in student.state_dict().items():
        assert torch.equal(again.state_dict()[name], part), name
    torch.testing.assert_close(again(*batch).logits, student(*batch).logits)


def test_out_of_range_settings_are_refused() -> None:
    model = FAMILIES["llama"]()
    with pytest.raises(ValueError, match="num_iterations=5 must lie between 0"):
        LatentStudent.wrap(model, num_latents=3, decoding="jacobi", num_iterations=5)
    with pytest.raises(ValueError, match="decoding='parallel' is unknown"):
        LatentStudent.wrap(model, num_latents=3, decoding="parallel")
    with pytest.raises(ValueError, match="answer_ids is None"):
        LatentStudent.wrap(model, num_latents=3)(torch.ones(1, 3, dtype=torch.long))
