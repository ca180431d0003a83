"""Builds the pixel world from nothing: ``python -m deproj.pixel.build``.

Six stages: tokenizer, CLIP, reader, VAE, a draft of the U-Net, the U-Net. What ships is checked against its bar, in float16,
and the build ends with exit code 1 at a stage that misses it. Every stage can be stopped and goes on where it was; a GPU is
used where there is one. The figures of the build are written to ``figures.json`` beside the weights.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from deproj.pixel import WEIGHTS, grammar, parts, scenes
from deproj.pixel.colours import two_coloured
from deproj.pixel.reader import Reader
from deproj.pixel.redraw import redraw
from deproj.pixel.training import LossOf, Rng, cosine, fit
from deproj.process.arguments import Parser
from deproj.process.files import named_path, write_checksums
from deproj.texts.benchmark import PROMPTS

STAGES = ("tokenizer", "clip", "reader", "vae", "draft", "unet")


def pictures_of(drawn: scenes.Scenes, device: str) -> Tensor:
    """Drawn scenes as (N, 3, 32, 32) in [-1, 1]."""
    return torch.from_numpy(scenes.draw(drawn)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def python_rng(rng: Rng) -> random.Random:
    return random.Random(int(rng.integers(2**62)))


def near_duplicates(groups: int, size: int, rng: Rng) -> tuple[scenes.Scenes, list[str]]:
    """Groups of scenes that differ in a few attributes, with captions that distinguish them.

    Contrastive training learns only what distinguishes the captions of a batch; in a batch of such
    groups that is every colour, not just the ones that differ most.
    """
    base = np.repeat(scenes.sample(groups, rng).values, size, axis=0)
    other = scenes.sample(groups * size, rng)
    redrawn = rng.random(base.shape) < 0.3
    redrawn[:, scenes.WHO] = False
    same_who = other.values.copy()
    for column in (scenes.HAIR, scenes.EYE, scenes.SHIRT, scenes.SKIRT, scenes.TROUSERS):
        same_who[:, column] = rng.integers(1, 1 + len(scenes.ATTRIBUTES[scenes.NAMES[column]]), len(base))
    values = np.where(redrawn, same_who, base)
    drawn = scenes.Scenes(scenes.consistent(values), other.style, other.tint)
    seeds = np.repeat(rng.integers(2**62, size=groups), size)
    texts = [
        grammar.captions(drawn[k : k + 1], random.Random(int(seed)))[0] for k, seed in enumerate(seeds)
    ]  # one seed a group: the same tags of each
    return drawn, texts


def some_cut(texts: list[str], rng: random.Random, share: float = 0.15) -> list[str]:
    """Texts of which a share is cut to a few words in a row, as alt texts of the web are."""
    cut = []
    for text in texts:
        words = text.split(" ")
        if len(words) > 1 and rng.random() < share:
            start = rng.randrange(len(words))
            piece = " ".join(words[start : rng.randint(start + 1, len(words))]).strip(",")
            text = text if grammar.held_out(piece) else piece
        cut.append(text)
    return cut


def contrastive_loss(text: Tensor, image: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """Radford et al. 2021, with equal captions (`same`, (B, B) bool) all counted as matches."""
    logits = scale.exp().clamp(max=100) * F.normalize(text, dim=-1) @ F.normalize(image, dim=-1).T
    target = same.float() / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def build_clip(work: Path, out: Path, steps: int, device: str) -> dict[str, Any]:
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")
    torch.manual_seed(0)
    clip: Any = parts.make_clip(tokenizer).to(device)

    def loss_of(module: Any, rng: Rng, step: int) -> Tensor:
        alike, alike_texts = near_duplicates(32, 4, rng)
        free = scenes.sample(128, rng)
        texts = alike_texts + grammar.captions(free, python_rng(rng))
        texts = some_cut(texts, python_rng(rng))
        pictures = torch.cat([pictures_of(alike, device), pictures_of(free, device)])
        number = {text: k for k, text in enumerate(texts)}
        index = torch.tensor([number[text] for text in texts], device=device)
        tokens = tokenizer(texts, padding=True, return_tensors="pt").to(device)
        text = module.get_text_features(**tokens).pooler_output
        image = module.get_image_features(pixel_values=pictures).pooler_output
        return contrastive_loss(text, image, module.logit_scale, index[:, None] == index[None])

    clip = fit("clip", clip, loss_of, steps, 1e-3, work, weight_decay=0.05)
    clip.half().float()  # what is measured is what is shipped
    figures = probe(clip, tokenizer, device)
    clip.half().save_pretrained(out / "clip")
    text_encoder = CLIPTextModel(clip.config.text_config)
    text_encoder.load_state_dict(clip.text_model.state_dict())
    text_encoder.half().save_pretrained(out / "text_encoder")
    (out / "clip" / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n", encoding="utf-8")
    return figures


PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "resample": 0,
    "do_center_crop": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "do_convert_rgb": True,
}


@torch.no_grad()
def embed(clip: Any, tokenizer: Any, texts: list[str], device: str) -> Tensor:
    """Pooled embeddings (N, 128)."""
    pooled = []
    for start in range(0, len(texts), 1000):
        tokens = tokenizer(texts[start : start + 1000], padding=True, return_tensors="pt").to(device)
        pooled.append(clip.text_model(**tokens).pooler_output)
    return torch.cat(pooled)


def probe(clip: Any, tokenizer: Any, device: str, hidden: int = 512) -> dict[str, Any]:
    """What the embedding carries: a two-layer MLP from the pooled embedding to each asked attribute.

    Trained on 30,000 training captions; the share right over held-out captions that ask for the attribute.
    """
    texts = list(itertools.islice(grammar.training_texts(11), 30_000))
    tests = grammar.held_out_prompts(2000, seed=12)
    names = list(scenes.ATTRIBUTES)

    def labels(some: list[str]) -> Tensor:
        rows = []
        for text in some:
            key = dict(grammar.asked(text))
            rows.append([scenes.ATTRIBUTES[n].index(key[n]) + 1 if n in key else 0 for n in names])
        return torch.tensor(rows, device=device)

    x, y = embed(clip, tokenizer, texts, device), labels(texts)
    tx, ty = embed(clip, tokenizer, tests, device), labels(tests)
    mean, std = x.mean(0), x.std(0)
    x, tx = (x - mean) / std, (tx - mean) / std
    sizes = [1 + len(values) for values in scenes.ATTRIBUTES.values()]
    right: dict[str, dict[str, float]] = {}
    for kind in ("linear", "mlp"):
        torch.manual_seed(0)
        model: nn.Module = nn.Linear(x.shape[1], sum(sizes))
        if kind == "mlp":
            model = nn.Sequential(nn.Linear(x.shape[1], hidden), nn.GELU(), nn.Linear(hidden, sum(sizes)))
        model.to(device)
        steps = 1500
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=1e-3)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
            rows = torch.randint(0, len(x), (1000,), device=device)
            logits = model(x[rows]).split(sizes, 1)
            loss = sum((F.cross_entropy(out, y[rows, k]) for k, out in enumerate(logits)), torch.zeros(()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            guesses = [out.argmax(1) for out in model(tx).split(sizes, 1)]
        hits = {n: (guesses[k] == ty[:, k])[ty[:, k] > 0].float() for k, n in enumerate(names)}
        right[kind] = {n: round(h.mean().item(), 4) for n, h in hits.items()}
        right[kind]["all"] = round(torch.cat(list(hits.values())).mean().item(), 4)
    return {"probe_held_out": right, "parameters": sum(p.numel() for p in clip.parameters())}


def build_tokenizer(work: Path, out: Path, steps: int, device: str) -> dict[str, Any]:
    texts = list(itertools.islice(grammar.training_texts(0), 20_000))
    tokenizer = parts.train_tokenizer(texts, out / "tokenizer")
    longest = max(len(tokenizer(text).input_ids) for text in texts)
    return {"tokens": len(tokenizer), "longest_caption": longest}


def build_reader(work: Path, out: Path, steps: int, device: str) -> dict[str, Any]:
    torch.manual_seed(0)
    reader: Any = Reader().to(device)

    def loss_of(module: nn.Module, rng: Rng, step: int) -> Tensor:
        drawn = scenes.sample(128, rng)
        pictures = pictures_of(drawn, device)
        noise = 0.15 * torch.rand(len(pictures), 1, 1, 1, device=device)
        labels = torch.from_numpy(drawn.values).long().to(device)
        logits = module(pictures + noise * torch.randn_like(pictures))
        losses = [F.cross_entropy(out, labels[:, k]) for k, out in enumerate(logits.values())]
        return torch.stack(losses).sum()

    reader = fit("reader", reader, loss_of, steps, 2e-3, work)
    reader.half().float()
    drawn = scenes.sample(5000, np.random.default_rng(99))
    with torch.no_grad():
        logits = reader(pictures_of(drawn, device))
    right = {
        name: round((out.argmax(1).cpu().numpy() == drawn.values[:, k]).mean().item(), 4)
        for k, (name, out) in enumerate(logits.items())
    }
    save_half(reader, out / "reader")
    return {"right_on_fresh_drawings": right, "bar": 0.99, "met": min(right.values()) >= 0.99}


def save_half(module: nn.Module, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.half().contiguous().cpu() for k, v in module.state_dict().items() if v.is_floating_point()}
    state |= {k: v.contiguous().cpu() for k, v in module.state_dict().items() if not v.is_floating_point()}
    save_file(state, folder / "model.safetensors")


def build_vae(work: Path, out: Path, steps: int, device: str) -> dict[str, Any]:
    torch.manual_seed(0)
    vae: Any = parts.make_vae().to(device)

    def loss_of(module: Any, rng: Rng, step: int) -> Tensor:
        pictures = pictures_of(scenes.sample(32, rng), device)
        with torch.autocast(device, torch.bfloat16):
            posterior = module.encode(pictures).latent_dist
            back = module.decode(posterior.sample()).sample
        error = back.float() - pictures
        return error.abs().mean() + error.square().mean() + 3e-4 * posterior.kl().float().mean() / 512

    vae = fit("vae", vae, loss_of, steps, 2e-3, work, weight_decay=0.0)
    fold_statistics(vae, pictures_of(scenes.sample(2000, np.random.default_rng(5)), device))
    pictures = pictures_of(drawn := scenes.sample(1000, np.random.default_rng(98)), device)
    vae.half().float()  # what is measured is what is shipped
    with torch.no_grad():
        back = vae.decode(vae.encode(pictures).latent_dist.mode()).sample
    with torch.no_grad():
        logits = Reader.from_pretrained(out / "reader").to(device)(back)
    labels = torch.from_numpy(drawn.values).long().to(device)
    right = {n: (o.argmax(1) == labels[:, k]).float().mean().item() for k, (n, o) in enumerate(logits.items())}
    save_sheet(torch.cat([pictures[:12], back[:12]]), 12, work / "vae.png")
    vae.half().save_pretrained(out / "vae")
    mean = sum(right.values()) / len(right)
    figures = {"round_trip": mean, "round_trip_each": right, "l1": (back - pictures).abs().mean().item()}
    return rounded(figures) | {"bar": 0.99, "met": mean >= 0.99}


@torch.no_grad()
def fold_statistics(vae: Any, pictures: Tensor) -> None:
    """Gives every latent channel mean 0 and spread 1, by the quantising convolutions alone.

    A pipeline knows only one scaling factor for all channels. With z = (m - mu) / sigma the encoder's
    convolution gives z and its log variance less 2 log sigma; the decoder's takes z back to m.
    """
    latents = vae.encode(pictures).latent_dist.mode()
    mu, sigma = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mu)
    vae.quant_conv.weight[:channels] /= sigma[:, None, None, None]
    vae.quant_conv.bias[:channels].sub_(mu).div_(sigma)
    vae.quant_conv.bias[channels:] -= 2 * sigma.log()
    weight = vae.post_quant_conv.weight.clone()
    vae.post_quant_conv.bias += weight[:, :, 0, 0] @ mu
    vae.post_quant_conv.weight.copy_(weight * sigma[None, :, None, None])


def unet_loss(out: Path, device: str, uniform: int = 0) -> LossOf:
    """A step's loss: v-prediction (Salimans & Ho 2022) on all 77 states, 10 % of them the empty prompt's.

    Args:
        uniform: in so many steps all noise levels are as likely. After that half of them are drawn from the middle, where
            colours and shapes are decided (as Esser et al. 2024 sample theirs): eyes and ears are learnt sooner.
    """
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(out / "text_encoder", dtype=torch.float32).to(device).eval()
    vae = AutoencoderKL.from_pretrained(out / "vae", dtype=torch.float32).to(device).eval()
    signal = parts.make_scheduler().alphas_cumprod.to(device)
    # bfloat16 took 0.7 to 1.7 times as long as float32 on the processors that were tried, and 20 times on some
    faster = torch.autocast(device, torch.bfloat16, enabled=device == "cuda")

    def loss_of(module: Any, rng: Rng, step: int) -> Tensor:
        drawn = scenes.sample(64, rng)
        texts = [t if rng.random() > 0.1 else "" for t in grammar.captions(drawn, python_rng(rng))]
        tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").to(device)
        with torch.no_grad(), faster:
            states = encoder(input_ids=tokens.input_ids).last_hidden_state
            latents = vae.encode(pictures_of(drawn, device)).latent_dist.sample()
        # each picture at two noise levels: encoding costs a quarter of a step
        states, latents = states.repeat(2, 1, 1), latents.float().repeat(2, 1, 1, 1)
        anywhere = (rng.random(len(latents)) < 0.5) | (step < uniform)
        level = np.where(anywhere, rng.random(len(latents)), rng.beta(3, 3, len(latents)))
        t = torch.from_numpy((level * len(signal)).astype(np.int64)).to(device)
        a, b = signal[t].sqrt()[:, None, None, None], (1 - signal[t]).sqrt()[:, None, None, None]
        noise = torch.randn_like(latents)
        with faster:
            guess = module(a * latents + b * noise, t, encoder_hidden_states=states).sample
        return F.mse_loss(guess.float(), a * noise - b * latents)

    return loss_of


def build_draft(work: Path, out: Path, steps: int, device: str) -> dict[str, Any]:
    """The U-Net at a high learning rate, which knows shapes and mixes the colours that a prompt leaves open."""
    torch.manual_seed(0)
    unet: Any = fit("draft", parts.make_unet().to(device), unet_loss(out, device, 1518), steps, 1e-3, work, decay=0.999)
    unet.half().save_pretrained(work / "draft")
    return {"parameters": sum(p.numel() for p in unet.parameters())}


def build_unet(work: Path, out: Path, steps: int, device: str) -> dict[str, Any]:
    """The draft, trained on while the learning rate falls to 0: colours are decided."""
    if not (work / "draft").is_dir():
        raise SystemExit(f"there is no draft in {work}; make it first: --stage draft --work {work}")
    draft: Any = parts.make_unet().to(device)  # whose config doesn't name the draft's folder
    draft.load_state_dict(UNet2DConditionModel.from_pretrained(work / "draft", dtype=torch.float32).state_dict())
    unet = fit("unet", draft, unet_loss(out, device), steps, 6e-4, work, decay=0.999, schedule=cosine)
    unet.half().save_pretrained(out / "unet")
    parts.make_scheduler().save_pretrained(out / "scheduler")
    write_model_index(out)
    return measure_pictures(out, work, device)


def write_model_index(out: Path) -> None:
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


GUIDANCE = 3.0


def measure_pictures(out: Path, work: Path, device: str) -> dict[str, Any]:
    """The pipeline's bar: pictures from the true states of 200 held-out prompts, 20 steps, as shipped."""
    pipe = StableDiffusionPipeline.from_pretrained(out, dtype=torch.float32, safety_checker=None).to(device)
    pipe.set_progress_bar_config(disable=True)
    reader = Reader.from_pretrained(out / "reader").to(device)
    prompts = grammar.held_out_prompts(200)

    def drawn(texts: list[str], guidance: float) -> Tensor:
        generators = [torch.Generator().manual_seed(k) for k in range(len(texts))]
        pictures = pipe(
            texts, height=32, width=32, num_inference_steps=20, guidance_scale=guidance, generator=generators, output_type="pt"
        ).images
        return 2 * pictures - 1

    found, told = {}, {}
    for guidance in (2.0, 3.0, 4.0, 5.0):
        pictures = torch.cat([drawn(prompts[k : k + 100], guidance) for k in (0, 100)])
        told[f"{guidance}"] = clean(pictures, reader)
        seen = reader.read(pictures)
        hits: dict[str, list[bool]] = {name: [] for name in scenes.ATTRIBUTES}
        for what, prompt in zip(seen, prompts, strict=True):
            for name, value in grammar.asked(prompt):
                hits[name].append(what[name][0] == value)
        flat = [hit for some in hits.values() for hit in some]
        found[f"{guidance}"] = {"all": sum(flat) / len(flat)} | {n: sum(h) / max(len(h), 1) for n, h in hits.items()}
    save_sheet(drawn([text for text in list(PROMPTS) for _ in range(3)], GUIDANCE), 6, work / "benchmark.png")
    share = found[f"{GUIDANCE}"]["all"]
    return rounded({"found_by_guidance": found, "clean_by_guidance": told}) | {"bar": 0.95, "met": share >= 0.95}


def clean(pictures: Tensor, reader: Reader) -> dict[str, float]:
    """How clean pictures (N, 3, 32, 32) in [-1, 1] are: distance to the nearest drawings, in 1/255, and shares of two colours."""
    bytes_of = ((pictures + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu()
    nearest = redraw(bytes_of, reader.cpu())
    reader.to(pictures.device)
    mixed = two_coloured(bytes_of, nearest.scenes).nanmean()
    return {"redraw_noise": nearest.distance.mean().item(), "two_coloured": mixed.item()}


def save_sheet(pictures: Tensor, columns: int, path: Path, scale: int = 4) -> None:
    """Pictures (N, 3, 32, 32) in [-1, 1] in rows of `columns`."""
    rows = len(pictures) // columns
    grid = pictures.reshape(rows, columns, 3, 32, 32).permute(0, 3, 1, 4, 2).reshape(rows * 32, columns * 32, 3)
    image = Image.fromarray(((grid + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy())
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(path)


def rounded(figures: Any) -> Any:
    if isinstance(figures, dict):
        return {key: rounded(value) for key, value in figures.items()}
    return round(figures, 4) if isinstance(figures, float) else figures


BUILDERS: dict[str, Callable[[Path, Path, int, str], dict[str, Any]]] = {
    "tokenizer": build_tokenizer,
    "clip": build_clip,
    "reader": build_reader,
    "vae": build_vae,
    "draft": build_draft,
    "unet": build_unet,
}
STEPS = {"tokenizer": 0, "clip": 2500, "reader": 800, "vae": 3500, "draft": 4300, "unet": 6000}


def main() -> None:
    parser = Parser(prog="python -m deproj.pixel.build", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=named_path, default=WEIGHTS, help="pipeline folder (default: the shipped one)")
    parser.add_argument("--work", type=Path, default=Path("build/pixel"), help="checkpoints of the stages")
    parser.add_argument("--stage", choices=STAGES, action="append", help="only these stages")
    parser.add_argument("--steps", type=int, help="training steps, instead of the stage's own")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    for stage in args.stage or STAGES:
        steps = STEPS[stage] if args.steps is None else args.steps
        start = time.monotonic()
        figures = BUILDERS[stage](args.work, args.out, steps, device)
        figures |= {"steps": steps, "minutes": round((time.monotonic() - start) / 60, 1)}
        print(stage, json.dumps(figures))
        path = args.out / "figures.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps(known | {stage: figures}, indent=2) + "\n", encoding="utf-8")
        write_checksums(args.out)
        if not figures.get("met", True):
            raise SystemExit(f"{stage} misses its bar; train on with --stage {stage} --steps and a larger number.")


if __name__ == "__main__":
    main()
