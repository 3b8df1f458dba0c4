"""The sections of `params.yaml`, each a typed model of its keys."""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import ConfigDict, Field, model_validator

from attnfd.config.network import NEEDED, OPTIONAL, Attention, NetworkConfig
from attnfd.config.section import (
    Batch,
    Count,
    NonNegative,
    Positive,
    Probability,
    Rate,
    Section,
    Seed,
    Side,
    within,
)

Epochs = Annotated[int, within(0, 1e5, "a training of more epochs does not end")]
Crop = Annotated[Side, within(8, 16384, "the sides of the network's features are a sixteenth of the crop's")]
Scale = Annotated[
    float, Field(gt=0), within(0.1, 10, "smaller images are only dots, and larger ones fill the memory")
]
Factor = Annotated[int | float, within(1e-4, 1e4, "a weight further from the paper's makes another method")]
PIXELS = 2**30
"""The most pixels of a step; their features need a hundred times as much memory."""

Percent = Annotated[float, Field(ge=0, le=100)]
Layer = Literal["backbone", "encoder", "decoder"]
LAYERS: tuple[Layer, ...] = get_args(Layer)
"""The layers whose features can be distilled, in the order of computation (paper sec. 3.1)."""

Weight = Annotated[NonNegative, Field(description="factor of the distillation loss; cross-entropy has 1")]


PositiveEpochs = Annotated[Epochs, Field(gt=0)]
StepTime = Annotated[float, Field(gt=0), within(1e-3, 1e7, "no training step takes longer")]


class Axes(Section):
    """Axes of a matrix."""

    @model_validator(mode="after")
    def _each_once(self) -> "Axes":
        for key, values in self:
            if isinstance(values, tuple) and len(set(values)) < len(values):
                raise ValueError(f"{key}: found {list(values)}; allowed: every value once")
        return self


class AblateAxes(Axes):
    """Axes of the `ablate` matrix."""

    students: tuple[str, ...] = Field(min_length=1, description="students that the ablation trains")
    variants: tuple[str, ...] = Field(min_length=1, description="names from `ablate`")
    seeds: tuple[Seed, ...] = Field(min_length=1, description="one training per seed")


class TuneAxes(Axes):
    """Axes of the `tune` matrix, together with `tune.factors`. Without a method it has no cell."""

    students: tuple[str, ...] = Field(min_length=1, description="students that the trials train")
    methods: tuple[str, ...] = Field(description="methods whose weight is tuned; []: none")
    seeds: tuple[Seed, ...] = Field(min_length=1, description="one trial per seed")


class Run(Axes):
    """What runs: the axes of the DVC matrices."""

    datasets: tuple[str, ...] = Field(min_length=1, description="names from `recipes`")
    students: tuple[str, ...] = Field(min_length=1, description="names from `students`")
    methods: tuple[str, ...] = Field(min_length=1, description="names from `methods`")
    seeds: tuple[Seed, ...] = Field(min_length=1, description="one training per seed")
    ablate: AblateAxes
    tune: TuneAxes


class Prepare(Section):
    """Where a dataset comes from. All keys that are not listed here are the reader's own options."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    reader: str = Field(description="name of a file in attnfd/readers/")
    bits: Literal["auto", 8, 12, 16] = Field(
        default="auto",
        description="bits of a value, for images that store more than 8; auto: the smallest of 8, 12 and 16 "
        "that fits all values of the dataset",
    )
    percentiles: tuple[Percent, Percent] | None = Field(
        default=None,
        description="[low, high], instead of bits: these percentiles of the training pixels' values become 0 "
        "and 255, and values outside are clipped",
    )

    @model_validator(mode="after")
    def _one_scale(self) -> "Prepare":
        if self.percentiles is None:
            return self
        if self.percentiles[0] >= self.percentiles[1]:
            found = list(self.percentiles)
            raise ValueError(f"percentiles: found {found}; allowed: [low, high] with low < high")
        if self.bits != "auto":
            raise ValueError(f"percentiles: found beside bits: {self.bits}; allowed: one of the two")
        return self

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Training(Section):
    """Optimisation and augmentation, shared by teacher and students (paper sec. 4.2)."""

    splits: tuple[str, ...] = Field(min_length=1, description="splits of the dataset to train on")
    epochs: PositiveEpochs = Field(description="passes over these splits")
    batch_size: Batch = Field(description="images per step; BN needs two, so a last batch of one is dropped")
    lr: Rate = Field(description="learning rate of the backbone")
    head_lr_factor: Rate = Field(description="learning rate of all other layers, divided by lr")
    optimizer: Literal["sgd", "adamw"] = Field(
        default="sgd", description="sgd; or adamw, for transformers, with an lr of about 6e-5"
    )
    momentum: Probability = Field(description="momentum of SGD")
    nesterov: bool = Field(description="true: SGD uses Nesterov's momentum")
    weight_decay: NonNegative = Field(
        description="sgd: an L2 penalty in the gradient; adamw: a decay apart from the gradient"
    )
    decay_all: bool = Field(
        default=True, description="true: all weights decay; false: norm layers and biases do not"
    )
    warmup: Probability = Field(
        default=0, description="part of the training, at its start, in which the learning rate rises from 0"
    )
    clip_norm: NonNegative = Field(
        default=0, description="largest norm of the gradient of all weights together; 0: no limit"
    )
    accumulate: Positive = Field(
        default=1, description="number of steps whose gradients are averaged for one update of the weights"
    )
    ema: Probability = Field(
        default=0,
        description="share that a moving average of the weights keeps at each update; the average is then "
        "evaluated and stored in place of the weights; 0: no average",
    )
    schedule: Literal["cosine", "poly"] = Field(
        description="how the learning rate falls to 0, step by step: cosine annealing, or (1 - t)^0.9"
    )
    crop: tuple[Crop, Crop] = Field(description="height, width of a training crop in pixels")
    scale: tuple[Scale, Scale] = Field(
        description="range of the random resize, relative to the original size"
    )
    scale_from: Literal["original", "short_side"] = Field(
        default="original",
        description="what scale is relative to. original: the image's size; short_side: the crop, so that "
        "the image's short side becomes the crop's short side times scale",
    )
    flip: float = Field(ge=0, le=1, description="probability of a horizontal flip")
    jitter: Probability = Field(
        default=0,
        description="brightness, contrast and saturation are multiplied by random factors between 1 - jitter "
        "and 1 + jitter; 0: no jitter",
    )
    blur: Annotated[NonNegative, within(0, 10, "a stronger blur hides everything")] = Field(
        default=0,
        description="largest standard deviation, in pixels, of a random Gaussian blur; 0: no blur",
    )
    class_weights: Literal["none", "balanced"] | dict[str, NonNegative] = Field(
        default="none",
        description="weights of the classes in the cross-entropy; balanced: the inverse of their pixels in "
        "the splits to train on; {name: weight}: these weights, and 1 for all other classes",
    )
    hard_pixels: float = Field(
        default=1,
        gt=0,
        le=1,
        description="share of a step's pixels that count, those with the largest loss first (OHEM); 1: all",
    )
    dice: NonNegative = Field(
        default=0, description="factor of a Dice loss, added to cross-entropy; 0: no Dice loss"
    )
    sync_bn: bool = Field(
        description="with several processes. true: BN sees the whole batch; false: each process sees its part"
    )
    precision: Literal["32-true", "tf32", "bf16-mixed", "16-mixed", "auto"] = Field(
        description="number format of a step; tf32: 32-true, but a GPU may round factors to 10 bits; auto: "
        "bf16-mixed if the device supports it natively, else 32-true"
    )
    deterministic: bool = Field(
        description="true: a GPU, too, gives the same bits in every run, with slower kernels"
    )
    validate_every: Positive = Field(description="epochs per validation; the last epoch is always validated")

    @model_validator(mode="after")
    def _no_scored_image(self) -> "Training":
        if {"val", "test"} & set(self.splits):
            raise ValueError(
                f"splits: found {list(self.splits)}; allowed: any except val and test, which evaluate models"
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> "Training":
        height, width = self.crop
        if self.batch_size * height * width > PIXELS:
            raise ValueError(
                f"batch_size: found {self.batch_size} images of {height} × {width} pixels; allowed: at most "
                f"{PIXELS} pixels per step, as no machine has memory for more"
            )
        return self

    @model_validator(mode="after")
    def _scale_in_order(self) -> "Training":
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: found {list(self.scale)}; allowed: [low, high] with low ≤ high")
        return self


class TrainTeacher(Training, NetworkConfig):
    """The teacher: network, initial weights, seed, training."""

    weights: str = Field(
        description="imagenet, none, or a file; {backbone} in its path becomes the backbone's name"
    )
    attention: Attention
    checkpoint: str | None = Field(
        description="a trained teacher to use instead of training one: a folder that train_teacher wrote, or "
        "a DeepLabV3+ in the layout of the AttnFD authors; null: train one"
    )
    classes: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="names of the classes of the checkpoint, in its order; null: those of the dataset",
    )
    class_map: dict[str, str] | None = Field(
        default=None,
        min_length=1,
        description="for each name in `classes`, a class of the dataset; several names may have the same "
        "class, and a name that is left out is dropped",
    )
    fit_epochs: Annotated[Epochs, Field(ge=0)] = Field(
        description="epochs that train new CBAMs of such a teacher; its other weights do not change"
    )
    seed: Seed = Field(description="seed of initial weights, image order and augmentation")

    @model_validator(mode="after")
    def _mapped(self) -> Self:
        if self.classes is None and self.class_map is None:
            return self
        for key in ("classes", "class_map"):
            if getattr(self, key) is None:
                raise ValueError(f"{key}: missing; give both classes and class_map, or neither")
        if self.checkpoint is None:
            raise ValueError(
                "class_map: found without a checkpoint; allowed: only with one, as a teacher that is trained "
                "here learns the classes of the dataset"
            )
        return self


class Freeze(Section):
    """Checks made before the frozen teacher is written."""

    images: Positive = Field(description="number of validation images that compare frozen and live teacher")
    tolerance: Annotated[float, within(0, 1, "it is a relative difference")] = Field(
        gt=0, description="largest relative difference allowed"
    )


class Distill(Training):
    """Training of the students."""

    weights: str = Field(
        description="imagenet, none, or a file; {backbone} in its path becomes the backbone's name"
    )
    unlabelled: tuple[str, ...] = Field(
        default=(),
        description="more splits to train on, without their labels: only the method's own terms use them",
    )

    @model_validator(mode="after")
    def _one_role(self) -> "Distill":
        both = [name for name in self.unlabelled if name in (*self.splits, "val", "test")]
        if both:
            raise ValueError(
                f"unlabelled: found {', '.join(both)}; allowed: any except val, test and those in splits"
            )
        return self

    encoder_dropout: Probability | None = Field(
        default=None,
        description="dropout after the ASPP of a distilled student; null: the first value of its `dropout`. "
        "In the released code it is 0, and 0.5 for undistilled students",
    )


class Tune(Section):
    """The trials that choose a method's weight. All methods get the same trials."""

    factors: tuple[Factor, ...] = Field(
        min_length=1, description="one trial for each factor, with the method's weight times the factor"
    )
    share: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="part of the training images that a trial does not train on; they score it"
    )
    epochs_factor: Annotated[float, within(0.01, 1, "a trial is a shorter training")] = Field(
        description="epochs of a trial, divided by those of `distill`"
    )

    @model_validator(mode="after")
    def _each_once(self) -> "Tune":
        if len(set(self.factors)) < len(self.factors):
            raise ValueError(f"factors: found {list(self.factors)}; allowed: every value once")
        return self


class Evaluate(Section):
    """Evaluation at original size, and its pictures."""

    batch_size: Batch = Field(description="images of one size per forward pass")
    kept: Positive = Field(
        description="number of evaluation images whose class maps are stored; the report chooses from them"
    )
    overlays: Positive = Field(description="number of these images that are drawn with their prediction")
    resize: Side | None = Field(
        default=None, description="short side of a second evaluation (513: the released code); null: none"
    )
    tile: Annotated[Side, within(32, 16384, "smaller tiles show too little")] | None = Field(
        default=None, description="side of the tiles of larger images, in pixels; null: whole images"
    )
    overlap: Count = Field(default=128, description="pixels that two tiles share, up to half of a tile")

    @model_validator(mode="after")
    def _tiles_move_on(self) -> "Evaluate":
        if self.tile is not None and self.overlap > self.tile // 2:
            raise ValueError(f"overlap: found {self.overlap}; allowed: up to half of tile: {self.tile}")
        return self


class Report(Section):
    """Tables and figures."""

    title: str = Field(description="heading of the report")
    step_ms: dict[str, dict[str, dict[str, StepTime]]] = Field(
        default={},
        description="milliseconds of a training step, by dataset, student and method; the report computes "
        "hours from them, and `attnfd plan --equal-time --write` measures them",
    )


class Student(NetworkConfig):
    """A student network."""

    weights: str | None = Field(
        default=None,
        description="a trained student to start from: its folder, relative to the repository's root, or a "
        "model of MLflow, runs:/<run id>/<name> or models:/<name>/<version>; null: the backbone starts from "
        "`distill.weights`, and the other layers from random weights",
    )
    epochs: dict[str, dict[str, PositiveEpochs]] = Field(
        default={},
        description="epochs by dataset and method; they replace those of `distill` and of the method. "
        "`attnfd plan --equal-time --write` adds such students, to compare methods in equal time",
    )

    def start(self, weights: str) -> str:
        """The weights that its backbone starts from: `distill.weights`, or none after a trained student."""
        return weights if self.weights is None else "none"

    @model_validator(mode="after")
    def _no_key_of_another_kind(self) -> "Student":
        if self.network not in NEEDED:
            return self
        own = (*NEEDED[self.network], *OPTIONAL[self.network], "weights", "epochs")
        for key in self.model_fields_set - {"network", *own}:
            raise ValueError(f"{key}: found beside network: {self.network}; allowed: {', '.join(own)}")
        return self


class Method(Section):
    """The options of every distillation method. The file of a method adds its own options.

    The defaults are the paper's values, as in `params.yaml`.
    """

    weight: Weight = 1
    epochs: PositiveEpochs | None = Field(
        default=None,
        description="passes over the training images; null: those of `distill`. For a comparison in equal "
        "time, see `attnfd plan --equal-time`",
    )
    on: dict[str, dict[str, Any]] = Field(default={}, description="by dataset, settings that replace these")
