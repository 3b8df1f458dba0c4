"""What the numbers of a trained model mean; its card keeps it, so that it is used without its dataset."""

from pydantic import Field

from attnfd.config import Section
from attnfd.data.prepared import Card
from attnfd.data.transforms import MEAN, STD

Channels = tuple[float, float, float]


class Legend(Section):
    """Classes of the answer, and what makes a network's input of an RGB image: (x / 255 - mean) / std."""

    dataset: str = Field(description="what it was trained on, a recipe of params.yaml")
    classes: tuple[str, ...] = Field(description="a name per class index")
    palette: tuple[tuple[int, int, int], ...] = Field(description="an RGB colour per class")
    mean: Channels = Field(description="of red, green and blue, between 0 and 1")
    std: Channels = Field(description="as `mean`")


def legend(card: Card) -> Legend:
    """The legend of a model that is trained on the dataset of this card."""
    return Legend(dataset=card.name, classes=card.classes, palette=card.palette, mean=MEAN, std=STD)
