"""CIRKD: its terms compared with loops, its queues with deques, its memory with its inputs."""

import io
import time
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attnfd.distillers.cirkd import CIRKD, Memory, Queues, batch_loss, memory_loss, pool, unit
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.taps import NetInfo, Output, Tap
from tests.distillers.helpers import random

CLASSES = 3
OPTIONS: dict[str, Any] = {
    "weight": 1.0,
    "layers": ("encoder",),
    "point": "pre_relu",
    "kd_weight": 1.0,
    "kd_temperature": 1.0,
    "batch_weight": 1.0,
    "batch_temperature": 0.1,
    "pool": 4,
    "pool_from": 256,
    "pixel_weight": 0.1,
    "region_weight": 0.1,
    "memory_temperature": 0.1,
    "pixel_queue": 40,
    "region_queue": 10,
    "pixel_samples": 30,
    "region_samples": 12,
    "pixels_per_image": 4,
}


def distiller(**changes: Any) -> CIRKD:
    student = NetInfo(channels={"encoder": 4}, classes=CLASSES)
    teacher = NetInfo(channels={"encoder": 5}, classes=CLASSES)
    return CIRKD(student, teacher, CIRKD.Config(**(OPTIONS | changes))).double()


def step(seed: int, images: int = 2, size: int = 6) -> tuple[Output, Output, Tensor]:
    """Outputs of a student and a teacher, and labels with four times the side of the features."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        Output(
            torch.randn(images, CLASSES, 4 * size, 4 * size, generator=generator, dtype=torch.float64),
            {Tap("encoder"): torch.randn(images, c, side, side, generator=generator, dtype=torch.float64)},
        )
        for c, side in ((4, size - 1), (5, size))
    )
    values = torch.tensor([0, 1, 2, 255])[torch.randint(4, (images, size, size), generator=generator)]
    return student, teacher, values.repeat_interleave(4, 1).repeat_interleave(4, 2)


def divergence(s: np.ndarray, t: np.ndarray, s_keys: np.ndarray, t_keys: np.ndarray, tau: float) -> float:
    """KL(softmax(t_keys · t / τ) ‖ softmax(s_keys · s / τ)) of one pixel."""
    p, q = (np.exp(keys @ x / tau) for x, keys in ((t, t_keys), (s, s_keys)))
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum(p * np.log(p / q)))


def unit_pixels(features: Tensor, valid: Tensor, image: int) -> np.ndarray:
    pixels = features[image].numpy()[:, valid[image].numpy()].T
    return pixels / np.linalg.norm(pixels, axis=1, keepdims=True)


def batch_loss_by_hand(student: Tensor, teacher: Tensor, valid: Tensor, tau: float) -> float:
    images = [i for i in range(len(valid)) if valid[i].any()]
    pairs = []
    for i in images:
        for j in images:
            s, t, s_keys, t_keys = (
                unit_pixels(features, valid, image) for image in (i, j) for features in (student, teacher)
            )
            rows = [divergence(s[n], t[n], s_keys, t_keys, tau) for n in range(len(s))]
            pairs.append(np.mean(rows))
    return float(np.mean(pairs))


@pytest.mark.parametrize(
    "void", [(), ((0, 1, 1), (1, 0, 2), (1, 1, 2)), ((1,),), ((1, 0), (1, 1, 1), (1, 1, 2))]
)
@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_batch_loss_values(void: tuple[tuple[int, ...], ...], tau: float) -> None:
    student, teacher = random(3, 4, 2, 3), random(3, 5, 2, 3, seed=1)
    valid = torch.ones(3, 2, 3, dtype=torch.bool)
    for index in void:
        valid[index] = False
    found = batch_loss(student, teacher, valid, temperature=tau)
    np.testing.assert_allclose(found, batch_loss_by_hand(student, teacher, valid, tau), rtol=1e-12)


def test_batch_loss_sees_neither_lengths_nor_void() -> None:
    student, teacher = random(2, 4, 2, 3), random(2, 5, 2, 3, seed=1)
    valid = torch.ones(2, 2, 3, dtype=torch.bool)
    valid[0, 1, 1] = False
    expected = batch_loss(student, teacher, valid, temperature=0.1)
    lengths = random(2, 1, 2, 3, seed=2).exp()
    torch.testing.assert_close(batch_loss(lengths * student, teacher, valid, temperature=0.1), expected)
    student[0, :, 1, 1] = teacher[0, :, 1, 1] = 1e3
    assert batch_loss(student, teacher, valid, temperature=0.1) == expected
    assert abs(batch_loss(teacher, teacher, valid, temperature=0.1)) < 1e-12


def test_batch_loss_gradient() -> None:
    student, teacher = random(2, 3, 2, 2).requires_grad_(), random(2, 4, 2, 2, seed=1)
    valid = torch.ones(2, 2, 2, dtype=torch.bool)
    valid[0, 1, 1] = False
    assert torch.autograd.gradcheck(lambda x: batch_loss(x, teacher, valid, temperature=0.5), student)


def test_memory_loss_values_and_gradient() -> None:
    s, t, keys = (F.normalize(random(n, 4, seed=n), dim=1) for n in (5, 6, 7))
    t = t[:5]
    rows = [divergence(s[n].numpy(), t[n].numpy(), keys.numpy(), keys.numpy(), 0.1) for n in range(5)]
    np.testing.assert_allclose(memory_loss(s, t, keys, temperature=0.1), np.mean(rows), rtol=1e-12)
    assert memory_loss(t, t, keys, temperature=0.1) == 0
    assert torch.autograd.gradcheck(lambda x: memory_loss(x, t, keys, temperature=0.5), s.requires_grad_())


@pytest.mark.parametrize(("pixels", "keys"), [(0, 3), (3, 0), (0, 0)])
def test_memory_loss_without_pixels_or_keys_is_zero(pixels: int, keys: int) -> None:
    student = random(pixels, 4).requires_grad_()
    loss = memory_loss(student, random(pixels, 4), random(keys, 4), temperature=0.1)
    loss.backward()
    assert loss == 0


def test_pool_averages_what_is_valid() -> None:
    features, valid = random(2, 3, 5, 7), random(2, 5, 7, seed=1) > 0
    valid[0, :2, :2] = False
    means, any_valid = pool(features, valid, 2)
    for b in range(2):
        for y in range(3):
            for x in range(4):
                cell = (slice(2 * y, 2 * y + 2), slice(2 * x, 2 * x + 2))
                kept = features[b][:, *cell][:, valid[b][cell]]
                expected = kept.mean(dim=1) if kept.numel() else torch.zeros(3).double()
                torch.testing.assert_close(means[b, :, y, x], expected)
                assert any_valid[b, y, x] == (kept.numel() > 0)
    assert not any_valid.all()


def contents(queues: Queues, k: int) -> Tensor:
    """The queue of class k, the oldest first."""
    size, start, count = queues.items.shape[1], int(queues.pointer[k]), int(queues.filled[k])
    return queues.items[k, [(start - count + i) % size for i in range(count)]]


def sampled(queues: Queues, count: int) -> Tensor:
    """The real embeddings of a sample."""
    items, known = queues.sample(count)
    return items[known]


def test_queues_are_deques() -> None:
    queues, model = Queues(CLASSES, 7, 2), [deque[float](maxlen=7) for _ in range(CLASSES)]
    generator = np.random.default_rng(0)
    for start in range(0, 2000, 100):
        classes = generator.integers(CLASSES, size=generator.integers(0, 30))  # sometimes more than fit
        values = start + np.arange(len(classes))
        queues.push(torch.tensor(values).view(-1, 1).expand(-1, 2).float(), torch.tensor(classes))
        for k, value in zip(classes, values, strict=True):
            model[k].append(float(value))
        for k in range(CLASSES):
            assert contents(queues, k)[:, 0].tolist() == list(model[k])


def test_samples_are_balanced_without_replacement_and_of_what_is_there() -> None:
    queues = Queues(CLASSES, 7, 1)
    assert not queues.sample(4)[1].any()
    classes = torch.tensor([0] * 9 + [2] * 3)
    queues.push(torch.arange(12.0).view(-1, 1), classes)
    seen = set()
    for _ in range(60):
        drawn = sampled(queues, 4)[:, 0].tolist()
        assert len(drawn) == len(set(drawn)) == 4 + 3
        assert len([value for value in drawn if value < 9]) == 4
        seen |= set(drawn)
    assert seen == {2, 3, 4, 5, 6, 7, 8, 9, 10, 11}  # the two oldest of class 0 were replaced
    assert sorted(sampled(queues, 99)[:, 0].tolist()) == sorted(seen)


def labelled(images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Unit embeddings (B, N, C) and labels (B, N), some of them void."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(images, 20, 5, generator=generator, dtype=torch.float64)
    return F.normalize(embeddings, dim=2), torch.tensor([0, 1, 255])[
        torch.randint(3, (images, 20), generator=generator)
    ]


def memory(**changes: Any) -> Memory:
    return Memory(CIRKD.Config(**(OPTIONS | changes)), in_channels=4, channels=5, classes=CLASSES).double()


def test_memory_contains_the_latest_pixels_and_regions_of_every_class() -> None:
    remembered = memory(pixels_per_image=20)
    pixels, regions = ([deque[np.ndarray](maxlen=size) for _ in range(CLASSES)] for size in (40, 10))
    for seed in range(8):
        embeddings, labels = labelled(2, seed)
        remembered.remember(embeddings, labels)
        for b in range(2):
            for k in range(CLASSES):
                own = [embeddings[b, n].numpy() for n in range(20) if labels[b, n] == k]
                pixels[k].extend(own)
                if own:
                    mean = np.mean(own, axis=0)
                    regions[k].append(mean / np.linalg.norm(mean))
    for queues, model in ((remembered.pixels, pixels), (remembered.regions, regions)):
        for k in range(CLASSES):
            expected = np.array(model[k]).reshape(-1, 5)
            np.testing.assert_allclose(contents(queues, k).numpy(), expected, rtol=1e-12)
    assert len(pixels[0]) == 40
    assert len(pixels[2]) == 0


def test_an_image_adds_few_pixels_of_a_class_all_its_own() -> None:
    remembered = memory()
    embeddings, _ = labelled(4, 0)
    labels = torch.tensor([0, 1, 255, 2]).repeat(4, 5)
    remembered.remember(embeddings, labels)
    for k in range(CLASSES):
        found = {tuple(item) for item in contents(remembered.pixels, k).tolist()}
        counts = []
        for b in range(4):
            own = {tuple(item) for item in embeddings[b][labels[b] == k].tolist()}
            assert len(own) == 5
            counts.append(len(found & own))
        assert counts == [4, 4, 4, 4]
        assert len(found) == 16


def test_what_is_remembered_is_exact_and_has_no_gradient() -> None:
    embeddings, labels = labelled(2, 0)
    one, other = memory(), memory()
    one.remember(embeddings, labels)
    with torch.autocast("cpu", torch.bfloat16):
        other.float().remember(embeddings.float().requires_grad_(), labels)
    assert not other.regions.items.requires_grad
    torch.testing.assert_close(other.regions.items.double(), one.regions.items, rtol=1e-6, atol=1e-6)


def test_n_over_the_classes_and_one_more_of_each_are_drawn() -> None:
    full = memory(pixel_samples=16, region_samples=10)
    for queues, size in ((full.pixels, 40), (full.regions, 10)):
        queues.push(random(3 * size, 5), torch.arange(3).repeat(size))
    pixels, regions = sampled(full.pixels, 16 // 3 + 1), sampled(full.regions, 10 // 3 + 1)
    assert torch.equal(full.sample()[0][1], torch.ones(3 * (5 + 1), dtype=torch.bool))
    assert torch.equal(full.sample()[1][1], torch.ones(3 * (3 + 1), dtype=torch.bool))
    assert pixels.shape == (3 * (5 + 1), 5)
    assert regions.shape == (3 * (3 + 1), 5)


def test_the_projector_is_two_convolutions_of_single_pixels() -> None:
    shapes = {name: tuple(value.shape) for name, value in memory().projector.named_parameters()}
    assert shapes == {"0.weight": (5, 4, 1, 1), "1.weight": (5,), "1.bias": (5,), "3.weight": (5, 5, 1, 1)}


def test_memory_terms_relate_the_pixels_to_what_is_remembered() -> None:
    """The sample is larger than the queues, so every key takes part."""
    torch.manual_seed(
        4
    )  # With some projectors all channels of a pixel are 0, and such a vector has no direction.
    method = distiller(pixel_samples=999, region_samples=999)
    method(*step(0), 0)
    held = method.eval().memories["encoder"]
    assert isinstance(held, Memory)
    student, teacher, target = step(1)
    terms = method(student, teacher, target, 0)
    valid = target[:, ::4, ::4] != 255
    projected = F.interpolate(
        held.projector(student.taps[Tap("encoder")]).detach(), (6, 6), mode="bilinear", align_corners=True
    )
    s, t = (
        np.concatenate([unit_pixels(features, valid, image) for image in range(2)])
        for features in (projected, teacher.taps[Tap("encoder")])
    )
    for term, queues in (("cirkd_pixel", held.pixels), ("cirkd_region", held.regions)):
        keys = torch.cat([contents(queues, k) for k in range(CLASSES)]).numpy()
        rows = [divergence(s[n], t[n], keys, keys, 0.1) for n in range(len(s))]
        assert terms[term].item() == pytest.approx(0.1 * np.mean(rows), rel=1e-9)


def test_memory_terms_start_at_zero_and_only_training_fills_the_memory() -> None:
    method = distiller()
    for mode in (False, True):
        method.train(mode)
        terms = method(*step(0), 0)
        assert terms["cirkd_pixel"] == terms["cirkd_region"] == 0
        assert terms["cirkd_batch"] > 0
    terms = method(*step(1), 0)
    assert terms["cirkd_pixel"] > 0
    assert terms["cirkd_region"] > 0


def test_a_batch_of_void_costs_and_adds_nothing() -> None:
    method = distiller()
    method(*step(0), 0)
    filled = method.state_dict()["memories.encoder.pixels.filled"].clone()
    student, teacher, target = step(1)
    for feature in (student.logits, student.taps[Tap("encoder")]):
        assert feature is not None
        feature.requires_grad_()
    terms = method(student, teacher, torch.full_like(target, 255), 0)
    assert all(term == 0 for term in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    for feature in (student.logits, student.taps[Tap("encoder")]):
        assert feature is not None
        assert feature.grad is not None
        assert not feature.grad.any()
    assert (method.state_dict()["memories.encoder.pixels.filled"] == filled).all()


def test_large_maps_are_pooled() -> None:
    student, teacher, target = step(0)
    assert (
        distiller(pool=2, pool_from=7)(student, teacher, target, 0)["cirkd_batch"]
        == (distiller()(student, teacher, target, 0)["cirkd_batch"])
    )
    labels = target[:, ::4, ::4]
    features = F.interpolate(student.taps[Tap("encoder")], size=(6, 6), mode="bilinear", align_corners=True)
    pooled, valid = pool(features, labels != 255, 2)
    taught, _ = pool(teacher.taps[Tap("encoder")], labels != 255, 2)
    for pool_from in (5, 6):
        torch.testing.assert_close(
            distiller(pool=2, pool_from=pool_from)(student, teacher, target, 0)["cirkd_batch"].item(),
            batch_loss_by_hand(pooled, taught, valid, 0.1),
        )


def test_a_map_with_one_short_side_is_not_pooled() -> None:
    student, teacher, target = step(0)
    flat = Output(teacher.logits[:, :, :16], {Tap("encoder"): teacher.taps[Tap("encoder")][:, :, :4]})
    own, target = student._replace(logits=student.logits[:, :, :16]), target[:, :16]
    found = distiller(pool=2, pool_from=5)(own, flat, target, 0)["cirkd_batch"]
    assert found == distiller()(own, flat, target, 0)["cirkd_batch"]


def test_weights_multiply() -> None:
    names = {
        "kd_weight": "kd",
        "batch_weight": "cirkd_batch",
        "pixel_weight": "cirkd_pixel",
        "region_weight": "cirkd_region",
    }

    def second_step(**changes: Any) -> dict[str, float]:
        torch.manual_seed(0)
        method = distiller(**changes)
        method(*step(0), 0)
        return {name: term.item() for name, term in method(*step(1), 0).items()}

    plain = second_step()
    assert all(value > 0 for value in plain.values())
    for option, name in names.items():
        changed = second_step(**{option: 3 * OPTIONS[option]})
        assert changed == pytest.approx(plain | {name: 3 * plain[name]})
    assert second_step(weight=2.0) == pytest.approx({name: 2 * value for name, value in plain.items()})


def test_saved_and_loaded_it_continues() -> None:
    torch.manual_seed(0)
    method = distiller()
    for seed in range(5):
        method(*step(seed), 0)
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    other = distiller()
    other.load_state_dict(torch.load(file, weights_only=True))
    runs = []
    for continued in (method, other):
        torch.manual_seed(1)
        runs.append([continued(*step(seed), 0) for seed in range(5, 9)])
    for one, two in zip(*runs, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


@pytest.mark.slow
def test_remembering_costs_less_than_the_student() -> None:
    """The paper's sizes, with features as large as those of 129 × 129 images at output stride 16."""
    torch.manual_seed(0)
    classes, images = 21, torch.randn(2, 3, 129, 129)
    net = DeepLabV3Plus("resnet18", classes)
    options = OPTIONS | {
        "pixel_queue": 20000,
        "region_queue": 2000,
        "pixel_samples": 4096,
        "region_samples": 1024,
        "pixels_per_image": 16,
    }
    remembered = Memory(CIRKD.Config(**options), in_channels=256, channels=256, classes=classes)
    with torch.no_grad():
        (taught,) = net(images, taps=[Tap("encoder")]).taps.values()
    embeddings, labels = unit(taught), torch.randint(classes, (2, taught.shape[2] * taught.shape[3]))

    def seconds(call: Any) -> float:
        times = []
        for _ in range(7):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return float(np.median(times))

    update = seconds(lambda: remembered.remember(embeddings, labels))
    draw = seconds(remembered.sample)
    forward = seconds(lambda: net(images))
    print(f"update {update * 1e3:.1f} ms, draw {draw * 1e3:.1f} ms, student forward {forward * 1e3:.1f} ms")
    assert update + draw < forward
