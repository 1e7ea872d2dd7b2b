#!/usr/bin/env python3
"""Rebuilds pictures/<id>.png of this world pack from the flag-icons package.

Needs: npm (to fetch the pinned package), rsvg-convert (Debian package
librsvg2-bin; the pictures in this pack were drawn with 2.54.7) and
    pip install pillow==13.0.0 zopfli==0.4.3
Usage:
    python3 build_pictures.py                    fetch the package with npm
    python3 build_pictures.py --package DIR      use an unpacked flag-icons package
    python3 build_pictures.py --look-alikes      also print the nearly identical pairs

Every id of entities.jsonl gets one picture: the 4x3 SVG is drawn at 640x480,
laid on white, reduced to 64x48 with a Lanczos filter and written as an
8-bit RGB PNG without alpha, palette or metadata.
rsvg-convert is used because it places SVG markers correctly: a drawing
library that does not loses one star of the flag "us".
"""

import argparse
import colorsys
import hashlib
import io
import itertools
import json
import pathlib
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib

from PIL import Image
from zopfli.zlib import compress as zopfli_compress

PACKAGE = "flag-icons"
VERSION = "7.5.0"
# sha256 of the tarball flag-icons-7.5.0.tgz as served by the npm registry.
TARBALL_SHA256 = "c0b80bf0e08006a60f56621d6bc49f8c7131f4d1fef6737a165a673431f4b518"

DRAWN = (640, 480)
SIZE = (64, 48)
# Two pictures look alike when their mean absolute RGB difference is below
# CLOSE_BELOW, or when fewer than SAME_BELOW of their pixels differ in plain
# colour (so that they differ in shade only).
CLOSE_BELOW = 6.0
SAME_BELOW = 0.01

HERE = pathlib.Path(__file__).resolve().parent


def fetch_package(into):
    """Fetches the pinned package with npm, checks its hash, unpacks its flags."""
    subprocess.run(
        ["npm", "pack", "--silent", f"{PACKAGE}@{VERSION}"],
        cwd=into, check=True, stdout=subprocess.DEVNULL,
    )
    tarball = into / f"{PACKAGE}-{VERSION}.tgz"
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    if digest != TARBALL_SHA256:
        sys.exit(f"{tarball.name}: sha256 is {digest}, expected {TARBALL_SHA256}")
    with tarfile.open(tarball) as archive:
        for member in archive.getmembers():
            parts = pathlib.PurePosixPath(member.name).parts
            if member.isfile() and parts[:3] == ("package", "flags", "4x3") and len(parts) == 4:
                target = into.joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.extractfile(member).read())
    return into / "package"


def draw(svg):
    """Returns the SVG as a 64x48 RGB image on white."""
    png = subprocess.run(
        ["rsvg-convert", "--width", str(DRAWN[0]), "--height", str(DRAWN[1]), "--format", "png"],
        input=svg, stdout=subprocess.PIPE, check=True,
    ).stdout
    drawn = Image.open(io.BytesIO(png)).convert("RGBA")
    ground = Image.new("RGBA", drawn.size, (255, 255, 255, 255))
    flat = Image.alpha_composite(ground, drawn).convert("RGB")
    return flat.resize(SIZE, Image.Resampling.LANCZOS)


def paeth(left, above, corner):
    """The Paeth predictor of the PNG specification."""
    guess = left + above - corner
    by_left, by_above, by_corner = abs(guess - left), abs(guess - above), abs(guess - corner)
    if by_left <= by_above and by_left <= by_corner:
        return left
    return above if by_above <= by_corner else corner


def filtered(row, above, kind):
    """One row of RGB bytes after PNG filter `kind` (0 to 4)."""
    out = bytearray()
    for at, value in enumerate(row):
        left = row[at - 3] if at >= 3 else 0
        corner = above[at - 3] if at >= 3 else 0
        up = above[at]
        guess = (0, left, up, (left + up) // 2, paeth(left, up, corner))[kind]
        out.append((value - guess) & 255)
    return bytes(out)


def encode(image):
    """An 8-bit RGB PNG, the smallest over the filter strategies tried."""
    width, height = image.size
    raw = image.tobytes()
    rows = [raw[y * width * 3:(y + 1) * width * 3] for y in range(height)]
    streams = [bytearray() for _ in range(7)]
    above = bytes(width * 3)
    for row in rows:
        kinds = [filtered(row, above, kind) for kind in range(5)]
        for kind in range(5):
            streams[kind] += bytes([kind]) + kinds[kind]
        # Two adaptive strategies: least sum of magnitudes, fewest distinct bytes.
        least = min(range(5), key=lambda k: sum(min(b, 256 - b) for b in kinds[k]))
        fewest = min(range(5), key=lambda k: len(set(kinds[k])))
        streams[5] += bytes([least]) + kinds[least]
        streams[6] += bytes([fewest]) + kinds[fewest]
        above = row
    # zlib ranks the strategies quickly; zopfli packs the two best of them.
    streams.sort(key=lambda stream: len(zlib.compress(bytes(stream), 9)))
    packed = min((zopfli_compress(bytes(stream)) for stream in streams[:2]), key=len)

    def chunk(kind, body):
        return (struct.pack(">I", len(body)) + kind + body
                + struct.pack(">I", zlib.crc32(kind + body)))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", packed) + chunk(b"IEND", b""))


def difference(one, other):
    """Mean absolute difference of two RGB images, 0 to 255."""
    a, b = one.tobytes(), other.tobytes()
    return sum(abs(x - y) for x, y in zip(a, b)) / len(a)


def plain_colour(red, green, blue):
    """The everyday colour that a pixel belongs to."""
    hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
    hue *= 360
    if value < 0.25:
        return "black"
    if saturation < 0.25:
        return "white" if value > 0.7 else "grey"
    if hue < 20 or hue >= 330:
        return "red"
    for limit, name in ((42, "orange"), (75, "yellow"), (170, "green"), (270, "blue")):
        if hue < limit:
            return name
    return "purple"


def plain_colours(image):
    """The plain colour of every pixel of an RGB image."""
    raw = image.tobytes()
    return [plain_colour(*raw[at:at + 3]) for at in range(0, len(raw), 3)]


def print_look_alikes(images):
    """Prints each look-alike pair, its RGB difference and its share of pixels
    that differ in plain colour."""
    plain = {ident: plain_colours(image) for ident, image in images.items()}
    for one, other in itertools.combinations(sorted(images), 2):
        apart = difference(images[one], images[other])
        differing = sum(a != b for a, b in zip(plain[one], plain[other])) / len(plain[one])
        if apart < CLOSE_BELOW or differing < SAME_BELOW:
            print(f"{one} {other} rgb {apart:.2f} colour {differing:.4f}")


def main():
    parser = argparse.ArgumentParser(description="Rebuild the pictures of this world pack.")
    parser.add_argument("--package", type=pathlib.Path, help="an unpacked flag-icons package")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "pictures")
    parser.add_argument("--look-alikes", action="store_true",
                        help="also print the pairs that are nearly identical")
    arguments = parser.parse_args()

    with open(HERE / "entities.jsonl", encoding="utf-8") as lines:
        ids = [json.loads(line)["id"] for line in lines if line.strip()]
    arguments.out.mkdir(parents=True, exist_ok=True)

    images = {}
    total = 0
    with tempfile.TemporaryDirectory() as scratch:
        package = arguments.package or fetch_package(pathlib.Path(scratch))
        for ident in ids:
            svg = (package / "flags" / "4x3" / f"{ident}.svg").read_bytes()
            images[ident] = draw(svg)
            png = encode(images[ident])
            check = Image.open(io.BytesIO(png))
            if check.mode != "RGB" or check.size != SIZE or check.tobytes() != images[ident].tobytes():
                sys.exit(f"{ident}: the written picture does not read back")
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
