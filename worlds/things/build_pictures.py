#!/usr/bin/env python3
"""Rebuilds pictures/<id>.png of this world pack from the Fluent Emoji drawings.

Needs: npm (to fetch the pinned package) and
    pip install pillow==13.0.0 resvg-py==0.5.0 zopfli==0.4.3
Usage:
    python3 build_pictures.py                    fetch the package with npm
    python3 build_pictures.py --package DIR      use the package unpacked in DIR
    python3 build_pictures.py --look-alikes      also print the nearest pairs

Every id of entities.jsonl is the name of a drawing and gets one picture: the
SVG is drawn at 512x512, its empty border is cut off, it is reduced with a
Lanczos filter and laid on a plain light ground. The longest side of a picture
is 64 to 112 pixels, the other follows from the drawing. Side and ground follow
from the id, so the same package gives the same bytes.
"""

import argparse
import hashlib
import io
import itertools
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile

import resvg_py
from PIL import Image, ImageChops, ImageFilter, ImageStat
from zopfli import png as zopfli_png

PACKAGE = "@iconify-json/fluent-emoji"
VERSION = "1.2.7"
# sha256 of the tarball as served by the npm registry.
TARBALL = "iconify-json-fluent-emoji-1.2.7.tgz"
TARBALL_SHA256 = "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b"

DRAWN = 512
# Bounds of the longest side, and the ground left free around a drawing.
SIDES = (64, 112)
RIM = 4
# Light grounds of twelve hues, strong enough for white drawings.
GROUNDS = [
    (247, 172, 172), (247, 198, 160), (243, 222, 150), (218, 240, 152),
    (170, 236, 158), (158, 238, 196), (154, 232, 232), (156, 208, 246),
    (172, 184, 248), (202, 172, 248), (232, 168, 244), (248, 168, 212),
]
# A ground suits a drawing when at most FADED of the outline is nearer than
# NEAR to it in every channel.
NEAR = 72
FADED = 0.1
# Pairs are compared at this size; so many of them are printed.
COMPARED = (32, 24)
NEAREST = 20

HERE = pathlib.Path(__file__).resolve().parent


def fetch_package(into):
    """Fetches the pinned package with npm, checks its hash, unpacks its drawings."""
    subprocess.run(
        ["npm", "pack", "--silent", f"{PACKAGE}@{VERSION}"],
        cwd=into, check=True, stdout=subprocess.DEVNULL,
    )
    tarball = into / TARBALL
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    if digest != TARBALL_SHA256:
        sys.exit(f"{tarball.name}: sha256 is {digest}, expected {TARBALL_SHA256}")
    with tarfile.open(tarball) as archive:
        (into / "icons.json").write_bytes(archive.extractfile("package/icons.json").read())
    return into


def chosen(ident, what, count):
    """A number below `count` that follows from the id and from what it is for."""
    digest = hashlib.sha256(f"{what} {ident}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % count


def draw(body):
    """Returns a drawing as an RGBA image without its empty border."""
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{body}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, width=DRAWN, height=DRAWN)
    drawn = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    # Shadows fade out over many pixels; what is hardly there counts as empty.
    solid = drawn.getchannel("A").point(lambda alpha: 255 if alpha > 24 else 0)
    return drawn.crop(solid.getbbox())


def sized(drawn, longest):
    """Reduces a drawing so that the picture, rim included, has this longest side."""
    room = longest - 2 * RIM
    size = tuple(max(1, round(side * room / max(drawn.size))) for side in drawn.size)
    # Reduced with premultiplied alpha: transparent pixels have no colour to bleed.
    return drawn.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")


def faded(drawing, ground):
    """The share of a drawing's outline that is hardly seen on this ground."""
    solid = drawing.getchannel("A").point(lambda alpha: 255 if alpha > 200 else 0)
    framed = Image.new("L", (drawing.width + 2, drawing.height + 2))
    framed.paste(solid, (1, 1))
    inner = framed.filter(ImageFilter.MinFilter(3)).crop((1, 1, drawing.width + 1, drawing.height + 1))
    outline = ImageChops.subtract(solid, inner)
    apart = ImageChops.difference(drawing.convert("RGB"), Image.new("RGB", drawing.size, ground))
    most = ImageChops.lighter(ImageChops.lighter(*apart.split()[:2]), apart.getchannel("B"))
    near = most.point(lambda value: 255 if value < NEAR else 0)
    return ImageStat.Stat(near, outline).mean[0] / 255


def ground_of(ident, drawing):
    """The first suitable ground in an order that follows from the id."""
    start = chosen(ident, "ground", len(GROUNDS))
    order = GROUNDS[start:] + GROUNDS[:start]
    suits = [ground for ground in order if faded(drawing, ground) <= FADED]
    return suits[0] if suits else min(order, key=lambda ground: faded(drawing, ground))


def picture(ident, body):
    """The picture of an id: its drawing on its ground, as an RGB image."""
    longest = SIDES[0] + chosen(ident, "side", SIDES[1] - SIDES[0] + 1)
    drawing = sized(draw(body), longest)
    size = (drawing.width + 2 * RIM, drawing.height + 2 * RIM)
    flat = Image.new("RGB", size, ground_of(ident, drawing))
    flat.paste(drawing, (RIM, RIM), drawing)
    return flat


def encode(ident, image):
    """An 8-bit RGB PNG without alpha, palette or metadata, packed by zopfli:
    its bytes do not depend on which zlib Pillow finds."""
    plain = io.BytesIO()
    image.save(plain, "PNG")
    png = zopfli_png.optimize(plain.getvalue(), filter_strategies="me")
    check = Image.open(io.BytesIO(png))
    if check.mode != "RGB" or check.info or check.tobytes() != image.tobytes():
        sys.exit(f"{ident}: the written picture does not read back as it was drawn")
    return png


def print_look_alikes(images):
    """Prints the NEAREST pairs with the mean absolute RGB difference of the
    two pictures, 0 to 255, when both are stretched to the same size."""
    small = {ident: image.resize(COMPARED, Image.Resampling.BOX) for ident, image in images.items()}
    pairs = []
    for one, other in itertools.combinations(sorted(small), 2):
        channels = ImageStat.Stat(ImageChops.difference(small[one], small[other])).mean
        pairs.append((sum(channels) / 3, one, other))
    for apart, one, other in sorted(pairs)[:NEAREST]:
        print(f"{one} {other} rgb {apart:.2f}")


def main():
    parser = argparse.ArgumentParser(description="Rebuild the pictures of this world pack.")
    parser.add_argument("--package", type=pathlib.Path, help="the folder of the unpacked package")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "pictures")
    parser.add_argument("--look-alikes", action="store_true", help="also print the nearest pairs")
    arguments = parser.parse_args()

    with open(HERE / "entities.jsonl", encoding="utf-8") as lines:
        ids = [json.loads(line)["id"] for line in lines if line.strip()]
    arguments.out.mkdir(parents=True, exist_ok=True)

    with tempfile.TemporaryDirectory() as scratch:
        package = arguments.package or fetch_package(pathlib.Path(scratch))
        icons = json.loads((package / "icons.json").read_text(encoding="utf-8"))["icons"]
    images = {}
    total = 0
    for ident in ids:
        images[ident] = picture(ident, icons[ident]["body"])
        png = encode(ident, images[ident])
        (arguments.out / f"{ident}.png").write_bytes(png)
        total += len(png)
    for stray in sorted(arguments.out.glob("*.png")):
        if stray.stem not in images:
            print(f"not in entities.jsonl: {stray.name}")
    print(f"{len(ids)} pictures, {total} bytes")

    if arguments.look_alikes:
        print_look_alikes(images)


if __name__ == "__main__":
    main()
