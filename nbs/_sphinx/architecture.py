"""The method in one drawing: `python nbs/_sphinx/architecture.py` writes figures/architecture.svg.

Black and white are the drawing's only greys: build.py exchanges both for the dark scheme.
"""

import sys
from pathlib import Path

WHERE = Path(__file__).resolve().parents[2] / "figures" / "architecture.svg"
CLASSES = {"boat": "#0072b2", "dog": "#d55e00", "sofa": "#009e73"}
PATCH, REG = "#8a8a8a", "#b07aa1"
MAPS = {  # class -> how much its token looks at each of 5 x 5 patches, out of 9
    "boat": "00000 01000 00000 00010 00000",
    "dog": "00110 01330 02990 03982 00331",
    "sofa": "00000 31013 87129 99237 79988",
}
MASK = "..... ..d.. s.dds ssdds sssss"


def text(x, y, words, size=14, anchor="start", weight="normal", fill="#000000"):
    "Words at a place."
    style = f'font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" fill="{fill}"'
    return f'<text x="{x}" y="{y}" {style}>{words}</text>'


def square(x, y, side, fill, opacity=1.0, stroke="#000000"):
    "Square with a thin border."
    return (
        f'<rect x="{x}" y="{y}" width="{side}" height="{side}" rx="3" fill="{fill}" '
        f'fill-opacity="{opacity:.2f}" stroke="{stroke}" stroke-width="1"/>'
    )


def box(x, y, width, height):
    "Frame around a part."
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="none" stroke="#000000" '
        'stroke-width="1.5"/>'
    )


def arrow(x, y, x2, y2):
    "Line with a head at its end."
    line = f'<line x1="{x}" y1="{y}" x2="{x2}" y2="{y2}" stroke="#000000" stroke-width="1.5" '
    return line + 'marker-end="url(#head)"/>'


def cross(x, y, side):
    "Two strokes through a square."
    ends = ((x, y, x + side, y + side), (x, y + side, x + side, y))
    return "".join(
        f'<line x1="{a}" y1="{b}" x2="{c}" y2="{d}" stroke="#000000" stroke-width="2.5"/>' for a, b, c, d in ends
    )


def number(x, y, n):
    "Number in a disc, as in the caption."
    return f'<circle cx="{x}" cy="{y}" r="11" fill="#000000"/>' + text(x, y + 5, n, 14, "middle", "bold", "#ffffff")


def grid(x, y, rows, paint, side=14):
    "Patches of an image, row by row."
    cells = ((i, j, cell) for i, row in enumerate(rows.split()) for j, cell in enumerate(row))
    return "".join(square(x + side * j, y + side * i, side, *paint(cell)) for i, j, cell in cells)


def tokens_in():
    "Image, and the row of tokens that it becomes."
    photo = {".": ("#8a8a8a", 0.15), "s": (CLASSES["sofa"], 0.35), "d": (CLASSES["dog"], 0.45)}
    parts = [text(20, 26, "image", 16), grid(20, 36, MASK, lambda cell: photo[cell], 20), arrow(128, 86, 164, 86)]
    parts += [number(186, 22, 1), text(204, 27, "tokens in", 18, weight="bold")]
    for place, (name, color) in enumerate(CLASSES.items()):
        parts += [square(180 + 48 * place, 64, 34, color, 0.8), text(197 + 48 * place, 116, name, 15, "middle")]
    parts += [square(332, 64, 34, REG, 0.8), text(349, 116, "[REG]", 15, "middle")]
    parts += [square(388 + 26 * place, 70, 22, PATCH, 0.5) for place in range(8)]
    parts += [text(598, 87, "...", 16), text(490, 116, "one per patch", 15, "middle")]
    return [*parts, text(180, 52, "one [CLS] per class", 15)]


def blocks():
    "Transformer with its heads, some of them closed."
    parts = [arrow(380, 128, 380, 160), box(20, 166, 600, 132), number(44, 192, 2)]
    parts += [text(62, 197, "pruned", 18, weight="bold"), text(134, 197, "heads whose gate training has closed", 16)]
    for place in range(6):
        closed = place in (1, 3, 4)
        x = 44 + 58 * place
        parts.append(square(x, 214, 42, PATCH if closed else "#e69f00", 0.15 if closed else 0.7))
        if closed:
            parts.append(cross(x + 6, 220, 30))
    parts += [text(44, 282, "attention heads of a block, each times its gate", 15)]
    parts += [text(410, 232, "transformer,", 16), text(410, 252, "block after block;", 16)]
    return [*parts, text(410, 272, "an open head costs &#955;", 16)]


def labels_out():
    "Class tokens after the last block, the absent ones masked, and the classifier."
    parts = [arrow(130, 298, 130, 336), number(44, 352, 3), text(62, 357, "masked", 18, weight="bold")]
    parts += [text(20, 378, "tokens of absent classes,", 15), text(20, 395, "at random, in training", 15)]
    for place, color in enumerate(CLASSES.values()):
        parts.append(square(36 + 62 * place, 408, 34, color, 0.15 if place == 0 else 0.8))
    parts += [cross(41, 413, 24), arrow(115, 446, 115, 470), box(20, 476, 200, 34)]
    parts += [text(120, 498, "classifier", 16, "middle"), arrow(115, 510, 115, 534)]
    parts += [text(115, 552, "boat no, dog yes, sofa yes", 16, "middle")]
    return [*parts, text(115, 572, "learned from the labels", 15, "middle")]


def masks_out():
    "Attention of the class tokens to the patches, and what it paints."
    painted = {".": ("#8a8a8a", 0.12), "s": (CLASSES["sofa"], 0.9), "d": (CLASSES["dog"], 0.9)}
    parts = [arrow(440, 298, 440, 336), number(286, 352, 4), text(304, 357, "masks out", 18, weight="bold")]
    parts += [text(270, 378, "attention of each class token to the patches,", 15)]
    parts += [text(270, 395, "mean of blocks and open heads", 15)]
    for place, (name, color) in enumerate(CLASSES.items()):
        x = 270 + 84 * place
        parts.append(grid(x, 408, MAPS[name], lambda cell, color=color: (color, int(cell) / 9)))
        parts.append(text(x + 35, 496, name, 15, "middle"))
    parts += [arrow(512, 443, 534, 443), grid(540, 408, MASK, lambda cell: painted[cell], 16)]
    parts += [text(580, 506, "mask", 16, "middle")]
    parts += [text(270, 530, "cut at its mean; a class that the classifier", 15)]
    return [*parts, text(270, 547, "does not find paints nothing", 15)]


def draw() -> str:
    "The drawing."
    head = '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    head += '<path d="M0,0 L8,4 L0,8 z" fill="#000000"/></marker>'
    parts = [*tokens_in(), *blocks(), *labels_out(), *masks_out()]
    root = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 584" font-family="Helvetica, Arial, sans-serif">'
    ground = '<rect width="640" height="584" fill="#ffffff"/>'
    return "\n".join([root, f"<defs>{head}</defs>", ground, *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(WHERE.read_text(encoding="utf-8") != draw())
    WHERE.write_text(draw(), encoding="utf-8")
