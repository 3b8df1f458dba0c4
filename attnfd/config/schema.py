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

Epochs = Annotated[int, within(0, 1e5, "a training of more does not end")]
Crop = Annotated[Side, within(8, 16384, "the network's features have a sixteenth of its sides")]
Scale = Annotated[
    float, Field(gt=0), within(0.1, 10, "what is resized further is only dots, or fills memory")
]
Factor = Annotated[int | float, within(1e-4, 1e4, "a weight further from the paper's is another method")]
PIXELS = 2**30
"""Most pixels of a step; their features need a hundred times the memory."""

Percent = Annotated[float, Field(ge=0, le=100)]
Layer = Literal["backbone", "encoder", "decoder"]
LAYERS: tuple[Layer, ...] = get_args(Layer)
"""The layers whose features can be distilled, in the order of computation (paper sec. 3.1)."""

Weight = Annotated[NonNegative, Field(description="factor of the distillation loss beside cross-entropy")]


PositiveEpochs = Annotated[Epochs, Field(gt=0)]
StepTime = Annotated[float, Field(gt=0), within(1e-3, 1e7, "a step of more than hours is no step")]


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
    variants: tuple[str, ...] = Field(min_length=1, description="names out of `ablate`")
    seeds: tuple[Seed, ...] = Field(min_length=1, description="one training per seed")


class TuneAxes(Axes):
    """Axes of the `tune` matrix, beside `tune.factors`; without a method it has no cell."""

    students: tuple[str, ...] = Field(min_length=1, description="students that the trials train")
    methods: tuple[str, ...] = Field(description="methods whose weight is tuned; []: none")
    seeds: tuple[Seed, ...] = Field(min_length=1, description="one trial per seed")


class Run(Axes):
    """What runs: the axes of the DVC matrices."""

    datasets: tuple[str, ...] = Field(min_length=1, description="names out of `recipes`")
    students: tuple[str, ...] = Field(min_length=1, description="names out of `students`")
    methods: tuple[str, ...] = Field(min_length=1, description="names out of `methods`")
    seeds: tuple[Seed, ...] = Field(min_length=1, description="one training per seed")
    ablate: AblateAxes
    tune: TuneAxes


class Prepare(Section):
    """Where a dataset comes from. The keys beside `reader` are the reader's own options."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    reader: str = Field(description="a file of attnfd/readers/")
    bits: Literal["auto", 8, 12, 16] = Field(
        default="auto",
        description="of the values in images that are stored with more than 8; auto: the fewest of 8, 12 and "
        "16 that have room for all values of the dataset",
    )
    percentiles: tuple[Percent, Percent] | None = Field(
        default=None,
        description="instead of bits: values that so many per cent of the training pixels do not exceed "
        "become 0 and 255, and with them the values outside",
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
    batch_size: Batch = Field(description="images per step; a last batch of one image is dropped (BN)")
    lr: Rate = Field(description="learning rate of the backbone")
    head_lr_factor: Rate = Field(description="everything but the backbone learns at lr times this")
    optimizer: Literal["sgd", "adamw"] = Field(
        default="sgd", description="sgd; or adamw, for transformers, at an lr of about 6e-5"
    )
    momentum: Probability = Field(description="of SGD")
    nesterov: bool = Field(description="Nesterov's momentum, of SGD")
    weight_decay: NonNegative = Field(description="L2 penalty of SGD; of AdamW, apart from the gradient")
    decay_all: bool = Field(
        default=True, description="weight decay of norms and biases, too; false: of the other weights alone"
    )
    warmup: Probability = Field(
        default=0, description="first part of the training, in which the learning rate rises from 0"
    )
    clip_norm: NonNegative = Field(
        default=0, description="largest norm of the gradient, of all weights together; 0: any"
    )
    accumulate: Positive = Field(
        default=1, description="steps whose gradients are averaged for one update of the weights"
    )
    ema: Probability = Field(
        default=0,
        description="share that a moving average of the weights keeps at each update; the average is then "
        "what is evaluated and kept; 0: none",
    )
    schedule: Literal["cosine", "poly"] = Field(
        description="per iteration to 0: cosine annealing, or (1 - t)^0.9"
    )
    crop: tuple[Crop, Crop] = Field(description="height, width of a training crop in pixels")
    scale: tuple[Scale, Scale] = Field(
        description="range of the random resize, relative to the original size"
    )
    scale_from: Literal["original", "short_side"] = Field(
        default="original",
        description="what scale is relative to: the image's size; or the crop, whose short side times scale "
        "becomes that of the image",
    )
    flip: float = Field(ge=0, le=1, description="probability of a horizontal flip")
    jitter: Probability = Field(
        default=0,
        description="brightness, contrast and saturation are multiplied by random factors between 1 - jitter "
        "and 1 + jitter; 0: not",
    )
    blur: Annotated[NonNegative, within(0, 10, "more leaves nothing to see")] = Field(
        default=0,
        description="largest deviation, in pixels, of a random Gaussian blur; 0: none",
    )
    class_weights: Literal["none", "balanced"] | dict[str, NonNegative] = Field(
        default="none",
        description="weights of the classes in the cross-entropy; balanced: the inverse of their pixels in "
        "the splits to train on; or {name: weight}, and 1 for all others",
    )
    hard_pixels: float = Field(
        default=1,
        gt=0,
        le=1,
        description="share of the pixels of a step, those with the largest loss, that count (OHEM); 1: all",
    )
    dice: NonNegative = Field(default=0, description="factor of a Dice loss beside cross-entropy; 0: without")
    sync_bn: bool = Field(description="in several processes: BN over the whole batch, not over each part")
    precision: Literal["32-true", "tf32", "bf16-mixed", "16-mixed", "auto"] = Field(
        description="arithmetic of the step; tf32: 32-true, but a GPU may round factors to 10 bits; auto: "
        "bf16-mixed where it is native to the device, else 32-true"
    )
    deterministic: bool = Field(description="on a GPU, too: the same bits every time, in slower kernels")
    validate_every: Positive = Field(description="epochs between validations; the last epoch always is one")

    @model_validator(mode="after")
    def _no_scored_image(self) -> "Training":
        if {"val", "test"} & set(self.splits):
            raise ValueError(
                f"splits: found {list(self.splits)}; allowed: any but val and test, which evaluate"
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> "Training":
        height, width = self.crop
        if self.batch_size * height * width > PIXELS:
            raise ValueError(
                f"batch_size: found {self.batch_size} images of {height} × {width} pixels; allowed: at most "
                f"{PIXELS} pixels in a step, as no machine has memory for more"
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
        description="imagenet, none, or a file; {backbone} in its path stands for the backbone's name"
    )
    attention: Attention
    checkpoint: str | None = Field(
        description="a teacher trained elsewhere, taken instead of training one: a folder that train_teacher "
        "wrote, or a DeepLabV3+ in the layout of the AttnFD authors; null: none"
    )
    classes: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="names of the classes of the checkpoint, in its order; null: those of the dataset",
    )
    class_map: dict[str, str] | None = Field(
        default=None,
        min_length=1,
        description="a class of the dataset for each name of `classes`, several for the same one if need be; "
        "what it does not name is dropped",
    )
    fit_epochs: Annotated[Epochs, Field(ge=0)] = Field(
        description="epochs in which new CBAMs of such a teacher are trained, and nothing else of it"
    )
    seed: Seed = Field(description="of initial weights, order and augmentation")

    @model_validator(mode="after")
    def _mapped(self) -> Self:
        if self.classes is None and self.class_map is None:
            return self
        for key in ("classes", "class_map"):
            if getattr(self, key) is None:
                raise ValueError(f"{key}: missing; give classes and class_map, or none of the two")
        if self.checkpoint is None:
            raise ValueError(
                "class_map: found without a checkpoint; allowed: beside one, as a teacher that is trained "
                "here learns the classes of the dataset"
            )
        return self


class Freeze(Section):
    """Checks made before the frozen teacher is written."""

    images: Positive = Field(description="evaluation images on which frozen and live teacher are compared")
    tolerance: Annotated[float, within(0, 1, "it is a relative difference")] = Field(
        gt=0, description="largest relative difference allowed"
    )


class Distill(Training):
    """Training of the students."""

    weights: str = Field(
        description="imagenet, none, or a file; {backbone} in its path stands for the backbone's name"
    )
    unlabelled: tuple[str, ...] = Field(
        default=(),
        description="splits whose images are trained on as well, without their labels: only the method's own "
        "terms count there",
    )

    @model_validator(mode="after")
    def _one_role(self) -> "Distill":
        both = [name for name in self.unlabelled if name in (*self.splits, "val", "test")]
        if both:
            raise ValueError(
                f"unlabelled: found {', '.join(both)}; allowed: neither val nor test nor what splits has"
            )
        return self

    encoder_dropout: Probability | None = Field(
        default=None,
        description="after the ASPP of a student that is distilled; null: the first of its dropout. The "
        "released code has 0, and its undistilled students 0.5",
    )


class Tune(Section):
    """The trials from which a method's weight is chosen. All methods get the same ones."""

    factors: tuple[Factor, ...] = Field(
        min_length=1, description="a trial for each: the method's weight times this"
    )
    share: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="part of the training images that a trial does not train on, but is scored on"
    )
    epochs_factor: Annotated[float, within(0.01, 1, "a trial is a shorter training")] = Field(
        description="a trial has the epochs of `distill` times this"
    )

    @model_validator(mode="after")
    def _each_once(self) -> "Tune":
        if len(set(self.factors)) < len(self.factors):
            raise ValueError(f"factors: found {list(self.factors)}; allowed: every value once")
        return self


class Evaluate(Section):
    """Evaluation at original size, and the pictures it leaves."""

    batch_size: Batch = Field(description="images of one size per forward pass")
    kept: Positive = Field(
        description="evaluation images whose class maps stay, for the report to choose from"
    )
    overlays: Positive = Field(description="of these, images drawn with their prediction and its features")
    resize: Side | None = Field(
        default=None, description="short side to evaluate at as well (513: the released code)"
    )
    tile: Annotated[Side, within(32, 16384, "smaller tiles show too little")] | None = Field(
        default=None, description="side of the tiles in which larger images are evaluated; null: whole images"
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
        description="milliseconds of a training step, by dataset, student and method, for the axis of hours; "
        "`attnfd plan --equal-time --write` measures and writes them",
    )


class Student(NetworkConfig):
    """A student network."""

    weights: str | None = Field(
        default=None,
        description="a trained student to start from: its folder, relative to the repository's root, or a "
        "model of MLflow, runs:/<run id>/<name> or models:/<name>/<version>; null: the backbone starts as "
        "distill.weights says, and the rest anew",
    )
    epochs: dict[str, dict[str, PositiveEpochs]] = Field(
        default={},
        description="by dataset and method, epochs in place of those of `distill` and of the method: for a "
        "student that is trained in equal time beside one in equal epochs, see `attnfd plan --equal-time`",
    )

    def start(self, weights: str) -> str:
        """What its backbone starts from: `distill.weights`, unless a trained student replaces them."""
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
    """What every distillation method has; each method's file extends it with its own options.

    The defaults are the paper's values, as in `params.yaml`.
    """

    weight: Weight = 1
    epochs: PositiveEpochs | None = Field(
        default=None,
        description="passes over the training images; null: those of `distill`. For a comparison in equal "
        "time, see `attnfd plan --equal-time`",
    )
    on: dict[str, dict[str, Any]] = Field(default={}, description="settings that differ, by dataset")
