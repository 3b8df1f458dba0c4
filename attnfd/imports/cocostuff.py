"""COCO-Stuff 164k (Caesar et al. 2018): 171 classes of things and stuff for all images of COCO 2017."""

from pathlib import Path

from attnfd.imports.base import SPLITS, Export, Importer, all_masks, by_name, pair, to_void

FOLDERS = ("train2017", "val2017")

NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, -, stop
sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, -, backpack,
umbrella, -, -, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball
glove, skateboard, surfboard, tennis racket, bottle, -, wine glass, cup, fork, knife, spoon, bowl, banana,
apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, -,
dining table, -, -, toilet, -, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster,
sink, refrigerator, -, book, clock, vase, scissors, teddy bear, hair drier, toothbrush, -, banner, blanket,
branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other, ceiling-tile, cloth,
clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, floor-marble, floor-other,
floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit, furniture-other, grass, gravel,
ground-other, hill, house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, net, paper,
pavement, pillow, plant-other, plastic, platform, playingfield, railing, railroad, river, road, rock, roof,
rug, salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw,
structural-other, table, tent, textile-other, towel, tree, vegetable, wall-brick, wall-concrete, wall-other,
wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind, window-other, wood
"""
"""Names of the values 0 to 181; `-` marks the eleven values that no mask has."""


class CocoStuff(Importer):
    """`images/train2017/x.jpg`, and the pixel maps in `annotations/train2017/x.png`; 255 is void."""

    about = "COCO-Stuff 164k: images/train2017 and the stuffthingmaps in annotations/train2017"

    def fits(self, root: Path) -> bool:
        maps = (_maps(root, folder) for folder in FOLDERS)
        return any(folder is not None and next(folder.glob("*.png"), None) for folder in maps)

    def read(self, root: Path) -> Export:
        names = " ".join(NAMES.split()).split(", ")
        classes = {value: name for value, name in enumerate(names) if name != "-"}
        export = Export(classes)
        for folder in FOLDERS:
            maps = _maps(root, folder)
            if maps is not None:
                labels = to_void({value: value for value in classes})
                images, masks = by_name(root / "images" / folder), all_masks(maps)
                pair(export, images, masks, labels, SPLITS[folder], f"{folder}/")
        return export


def _maps(root: Path, folder: str) -> Path | None:
    """The folder of the pixel maps of a split."""
    places = ("annotations", "stuffthingmaps", "stuffthingmaps_trainval2017")
    return next((root / place / folder for place in places if (root / place / folder).is_dir()), None)
