"""The pipeline: prompts, embeddings and pictures through a real diffusers pipeline."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Ended
from PIL import Image

from deproj.clip.encoder import TextEncoder
from deproj.clip.images import ImageEncoder, open_picture, open_pictures
from deproj.expression import between, mean, parse, picture, text
from deproj.pipeline import DeprojectorPipeline, as_list
from deproj.pixel.scenes import draw, sample
from deproj.process.errors import UserError
from deproj.selection import EosOnward
from deproj.texts.benchmark import SINGLE


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_draws_what_the_states_say_through_plain_diffusers(pipe: DeprojectorPipeline):
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    from deproj.pixel import WEIGHTS

    ours = pipe(["cat, maid", "1boy"], generator=seeded(0, 1), size=0).images
    sd = StableDiffusionPipeline.from_pretrained(WEIGHTS, dtype=torch.float32, safety_checker=None)
    sd.scheduler = DPMSolverMultistepScheduler.from_config(sd.scheduler.config, algorithm_type="dpmsolver++")
    sd.set_progress_bar_config(disable=True)
    theirs = sd(
        prompt_embeds=pipe.states_of(["cat, maid", "1boy"]), negative_prompt=["", ""], guidance_scale=3.0,
        num_inference_steps=20, generator=seeded(0, 1),
    ).images  # fmt: skip
    for a, b in zip(ours, theirs, strict=True):
        assert a.size == (32, 32)
        assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 2


def test_prompts_embeddings_and_pictures_say_the_same(pipe: DeprojectorPipeline, photo: Image.Image):
    embedded = pipe.embed(["cat, maid", photo])
    states = pipe.states_of(["cat, maid", photo])
    assert states.shape == (2, 77, 128)
    for same in (
        pipe.states_of(embedding=embedded),
        pipe.states_of([embedded[0], picture(photo)]),
        pipe.states_of([text("cat") + "maid", "<photo>"], pictures={"photo": photo}),
        torch.cat([pipe.states_of("cat, maid"), pipe.states_of(image=photo)]),
        torch.cat([pipe.states_of(embedding=embedded[0]), pipe.states_of(image=[photo])]),
    ):
        assert torch.allclose(same, states, atol=1e-3)
    mixed = pipe.embed(["<photo>, red hair:2"], pictures={"photo": photo})[0]
    empty = pipe.encoder.empty.embedding[0]
    assert torch.allclose(mixed, embedded[1] + 2 * (pipe.encoder.embed(["red hair"])[0] - empty), atol=1e-4)


def test_one_prompt_is_a_list_of_one(pipe: DeprojectorPipeline):
    assert torch.equal(pipe.embed("cat, maid"), pipe.embed(["cat, maid"]))


def test_the_empty_negative_is_the_true_empty_prompt(pipe: DeprojectorPipeline):
    true = pipe.encoder.empty.states[0]
    for nothing in (None, "", [" , ", ""], '""'):
        _, negative = pipe.encode_prompt(["cat", "1boy"], nothing)
        assert torch.equal(negative, true.expand(2, -1, -1))
    _, negative = pipe.encode_prompt(["cat", "1boy"], ["red hair", ""])
    assert torch.equal(negative[1], true)
    assert torch.allclose(negative[0], pipe.states_of("red hair")[0], atol=1e-3)
    with pytest.raises(UserError, match="3 negative prompts for 2 prompts"):
        pipe.encode_prompt(["cat", "1boy"], ["a", "b", "c"])


def test_strength_blends_with_the_true_states_in_the_models_order(pipe: DeprojectorPipeline):
    encoded = pipe.encoder([SINGLE[1]])
    true = EosOnward()(encoded.length).arrange(encoded.states)
    made = pipe.states_of(SINGLE[1])
    commas = ", ".join(SINGLE[1].split())
    assert torch.allclose(pipe.states_of(SINGLE[1], strength=0), true, atol=1e-4)
    assert torch.allclose(pipe.states_of(commas, strength=0), true, atol=1e-4)
    assert torch.allclose(pipe.states_of(SINGLE[1], strength=0.25), 0.75 * true + 0.25 * made, atol=1e-3)
    for prompt in ("red hair:1.2", "cat, -maid", mean("cat", "maid"), pipe.embed(["cat"])[0]):
        with pytest.raises(UserError, match="strength below 1 needs true states"):
            pipe.states_of(prompt, strength=0.5)
    with pytest.raises(UserError, match="strength is 0 to 1"):
        pipe.states_of("cat", strength=1.5)


def test_options_reach_diffusers(pipe: DeprojectorPipeline):
    few = {"num_inference_steps": 2, "output_type": "np"}
    images = pipe(["cat", "1boy"], num_images_per_prompt=2, generator=seeded(0, 1, 0, 1), **few).images
    assert images.shape == (4, 32, 32, 3)
    again = pipe("cat", generator=seeded(0)[0], **few).images
    assert np.allclose(images[0], again[0], atol=1e-2)
    assert not np.allclose(pipe("cat", guidance_scale=9, generator=seeded(0)[0], **few).images, again, atol=1e-2)
    assert not np.allclose(pipe("cat", negative_prompt="1boy", generator=seeded(0)[0], **few).images, again, atol=1e-2)


def test_image_to_image_through_its_components(pipe: DeprojectorPipeline, photo: Image.Image):
    from diffusers import StableDiffusionImg2ImgPipeline

    img2img = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    img2img.set_progress_bar_config(disable=True)
    states, negative = pipe.encode_prompt("cat, maid")

    def changed(strength: float) -> float:
        drawn = img2img(
            image=photo, strength=strength, prompt_embeds=states, negative_prompt_embeds=negative,
            generator=seeded(0)[0], num_inference_steps=20,
        ).images[0]  # fmt: skip
        return float(np.abs(np.asarray(drawn, float) - np.asarray(photo, float)).mean())

    little, much = changed(0.1), changed(0.9)
    assert little < 40
    assert much > little + 10


def test_controlnet_through_its_components(pipe: DeprojectorPipeline, photo: Image.Image):
    """An untrained ControlNet changes nothing, and one that isn't zero does."""
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    torch.manual_seed(0)
    control = ControlNetModel.from_unet(pipe.sd.unet, conditioning_channels=3, conditioning_embedding_out_channels=(16, 32, 96))
    states, negative = pipe.encode_prompt("cat, maid")
    controlled = StableDiffusionControlNetPipeline(**pipe.components, controlnet=control, requires_safety_checker=False)
    controlled.set_progress_bar_config(disable=True)
    options = {"guidance_scale": 3.0, "num_inference_steps": 3, "output_type": "np"}

    def drawn() -> np.ndarray:
        return controlled(
            image=photo, prompt_embeds=states, negative_prompt_embeds=negative, generator=seeded(0)[0], **options
        ).images

    plain = pipe("cat, maid", generator=seeded(0)[0], **options).images
    assert np.allclose(drawn(), plain, atol=1e-3)
    with torch.no_grad():
        control.controlnet_mid_block.bias += 1.0
    assert not np.allclose(drawn(), plain, atol=1e-2)


def test_other_schedulers_keep_working(pipe: DeprojectorPipeline):
    from diffusers import EulerDiscreteScheduler

    before, pipe.sd.scheduler = pipe.sd.scheduler, EulerDiscreteScheduler.from_config(pipe.sd.scheduler.config)
    try:
        assert pipe("cat", num_inference_steps=3, generator=seeded(0)[0]).images[0].size == (256, 256)
    finally:
        pipe.sd.scheduler = before


def test_a_path_is_taken_where_a_picture_is(pipe: DeprojectorPipeline, photo: Image.Image, tmp_path: Path):
    path = tmp_path / "a b.png"
    photo.save(path)
    wanted = pipe.embed([photo])
    for given in (path, picture(path), picture(str(path))):
        assert torch.equal(pipe.embed([given]), wanted)
    assert torch.equal(pipe.embed(["<photo>"], {"photo": str(path)}), wanted)
    assert torch.equal(pipe.embed(as_list(None, None, str(path))), wanted)


def test_warns_of_what_is_far_or_cut_and_of_nothing_else(pipe: DeprojectorPipeline):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe.states_of(["cat, maid", "1girl, red hair:1.2, -black skirt", "cat maid | 1boy @ 0.3", ""])
    noise = 30 * torch.randn(128, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=r"'<embedding>' is [\d,.]+ times as far out as the prompts"):
        pipe.states_of(embedding=noise)
    with pytest.warns(UserWarning, match="longer than 77 tokens"):
        pipe.states_of("red hair " * 60)
    with pytest.warns(UserWarning, match=r"\(\(cat\)\) is a mark of other programs; here, write cat:1\.21\."):
        pipe.states_of("((cat)), maid")
    with pytest.warns(UserWarning, match=r"\[maid\] is a mark"):
        pipe.encode_prompt("cat", "[maid]")
    with pytest.raises(UserError, match=r"<lora:x:1> is a mark of other programs; here, load a LoRA with DeprojectorPipeline"):
        pipe.states_of("cat, <lora:x:1>")


def test_pictures_are_read_upright_and_whole(tmp_path: Path):
    wide = Image.new("RGB", (40, 20), "red")
    wide.paste("blue", (0, 0, 20, 20))
    exif = wide.getexif()
    exif[0x0112] = 6  # held on its side
    wide.save(tmp_path / "photo.png", exif=exif)
    upright = open_picture(tmp_path / "photo.png")
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5)) == (0, 0, 255)
    Image.fromarray(np.full((4, 4), 30000, np.uint16)).save(tmp_path / "deep.png")
    assert open_picture(tmp_path / "deep.png").getpixel((0, 0)) == (117, 117, 117)
    Image.new("RGBA", (4, 4), (10, 20, 30, 255)).save(tmp_path / "alpha.png")
    assert open_picture(tmp_path / "alpha.png").getpixel((0, 0)) == (10, 20, 30)
    with pytest.raises(UserError, match="holds no pictures"):
        open_pictures((tmp_path / "empty").mkdir() or tmp_path / "empty")
    assert len(open_pictures(tmp_path)) == 3


def test_another_model_takes_pictures_in_its_own_way(pipe: DeprojectorPipeline, photo: Image.Image):
    model = copy.deepcopy(pipe.model)
    assert model.distance is not None
    model.distance.mean += 1
    other, fresh = pipe.with_model(model), DeprojectorPipeline.from_pretrained("pixel", model, device="cpu")
    assert torch.equal(other.embed([photo]), fresh.embed([photo]))
    assert not torch.allclose(other.embed([photo]), pipe.embed([photo]), atol=0.1)


def test_pictures_come_near_what_was_trained_on(pipe: DeprojectorPipeline, encoder: TextEncoder):
    """The way across the gap: nearer to texts than the plain inverse is, and to the caption's own than to another's."""
    import random

    from deproj.pixel.grammar import caption

    scenes = sample(40, np.random.default_rng(1))
    images = [Image.fromarray(p) for p in draw(scenes)]
    assert pipe.pictures is not None
    assert pipe.model.distance is not None
    bare = ImageEncoder("pixel", encoder)
    ours, plain = pipe.pictures(images), bare(images)
    assert pipe.model.distance(ours).max() < 2
    assert pipe.model.distance(plain).min() > 2
    back = encoder.project(plain) - encoder.project(encoder.empty.embedding)
    assert torch.allclose(back, bare.project(images) - bare.mean, atol=1e-3), "W⁻¹ is undone by W"
    texts = encoder.embed([caption(values, random.Random(0)) for values in scenes.values])
    similar = (
        torch.nn.functional.normalize(ours - ours.mean(0), dim=1) @ torch.nn.functional.normalize(texts - texts.mean(0), dim=1).T
    )
    assert similar.diagonal().mean() > similar.mean() + 0.3


def test_a_trained_run_by_its_folder(train: Callable[..., Ended], tmp_path: Path):
    assert train("hydra.run.dir=run", "selection=all").code == 0
    pipe = DeprojectorPipeline.from_pretrained("pixel", tmp_path / "run", device="cpu")
    assert type(pipe.selection).__name__ == "AllTokens"
    assert torch.allclose(pipe.states_of("cat", strength=0), pipe.encoder(["cat"]).states, atol=1e-4)
    assert pipe.embed([parse("cat")]).shape == (1, 128)


def test_guidance_up_to_1_is_none_as_in_diffusers(pipe: DeprojectorPipeline):
    one, *others = (
        pipe("cat", guidance_scale=guidance, num_inference_steps=2, generator=seeded(0), output_type="pt").images
        for guidance in (1, 0, 0.5)
    )
    assert all(torch.equal(one, other) for other in others)


def test_a_tensor_of_one_number_is_a_number(pipe: DeprojectorPipeline):
    way = [str(between("cat", "dog", t)) for t in torch.linspace(0, 1, 3)]
    assert way == [str(between("cat", "dog", t)) for t in (0.0, 0.5, 1.0)]
    assert str(text("cat") * np.float32(0.5)) == "cat:0.5"
    half = pipe.states_of("cat", strength=torch.tensor(0.5))  # type: ignore[arg-type]
    assert torch.equal(half, pipe.states_of("cat", strength=0.5))


def test_another_model_is_taken_by_its_name(pipe: DeprojectorPipeline):
    other = pipe.with_model("small")
    assert type(other.model).__name__ == "ResidualDeprojector"
    with pytest.raises(UserError, match="is no deprojector"):
        pipe.with_model("smaller than small")


def test_a_warning_names_the_users_own_line(pipe: DeprojectorPipeline, photo: Image.Image):
    with pytest.warns(UserWarning, match="is a mark of other programs") as caught:
        pipe.states_of("((cat))")
    assert {Path(one.filename).name for one in caught} == {"test_pipeline.py"}
