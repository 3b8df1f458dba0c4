from dataclasses import FrozenInstanceError

import pytest

from attnfd.models.taps import NetInfo


def test_what_is_known_of_a_network_is_named_and_stays() -> None:
    info = NetInfo(channels={"encoder": 4}, classes=2)
    with pytest.raises(FrozenInstanceError):
        info.classes = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        NetInfo({"encoder": 4}, 2)  # type: ignore[misc]
