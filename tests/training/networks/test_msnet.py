"""MS-Net against the published parameter counts and the properties of its masks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.networks.msnet import MSNet, MSNetConfig, loss, mask, pyramid, upsampled


@pytest.mark.parametrize(
    ("scales", "filters", "per_scale", "in_3d", "in_2d"),
    [
        (4, 2, [1_773_697, 112_513, 7_393, 553], 1_894_156, 632_068),
        (3, 6, [998_497, 63_649, 4_249], 1_066_395, 355_971),
        (4, 1, [444_481, 28_609, 1_969, 169], 475_228, 158_752),
        (3, 2, [111_649, 7_393, 553], 119_595, 40_035),
        (2, 2, [7_177, 553], 7_730, 2_618),
    ],
)
def test_parameters_are_as_many_as_published(
    scales: int, filters: int, per_scale: list[int], in_3d: int, in_2d: int
) -> None:
    network = MSNet(MSNetConfig(scales=scales, filters=filters))
    assert [sum(p.numel() for p in part.parameters()) for part in network.networks] == per_scale
    assert sum(per_scale) == in_3d
    flat = MSNet(MSNetConfig(scales=scales, filters=filters, dimensions=2))
    assert sum(p.numel() for p in flat.parameters()) == in_2d


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), porosity=st.floats(0.0, 1.0), dimensions=st.sampled_from([2, 3]))
def test_a_mask_spreads_a_coarse_value_over_the_pores_and_keeps_its_mean(
    seed: int, porosity: float, dimensions: int
) -> None:
    torch.manual_seed(seed)
    pore = (torch.rand(2, 1, *[8] * dimensions, dtype=torch.float64) < porosity).double()
    coarse, fine = pyramid(pore, 2)
    value = torch.randn_like(coarse)
    spread = mask(fine, coarse) * upsampled(value)
    mean = pyramid(spread, 2)[0]
    assert torch.allclose(mean[coarse > 0], value[coarse > 0], atol=1e-12)
    assert (spread[pore == 0] == 0).all()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_nothing_flows_in_the_solid_and_every_scale_answers(dimensions: int) -> None:
    torch.manual_seed(0)
    network = MSNet(MSNetConfig(scales=3, filters=1, dimensions=dimensions))  # type: ignore[arg-type]
    pore = (torch.rand(2, 1, *[16] * dimensions) < 0.5).float()
    answers = network(torch.rand_like(pore) * pore, pore)
    assert [y.shape[-1] for y in answers.scales] == [4, 8, 16]
    assert (answers.finest[pore == 0] == 0).all()
    assert answers.finest[pore == 1].std() > 0


def test_images_of_one_batch_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    network = MSNet(MSNetConfig(scales=2, filters=1)).double()
    pore = (torch.rand(3, 1, 8, 8, 8) < 0.6).double()
    features = torch.rand_like(pore) * pore
    together = network(features, pore).finest
    alone = torch.cat([network(features[i : i + 1], pore[i : i + 1]).finest for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-12)


def test_a_size_that_cannot_be_halved_is_refused_with_the_remedy() -> None:
    network = MSNet(MSNetConfig(scales=3, filters=1))
    with pytest.raises(ValueError, match=r"multiple of 4 .* pad it with solid"):
        network(torch.zeros(1, 1, 8, 10, 8), torch.zeros(1, 1, 8, 10, 8))


def test_the_loss_is_relative_to_the_target_and_counts_every_scale() -> None:
    torch.manual_seed(1)
    network = MSNet(MSNetConfig(scales=2, filters=1)).double()
    pore = (torch.rand(1, 1, 8, 8, 8) < 0.7).double()
    target = torch.rand_like(pore) * pore
    answers = network(torch.rand_like(pore) * pore, pore)
    by_hand = ((answers.scales[1] - target) ** 2).mean() + ((answers.scales[0] - pyramid(target, 2)[0]) ** 2).mean()
    variance = target.var(unbiased=False)[None]
    assert torch.allclose(loss(answers, target, variance), by_hand / variance)
    perfect = type(answers)(pyramid(target, 2))
    assert loss(perfect, target, variance) == 0.0
