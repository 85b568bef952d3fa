"""The report's animation: truth beside a member, as one GIF."""

import io
import os
from collections.abc import Sequence

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from closure_jax.pages.run.fields import color_limit, signed
from closure_jax.pages.run.style import DIVERGING, Arrays

CAPTIONS = {
    "rollout_animation": """Truth beside one member of the model's ensemble, from the same start. The difference is
        enlarged by the factor in its title and shares the colour scale.""",
}
_FONT = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
_GREYS = np.linspace(255, 20, 16).round().astype(np.uint8)
"""Colours of the animation's paper and ink, after those of the map."""


def rollout_animation(arrays: Arrays, limit_bytes: int = 3_000_000, frames: int = 60) -> bytes:
    """An animated GIF: truth, one member, and their difference, enlarged by a stated factor, on one colour scale.

    Values become indices of one palette directly, which is far faster than a matplotlib figure for each frame. The
    panels and the number of colours shrink until the file is under `limit_bytes`, or smallest. The start, where both are
    the same state and the difference is empty, is no frame: the first one is all that a print or a preview shows.

    Args:
      arrays: `animation_time` (F,), `animation_truth` and `animation_model` (F, n, n), and `start_time`.
      limit_bytes: size of the file to stay under.
      frames: the most frames, spread evenly over those there are.
    """
    same = np.array_equal(arrays["animation_truth"][0], arrays["animation_model"][0])
    start = int(same and len(arrays["animation_time"]) > 1)
    chosen = np.unique(np.linspace(start, len(arrays["animation_time"]) - 1, frames).round().astype(int))
    truth, model = arrays["animation_truth"][chosen], arrays["animation_model"][chosen]
    with np.errstate(invalid="ignore", over="ignore"):
        difference = model - truth
    scale = color_limit(truth)
    room = scale / color_limit(difference)
    factor = max([1, *(m * 10**e for e in range(5) for m in (1, 2, 5) if m * 10**e <= room)])
    titles = ("truth", "model, one member", "model − truth" if factor == 1 else f"(model − truth) × {factor}")
    labels = [f"t = {float(arrays['start_time']):g} + {time:.2f}" for time in arrays["animation_time"][chosen]]
    for side, colors in ((256, 96), (224, 64), (192, 48), (160, 32), (128, 24)):
        fields = (_to_palette(field, scale, side, colors) for field in (truth, model, factor * difference))
        images = [
            _frame(panels, titles, label, scale, colors)
            for panels, label in zip(zip(*fields, strict=True), labels, strict=True)
        ]
        buffer = io.BytesIO()
        durations = [100] * (len(images) - 1) + [1500]
        images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
        if buffer.tell() <= limit_bytes:
            break
    return buffer.getvalue()


def _to_palette(fields: np.ndarray, scale: float, side: int, colors: int) -> np.ndarray:
    """(F, n, n) values in [-scale, scale] -> (F, side, side) indices of the palette, y upwards; grey if not finite."""
    images = [Image.fromarray(np.asarray(field.T[::-1], dtype=np.float32)) for field in fields]
    values = np.stack([np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)) for image in images])
    position = np.clip((np.clip(values / scale, -1, 1) + 1) / 2 * colors, 0, colors - 1)
    return np.where(np.isfinite(values), np.nan_to_num(position), colors + 4).astype(np.uint8)


def _frame(panels: Sequence[np.ndarray], titles: Sequence[str], label: str, scale: float, colors: int) -> Image.Image:
    """One frame: titles over the panels, the time and the scale of colours under them.

    Args:
      panels: (side, side) indices of the palette for each panel.
      titles: one for each panel.
      label: the time.
      scale: value of the last colour, 1/time.
      colors: number of colours in the map, after which the palette holds greys.
    """
    side, gap, head, foot = len(panels[0]), 10, 24, 30
    size = (3 * side + 4 * gap, head + side + foot)
    ink, font = Image.new("L", size, 255), ImageFont.truetype(_FONT, 12)
    draw = ImageDraw.Draw(ink)
    width, bar_left, bar_top = min(160, side), 2 * gap + side + 40, head + side + 10
    for i, title in enumerate(titles):
        draw.text((gap + i * (side + gap), 5), title, fill=20, font=font)
    draw.text((gap, bar_top - 3), label, fill=20, font=font)
    draw.text((bar_left - 6, bar_top - 3), signed(-scale), fill=20, font=font, anchor="ra")
    draw.text((bar_left + width + 6, bar_top - 3), f"{signed(scale)}  vorticity (1/time)", fill=20, font=font)
    canvas = colors + ((255 - np.asarray(ink).astype(int)) * 15 // 235).astype(np.uint8)
    canvas[bar_top : bar_top + 12, bar_left : bar_left + width] = np.arange(width) * colors // width
    for i, panel in enumerate(panels):
        canvas[head : head + side, gap + i * (side + gap) : (i + 1) * (side + gap)] = panel
    image = Image.fromarray(canvas)
    hues = (matplotlib.colormaps[DIVERGING](np.linspace(0, 1, colors))[:, :3] * 255).round().astype(np.uint8)
    image.putpalette(np.concatenate([hues, np.repeat(_GREYS[:, None], 3, axis=1)]).tobytes())
    return image
