from torch import nn

from attnfd.results.cost import count_parameters, multiply_adds


def test_by_hand() -> None:
    # 8×6 positions, 4 outputs, 3 inputs, 3×3; then a linear map of 4 channels to 5.
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1)).eval()
    assert multiply_adds(network, (8, 6)) == 48 * (4 * 3 * 9 + 4 * 5)
    assert count_parameters(network) == 4 * 3 * 9 + 4 + 2 * 4 + 4 * 5 + 5
