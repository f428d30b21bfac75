"""Random variants: measured, not only run."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outdo import runtime
from outdo.backbones import _augment


def halves(n=64, size=32):
    """Left half dark, right half light."""
    rows = torch.full((n, size, size, 3), 60, dtype=torch.uint8)
    rows[:, :, size // 2 :] = 200
    return rows


def test_images_are_mirrored_in_half_the_cases_at_full_strength_and_a_quarter_at_half():
    for strength, share in ((1.0, 0.5), (0.5, 0.25)):
        found = _augment.images(halves(2000, 8), strength, runtime.generator(1)).float()
        mirrored = (found[:, :, :3].mean((1, 2, 3)) > found[:, :, 5:].mean((1, 2, 3))).float().mean()
        assert abs(float(mirrored) - share) < 0.04


def test_placements_stay_near_and_inside():
    maps = _augment.placements(1000, 0.5, runtime.generator(1))
    corners = torch.tensor([[x, y, 1.0] for x in (-1, 1) for y in (-1, 1)])
    reached = maps @ corners.T
    assert reached.abs().max() < 1.25, "a corner turned a little beyond the edge, where the image is mirrored on"
    sides = torch.linalg.det(maps[:, :, :2]).abs().sqrt()
    assert 0.75 < sides.min() < 0.85
    assert sides.max() <= 1.01


def test_more_strength_changes_more():
    rows = torch.randint(0, 256, (64, 32, 32, 3), dtype=torch.uint8, generator=runtime.generator(0))
    rows = torch.nn.functional.avg_pool2d(rows.permute(0, 3, 1, 2).float(), 5, 1, 2).permute(0, 2, 3, 1).to(torch.uint8)
    changes = [(_augment.images(rows, s, runtime.generator(1)).float() - rows.float()).abs().mean().item()
               for s in (0.01, 0.1, 0.5, 1.0)]
    assert changes == sorted(changes)
    assert changes[0] < 3


def test_colours_change_but_a_grey_image_stays_grey():
    grey = torch.full((64, 8, 8, 3), 100, dtype=torch.uint8)
    found = _augment.images(grey, 1.0, runtime.generator(1))
    assert (found == found[..., :1]).all()
    assert 10 < found[:, 0, 0, 0].float().std() < 40
    assert abs(found.float().mean() - 100) < 10


def test_black_stays_black_and_white_does_not_wrap_round():
    black, white = (torch.full((64, 8, 8, 3), v, dtype=torch.uint8) for v in (0, 255))
    assert (_augment.images(black, 1.0, runtime.generator(1)) == 0).all()
    assert _augment.images(white, 1.0, runtime.generator(1)).min() > 150


@pytest.mark.parametrize("shape", [(1, 8, 8, 3), (3, 28, 28, 3), (2, 24, 40, 3)])
def test_any_shape(shape):
    rows = torch.zeros(shape, dtype=torch.uint8)
    assert _augment.images(rows, 0.7, runtime.generator(1)).shape == shape


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.sampled_from([0.5, 1.0]), st.integers(0, 5))
def test_texts_lose_some_inner_tokens_and_nothing_else(lengths, strength, seed):
    rows = torch.full((len(lengths), 12), -1, dtype=torch.int32)
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = torch.arange(100, 100 + length)
    found = _augment.texts(rows, strength, runtime.generator(seed))
    assert found.dtype == rows.dtype
    for row, length in zip(found.tolist(), lengths, strict=True):
        tokens = [t for t in row if t >= 0]
        assert row == tokens + [-1] * (12 - len(tokens)), "padding stays at the end"
        assert tokens == sorted(tokens), "the order stays"
        assert set(tokens) <= set(range(100, 100 + length))
        if length:
            assert (tokens[0], tokens[-1]) == (100, 99 + length), "the first and the last stay"


def test_texts_lose_a_tenth_at_half_strength():
    rows = torch.arange(2000 * 50, dtype=torch.int32).reshape(2000, 50)
    kept = (_augment.texts(rows, 0.5, runtime.generator(1)) >= 0).float().mean()
    assert abs(float(kept) - (1 - 0.1 * 48 / 50)) < 0.01
