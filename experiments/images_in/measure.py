"""Images in: how much of a picture is found again in what its CLIP embedding gives, by ways across the gap.

    python experiments/images_in/measure.py RUN

RUN is a run in the pixel world. Pictures are fresh drawings of its scenes; a picture is drawn from each one's embedding, and
the reader tells how many of the input's attributes it shows. The floor is an unrelated picture's attributes. Writes
results.json and sheet.png beside this file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deproj.distance import EmbeddingDistance
from deproj.expression import embed, picture, text
from deproj.images import ImageEncoder
from deproj.metrics import Measure
from deproj.pipeline import DeprojectorPipeline
from deproj.pixel import WEIGHTS
from deproj.pixel.reader import Reader
from deproj.pixel.scenes import ATTRIBUTES, draw, sample
from deproj.prompts import GrammarPrompts, Mix
from deproj.render import save_image, sheet

HERE = Path(__file__).parent
COLOURS = ATTRIBUTES["hair"]


def trained_distance(pipe: DeprojectorPipeline) -> EmbeddingDistance:
    """The model's own, or, for one that kept none, of embeddings mixed as in training."""
    if pipe.model.distance is not None:
        return pipe.model.distance
    samples = list(Mix().samples(GrammarPrompts(), 5000, 0))
    empty = pipe.encoder.empty.embedding[0]
    parts = [part for one in samples for part in one.parts]
    each = torch.cat([pipe.encoder.embed(parts[k : k + 100]) for k in range(0, len(parts), 100)]) - empty
    owner = torch.tensor([k for k, one in enumerate(samples) for _ in one.parts])
    return EmbeddingDistance.fit(torch.zeros(len(samples), len(empty)).index_add_(0, owner, each) + empty)


def drawn(pipe: DeprojectorPipeline, states: Tensor) -> Tensor:
    """A picture of each sequence of states, (B, 32, 32, 3) uint8, always from the same noise."""
    found = []
    for rows in torch.arange(len(states)).split(50):
        positive, negative = pipe.with_negative(states[rows])
        images = pipe.sd(
            prompt_embeds=positive, negative_prompt_embeds=negative, guidance_scale=pipe.guidance,
            num_inference_steps=pipe.steps, output_type="pt",
            generator=[torch.Generator().manual_seed(row) for row in rows.tolist()],
        ).images  # fmt: skip
        found.append((images.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).byte())
    return torch.cat(found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--count", type=int, default=100)
    args = parser.parse_args()
    pipe = DeprojectorPipeline.from_pretrained("pixel", args.run, device="cpu")
    distance, encoder = trained_distance(pipe), pipe.encoder
    reader = Reader.from_pretrained(WEIGHTS / "reader")

    def read(pictures: Tensor) -> list[dict[str, str]]:
        seen = reader.read(pictures.permute(0, 3, 1, 2).float() / 127.5 - 1)
        return [{name: value for name, (value, _) in one.items() if value is not None} for one in seen]

    def share(pictures: Tensor, wanted: list[dict[str, str]]) -> Measure:
        seen = read(pictures)
        hits = [[one.get(name) == value for name, value in key.items()] for one, key in zip(seen, wanted, strict=True)]
        return Measure.mean([float(np.mean(hit)) if hit else float("nan") for hit in hits])

    shown = torch.from_numpy(draw(sample(args.count, np.random.default_rng(20))))
    keys = read(shown)
    images = [Image.fromarray(one.numpy()) for one in shown]
    plain, held = ImageEncoder("pixel", encoder), ImageEncoder("pixel", encoder, distance)
    z = held.project(images)
    assert encoder.deprojection is not None
    back, e0 = encoder.deprojection.T, encoder.empty.embedding[0]
    ways = {
        "none: W⁻¹ z": z @ back,
        "difference, added to the empty prompt": e0 + (z - plain.mean) @ back,
        "difference, added to the mean training embedding": distance.mean + (z - plain.mean) @ back,
        "the same, held near the training embeddings": held(images),
    }
    # what a caption that says all gives, and its true states: how much could be found at all
    captions = [" ".join(words(key)) for key in keys]
    rows: dict[str, Tensor] = {"input": shown}
    table = {}
    for name, embedding in {**ways, "a caption of all attributes": encoder.embed(captions)}.items():
        rows[name] = drawn(pipe, pipe.model.generate(embedding))
        found, floor = share(rows[name], keys), share(rows[name], [*keys[1:], keys[0]])
        table[name] = [found.value, *found.interval(), floor.value, float(distance(embedding).median())]
        print(name, [round(number, 3) for number in table[name]], flush=True)
    # a picture and words: another hair colour for those with hair
    mixed = [k for k, key in enumerate(keys) if "hair" in key][: args.count // 2]
    colours = [COLOURS[(COLOURS.index(keys[k]["hair"]) + 1 + k % 5) % 6] for k in mixed]
    rest = [{name: value for name, value in keys[k].items() if name != "hair"} for k in mixed]
    mixes = {}
    for weight in (0.0, 1.0, 2.0):
        asked = [picture(images[k]) + weight * text(f"{colour} hair") for k, colour in zip(mixed, colours, strict=True)]
        made = drawn(pipe, pipe.model.generate(embed(asked, encoder, held)))
        hair = share(made, [{"hair": colour} for colour in colours])
        kept = share(made, rest)
        mixes[f"{weight:g}"] = [hair.value, *hair.interval(), kept.value, *kept.interval()]
        print("hair", weight, [round(number, 3) for number in mixes[f"{weight:g}"]], flush=True)
        if weight == 1:
            with_words = {k: (made[row], colours[row]) for row, k in enumerate(mixed)}
    few = list(with_words)[:8]
    tiles = {name: pictures[few] for name, pictures in rows.items() if name != "none: W⁻¹ z"}
    tiles["held near, + other hair"] = torch.stack([with_words[k][0] for k in few])
    save_image(sheet(tiles, [f"+ {with_words[k][1]} hair" for k in few], side=112, halves=False), HERE / "sheet.png")
    content = {"run": args.run.name, "count": args.count, "ways": table, "hair": mixes}
    (HERE / "results.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def words(key: dict[str, str]) -> list[str]:
    """The tags of a caption that says all that a picture shows."""
    who = {"girl": "1girl", "boy": "1boy", "girl and boy": "1girl 1boy", "cat": "cat"}
    said = [who[key["who"]]] if "who" in key else []
    said += ["cat ears"] * ("ears" in key) + ["maid"] * ("apron" in key)
    said += [f"{key[name]} {name}" for name in ("hair", "eye", "shirt", "skirt", "trousers") if name in key]
    return said + [f"in {key['place']}"] * ("place" in key)


if __name__ == "__main__":
    main()
