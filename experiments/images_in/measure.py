"""Images in: how much of a picture is found again in what its CLIP embedding gives, by ways across the gap.

    python experiments/images_in/measure.py RUN...

RUNs are of one setting in the pixel world that differ in their seeds. Pictures are fresh drawings of its scenes; a picture is
drawn from each one's embedding, and the reader tells how many of the input's attributes it shows. The floor is an unrelated
picture's attributes. Prints tables, and writes results.json and, of the first run, sheet.png beside this file.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from deproj.clip.images import HOLD, ImageEncoder
from deproj.draw.sheets import save_image, sheet
from deproj.expression import embed, picture, text
from deproj.measure.compare import difference, estimate
from deproj.measure.metrics import Measure
from deproj.pipeline import DeprojectorPipeline
from deproj.pixel import WEIGHTS
from deproj.pixel.reader import Reader
from deproj.pixel.scenes import ATTRIBUTES, draw, sample
from deproj.process.errors import UserError, run_command
from deproj.process.quiet import quiet_libraries
from deproj.runs.records import Measured

HERE = Path(__file__).parent
COLOURS = ATTRIBUTES["hair"]
NONE, FROM_EMPTY, FROM_MEAN, HELD = (
    "none: W⁻¹ z",
    "difference to the mean picture, added to the empty prompt: W⁻¹ (W e∅ + z − z̄)",
    "difference, added to the mean training embedding: ē + W⁻¹ (z − z̄)",
    "the same, held near the training embeddings: λ = {}",
)
CAPTION = "for comparison: the embedding of a caption that says all attributes"
HOLDS = (HOLD / 10, HOLD, 10 * HOLD)
WEIGHTS_OF_WORDS = (0.0, 1.0, 2.0)

Key = dict[str, str]


def of_pictures(**measures: Measure) -> Measured:
    """Measures of one run's pictures, as `deproj.measure.compare` takes them."""
    return Measured({}, {name: (m.above.tolist(), m.below.tolist()) for name, m in measures.items()}, [])


def drawn(pipe: DeprojectorPipeline, states: Tensor) -> Tensor:
    """A picture of each sequence of states, (B, 32, 32, 3) uint8, always from the same noise."""
    found = []
    for rows in torch.arange(len(states)).split(50):
        positive, negative = pipe.with_negative(states[rows])
        found.append(pipe.draw(positive, negative, rows.tolist()))
    return torch.cat(found)


def read(reader: Reader, pictures: Tensor) -> list[Key]:
    """The attributes that pictures (B, 32, 32, 3) show."""
    seen = reader.read(pictures.permute(0, 3, 1, 2).float() / 127.5 - 1)
    return [{name: value for name, (value, _) in one.items() if value is not None} for one in seen]


def share(seen: list[Key], wanted: list[Key]) -> Measure:
    """The share of the wanted attributes that are seen, of each picture."""
    hits = [[one.get(name) == value for name, value in key.items()] for one, key in zip(seen, wanted, strict=True)]
    return Measure.mean([float(np.mean(hit)) if hit else float("nan") for hit in hits])


def ways_of(pipe: DeprojectorPipeline, images: list[Image.Image]) -> dict[str, Tensor]:
    """Embeddings of pictures, (B, D), by each way across the gap."""
    encoder, distance = pipe.encoder, pipe.model.distance
    if distance is None or encoder.deprojection is None:
        raise UserError("the run keeps no distance to its training embeddings; train it again.")
    plain = ImageEncoder("pixel", encoder)
    z, back = plain.project(images), encoder.deprojection.T
    held = {HELD.format(f"{hold:g}"): ImageEncoder("pixel", encoder, distance, hold=hold)(images) for hold in HOLDS}
    return {
        NONE: z @ back,
        FROM_EMPTY: plain(images),
        FROM_MEAN: distance.mean.to(z) + (z - plain.mean) @ back,
    } | held


def measure(runs: list[str], count: int) -> None:
    """Measures every run and writes what this file's docstring says."""
    reader = Reader.from_pretrained(WEIGHTS / "reader")
    shown = torch.from_numpy(draw(sample(count, np.random.default_rng(20))))
    keys, images = read(reader, shown), [Image.fromarray(one.numpy()) for one in shown]
    captions = [" ".join(words(key)) for key in keys]
    # a picture and words: another hair colour for those with hair
    mixed = [k for k, key in enumerate(keys) if "hair" in key][: count // 2]
    colours = [COLOURS[(COLOURS.index(keys[k]["hair"]) + 1 + k % 5) % 6] for k in mixed]
    rest = [{name: value for name, value in keys[k].items() if name != "hair"} for k in mixed]
    found: dict[str, list[Measured]] = {}
    with_words: dict[float, list[Measured]] = {}
    rows: dict[str, Tensor] = {}
    bar = tqdm(total=len(runs) * (4 + len(HOLDS) + len(WEIGHTS_OF_WORDS)), desc="ways", disable=None)
    for number, run in enumerate(runs):
        pipe = DeprojectorPipeline.from_pretrained("pixel", run, device="cpu")
        for name, embedding in (ways_of(pipe, images) | {CAPTION: pipe.encoder.embed(captions)}).items():
            made = drawn(pipe, pipe.model.generate(embedding))
            seen = read(reader, made)
            assert pipe.model.distance is not None
            far = Measure.mean(pipe.model.distance(embedding).numpy())
            one = of_pictures(found=share(seen, keys), floor=share(seen, [*keys[1:], keys[0]]), distance=far)
            found.setdefault(name, []).append(one)
            if number == 0:
                rows[name] = made
            bar.update()
        for weight in WEIGHTS_OF_WORDS:
            asked = [picture(images[k]) + weight * text(f"{colour} hair") for k, colour in zip(mixed, colours, strict=True)]
            made = drawn(pipe, pipe.model.generate(embed(asked, pipe.encoder, pipe.pictures)))
            seen = read(reader, made)
            one = of_pictures(asked=share(seen, [{"hair": colour} for colour in colours]), kept=share(seen, rest))
            with_words.setdefault(weight, []).append(one)
            if number == 0 and weight == 1:
                few, changed = mixed[:8], made[:8]
            bar.update()
    bar.close()

    def value(evaluations: list[Measured], name: str) -> Any:
        return estimate(evaluations, name)

    held = found[HELD.format(f"{HOLD:g}")]
    print("| way | attributes found | against λ = 0.01 | floor | distance |\n|---|---|---|---|---|")
    for name, each in found.items():
        against = "" if each is held else str(difference(each, held, "found"))
        floor, distance = value(each, "floor").value, value(each, "distance").value
        print(f"| {name} | {value(each, 'found')} | {against} | {floor:.3f} | {distance:.1f} |")
    print("\n| w | asked colour found | the picture's other attributes kept |\n|---|---|---|")
    for weight, each in with_words.items():
        print(f"| {weight:g} | {value(each, 'asked')} | {value(each, 'kept')} |")
    tiles = {"input": shown[few]}
    tiles |= {label: rows[name][few] for label, name in (
        ("difference, to the empty prompt", FROM_EMPTY), ("difference, to the mean embedding", FROM_MEAN),
        ("held near", HELD.format(f"{HOLD:g}")), ("a caption of all attributes", CAPTION),
    )}  # fmt: skip
    tiles["held near, + other hair"] = changed
    save_image(sheet(tiles, [f"+ {colour} hair" for colour in colours[:8]], side=112, halves=False), HERE / "sheet.png")

    def plain(each: list[Measured]) -> dict[str, Any]:
        """Value and interval over runs, and each run's own value, of every measure."""
        return {name: [*vars(value(each, name)).values(), [value([one], name).value for one in each]] for name in each[0].raw}

    content = {"runs": runs, "count": count, "ways": {name: plain(each) for name, each in found.items()}}
    content["hair"] = {f"{weight:g}": plain(each) for weight, each in with_words.items()}
    (HERE / "results.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def words(key: Key) -> list[str]:
    """The tags of a caption that says all that a picture shows."""
    who = {"girl": "1girl", "boy": "1boy", "girl and boy": "1girl 1boy", "cat": "cat"}
    said = [who[key["who"]]] if "who" in key else []
    said += ["cat ears"] * ("ears" in key) + ["maid"] * ("apron" in key)
    said += [f"{key[name]} {name}" for name in ("hair", "eye", "shirt", "skirt", "trousers") if name in key]
    return said + [f"in {key['place']}"] * ("place" in key)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="trained runs, or models that ship")
    parser.add_argument("--count", type=int, default=100, help="pictures (100)")
    args = parser.parse_args()
    quiet_libraries()
    return run_command(lambda: measure(args.runs, args.count))


if __name__ == "__main__":
    sys.exit(main())
