"""The bundled demo as a LLaVA-NeXT checkpoint, and a wide scene for it: what several crops look like, offline.

    python benchmarks/multicrop_demo.py FOLDER
    adafv show FOLDER/wide.png "what color is the sign?" -m FOLDER -o wide.png

Vision tower, projector and language model are the demo's, tensor for tensor; new are the tiles' resolutions and the
newline, which is zero. So saliency and similarity mean in each crop what they mean in the demo. The language model was
never trained on several crops, and what it answers proves nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from transformers import (
    AutoTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
)

from adafv.demo import CHECKPOINT
from recipe.drawing import render
from recipe.samples import SCENE_KEY, thing
from recipe.scenes import GROUNDS, SKIES, Backdrop, Scene

GRIDS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))  # rows, columns of tiles, as published
WIDTH, HEIGHT = 1152, 768


def wide() -> Image.Image:
    """A scene of 3:2, cut out of a square one; things are small enough to be of a common size in a tile."""
    things = (
        thing("house", "yellow", 0.15, 0.45, 0.2),
        thing("tree", "green", 0.38, 0.42, 0.22),
        thing("kite", "purple", 0.57, 0.27, 0.1, angle=8),
        thing("bird", "white", 0.3, 0.24, 0.08),
        thing("sign", "red", 0.63, 0.54, 0.14),
        thing("boat", "orange", 0.85, 0.5, 0.16),
        thing("car", "blue", 0.3, 0.71, 0.17),
        thing("cat", "black", 0.5, 0.62, 0.08),
        thing("ball", "red", 0.78, 0.7, 0.07),
        thing("flower", "white", 0.08, 0.76, 0.08),
        thing("flower", "orange", 0.92, 0.77, 0.08),
    )
    backdrop = Backdrop(sky=SKIES[0], ground=GROUNDS[0], horizon=0.44, hills=2, clouds=3, noise=0.0, seed=12)
    top = round(0.17 * WIDTH)
    return render(Scene(things, backdrop), WIDTH).crop((0, top, WIDTH, top + HEIGHT))


def convert(folder: Path) -> None:
    """Write the checkpoint."""
    model = LlavaForConditionalGeneration.from_pretrained(CHECKPOINT)
    old: LlavaConfig = model.config
    side = old.vision_config.image_size
    pinpoints = [[rows * side, columns * side] for rows, columns in GRIDS]
    config = LlavaNextConfig(
        vision_config=old.vision_config,
        text_config=old.text_config,
        image_token_index=old.image_token_id,
        vision_feature_layer=old.vision_feature_layer,
        vision_feature_select_strategy=old.vision_feature_select_strategy,
        projector_hidden_act=old.projector_hidden_act,
        multimodal_projector_bias=old.multimodal_projector_bias,
        image_grid_pinpoints=pinpoints,
        tie_word_embeddings=old.tie_word_embeddings,
    )
    tiled = LlavaNextForConditionalGeneration(config)
    tiled.load_state_dict(model.state_dict() | {"model.image_newline": torch.zeros(old.text_config.hidden_size)})
    tiled.generation_config = model.generation_config
    tiled.half().save_pretrained(folder)
    processor = LlavaProcessor.from_pretrained(CHECKPOINT, backend="pil")
    images = processor.image_processor
    LlavaNextProcessor(
        LlavaNextImageProcessorPil(
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            image_mean=images.image_mean,
            image_std=images.image_std,
            image_grid_pinpoints=pinpoints,
        ),
        AutoTokenizer.from_pretrained(CHECKPOINT),
        chat_template=processor.chat_template,
        patch_size=old.vision_config.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the checkpoint and wide.png go")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    convert(folder)
    mark = PngInfo()
    mark.add_text(SCENE_KEY, "1")
    wide().save(folder / "wide.png", pnginfo=mark)
    print(f"adafv show {folder}/wide.png 'what color is the sign?' -m {folder} -o wide.png")


if __name__ == "__main__":
    main()
