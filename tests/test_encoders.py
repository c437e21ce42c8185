"""Encoders: unit vectors whatever stands beside them, the libraries' own preprocessing, published names, half precision."""

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from expstar_utils import encoders
from expstar_utils.encoders import ClipEncoder, ViclipEncoder, load_encoder
from expstar_utils.evaclip import EvaClip, load_evaclip
from expstar_utils.models import SHIPPED
from expstar_utils.records import ExpStarError
from expstar_utils.viclip import Viclip, ViclipConfig, load_viclip

TEXT_CFG = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
CONFIGS = {
    "small-clip": {"embed_dim": 24, "quick_gelu": True, "text_cfg": TEXT_CFG, "vision_cfg": {
        "image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32}},
    "small-eva": {"embed_dim": 24, "text_cfg": TEXT_CFG, "custom_text": True, "vision_cfg": {
        "image_size": 224, "timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token", "timm_proj": None}},
}
SMALL_VICLIP = ViclipConfig(frame_px=32, patch_px=8, frames=4, width=64, layers=2, heads=2, dimensions=24, text_width=32,
                            text_layers=2, text_heads=2, tokens=16)
TEXTS = ["A copper salt turns the flame green.", "The lens", "Wear goggles: the acid burns skin, and its vapour is worse.", "光"]


@pytest.fixture(scope="module", autouse=True)
def small_configs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    for name, config in CONFIGS.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def clips(size=128, counts=(3, 1, 5)):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (count, size, size, 3), dtype=np.uint8) for count in counts]


def made(name, **more):
    torch.manual_seed(0)
    options = {"clip": {"model": "small-clip"}, "eva_clip": {"model": "small-eva"}, "viclip": {"config": SMALL_VICLIP}}
    return load_encoder(name, **options.get(name, {}), **more)


HERE = pytest.mark.skipif(not SHIPPED.is_dir(), reason="data/models/expstar-tiny is not there yet")
SEEING = [pytest.param("lit", marks=HERE), "clip", "eva_clip", "viclip"]


@pytest.mark.parametrize("name", ["text", *SEEING])
def test_texts_are_unit_vectors_whatever_stands_beside_them(name):
    encoder = made(name)
    together = encoder.encode_texts(TEXTS)
    assert together.dtype == np.float32
    assert together.shape == (len(TEXTS), encoder.dimensions)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=2e-5)
    assert encoder.encode_texts([]).shape == (0, encoder.dimensions)
    assert np.abs(together[0] - together[1]).max() > 1e-3


@pytest.mark.parametrize("name", SEEING)
def test_clips_are_unit_vectors_in_the_space_of_the_texts(name):
    encoder = made(name)
    assert encoder.sees
    together = encoder.encode_clips(clips())
    assert together.dtype == np.float32
    assert together.shape == (3, encoder.dimensions) == encoder.encode_texts(TEXTS[:3]).shape
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([encoder.encode_clips([clip]) for clip in clips()])
    np.testing.assert_allclose(together, alone, atol=2e-5)
    assert encoder.encode_clips([]).shape == (0, encoder.dimensions)


@pytest.mark.parametrize("name", ["text", *SEEING])
def test_half_precision_turns_a_vector_little(name):
    full, half = made(name), made(name, dtype="bfloat16")
    assert full.name != half.name
    assert ((full.encode_texts(TEXTS) * half.encode_texts(TEXTS)).sum(1) > 0.99).all()
    if full.sees:
        assert ((full.encode_clips(clips()) * half.encode_clips(clips())).sum(1) > 0.99).all()


@pytest.mark.parametrize("model", CONFIGS)
def test_frames_are_prepared_and_encoded_as_open_clip_does(model):
    torch.manual_seed(0)
    encoder = ClipEncoder(model)
    torch.manual_seed(0)
    reference, _, preprocess = open_clip.create_model_and_transforms(model)
    [clip] = clips(size=90, counts=(1,))
    with torch.inference_mode():
        expected = reference.eval().encode_image(preprocess(Image.fromarray(clip[0]))[None], normalize=True).numpy()
        said = reference.encode_text(open_clip.get_tokenizer(model)(TEXTS), normalize=True).numpy()
    np.testing.assert_allclose(encoder.encode_clips([clip]), expected, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), said, atol=1e-5)


def test_frames_are_pooled_by_mean_or_maximum():
    [clip] = clips(counts=(4,))
    torch.manual_seed(0)
    mean = ClipEncoder("small-clip", pool="mean")
    torch.manual_seed(0)
    most = ClipEncoder("small-clip", pool="max")
    frames = mean.encode_clips([frame[None] for frame in clip])
    for encoder, pooled in ((mean, frames.mean(0)), (most, frames.max(0))):
        np.testing.assert_allclose(encoder.encode_clips([clip])[0], pooled / np.linalg.norm(pooled), atol=1e-5)
    with pytest.raises(ExpStarError, match="pool is 'sum'"):
        ClipEncoder("small-clip", pool="sum")


# ViCLIP

def published_names(layers, text_layers):
    """The parameters of a published checkpoint, from the released code."""
    parts = ("attn.out_proj", "ln_1", "mlp.c_fc", "mlp.c_proj", "ln_2")
    block = [f"{part}.{kind}" for part in parts for kind in ("weight", "bias")]
    block += ["attn.in_proj_weight", "attn.in_proj_bias"]
    names = {"temp", "vision_encoder.conv1.weight", "vision_encoder.class_embedding", "vision_encoder.positional_embedding",
             "vision_encoder.temporal_positional_embedding", "vision_encoder.proj", "text_encoder.token_embedding.weight",
             "text_encoder.positional_embedding", "text_encoder.text_projection"}
    norms = ["vision_encoder.ln_pre", "vision_encoder.ln_post", "text_encoder.ln_final"]
    names |= {f"{norm}.{kind}" for norm in norms for kind in ("weight", "bias")}
    return names | {f"{side}.transformer.resblocks.{n}.{name}" for side, count in (("vision_encoder", layers), (
        "text_encoder", text_layers)) for n in range(count) for name in block}


def test_parameters_are_named_and_shaped_as_published():
    with torch.device("meta"):
        state = Viclip().state_dict()
    assert set(state) == published_names(24, 12)
    shapes = {"vision_encoder.conv1.weight": (1024, 3, 1, 14, 14), "vision_encoder.positional_embedding": (257, 1024),
              "vision_encoder.temporal_positional_embedding": (1, 8, 1024), "vision_encoder.proj": (1024, 768),
              "text_encoder.positional_embedding": (32, 768), "text_encoder.token_embedding.weight": (49408, 768), "temp": ()}
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_with_one_frame_it_is_clip():
    torch.manual_seed(0)
    clip, _, _ = open_clip.create_model_and_transforms("small-clip")
    model = Viclip(ViclipConfig(frame_px=32, patch_px=8, frames=1, width=64, layers=2, heads=2, dimensions=24, text_width=32,
                                text_layers=2, text_heads=2, tokens=16)).eval()
    vision = clip.eval().visual.state_dict()
    vision["conv1.weight"] = vision["conv1.weight"][:, :, None]
    assert model.vision_encoder.load_state_dict(vision, strict=False).missing_keys == ["temporal_positional_embedding"]
    text = {k: v for k, v in clip.state_dict().items() if not k.startswith(("visual", "logit"))}
    model.text_encoder.load_state_dict(text)
    pixels, ids = torch.randn(2, 3, 1, 32, 32), open_clip.SimpleTokenizer(context_length=16)(TEXTS)
    with torch.inference_mode():
        torch.testing.assert_close(model.vision_encoder(pixels), clip.encode_image(pixels[:, :, 0]), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(model.text_encoder(ids), clip.encode_text(ids), atol=1e-5, rtol=1e-4)


def test_a_checkpoint_comes_back_strictly(tmp_path):
    torch.manual_seed(0)
    model = Viclip(SMALL_VICLIP)
    torch.save({"model": model.state_dict()}, tmp_path / "viclip.pth")
    encoder = ViclipEncoder(tmp_path / "viclip.pth", SMALL_VICLIP)
    torch.manual_seed(0)
    np.testing.assert_array_equal(encoder.encode_texts(TEXTS), ViclipEncoder(config=SMALL_VICLIP).encode_texts(TEXTS))
    for change, said in (({"temp": None}, "temp is nothing"), ({"more": torch.zeros(2)}, r"more is \(2,\), expected nothing"),
                         ({"temp": torch.zeros(3)}, r"temp is \(3,\)")):
        state = {k: v for k, v in (model.state_dict() | change).items() if v is not None}
        torch.save({"model": state}, tmp_path / "other.pth")
        with pytest.raises(ExpStarError, match=said):
            load_viclip(tmp_path / "other.pth", SMALL_VICLIP)
    (tmp_path / "text.pth").write_text("no checkpoint")
    for name in ("text.pth", "absent.pth"):
        with pytest.raises(ExpStarError, match=rf"{name}: (cannot be read|no such file)"):
            load_viclip(tmp_path / name, SMALL_VICLIP)


def test_frames_of_viclip_are_spread_scaled_and_in_imagenets_colours():
    encoder = made("viclip")
    clip = np.stack([np.full((32, 32, 3), value, np.uint8) for value in (0, 50, 100, 150, 200, 250, 255)])
    pixels = encoder.pixels(clip)
    assert pixels.shape == (3, 4, 32, 32)
    mean, std = (torch.tensor(values)[:, None, None, None] for values in (encoders.IMAGENET_MEAN, encoders.IMAGENET_STD))
    back = pixels * std + mean
    np.testing.assert_allclose((255 * back).amax((0, 2, 3)).numpy(), [0, 100, 200, 255], atol=1e-3)
    assert encoder.pixels(clip[:1]).shape == (3, 4, 32, 32)


def test_the_order_of_frames_counts():
    encoder = made("viclip")
    torch.nn.init.normal_(encoder._model.vision_encoder.temporal_positional_embedding)
    [clip] = clips(counts=(4,))
    assert np.abs(encoder.encode_clips([clip]) - encoder.encode_clips([clip[::-1].copy()])).max() > 1e-3


# EVA-CLIP-8B

SMALL_EVA = {"projection_dim": 24, "vision_config": {
    "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64, "image_size": 32,
    "patch_size": 8, "hidden_act": "gelu", "layer_norm_eps": 1e-6}, "text_config": {
    "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 49408,
    "max_position_embeddings": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-5}}


def eva_folder(folder, **vision):
    """A checkpoint of random weights, in two files, as the published one comes in four."""
    config = SMALL_EVA | {"vision_config": SMALL_EVA["vision_config"] | vision}
    torch.manual_seed(0)
    state = {name: 0.2 * torch.randn(tensor.shape) for name, tensor in EvaClip(config).state_dict().items()}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    names = sorted(state)
    for n, some in enumerate((names[::2], names[1::2])):
        save_file({name: state[name] for name in some}, folder / f"model-{n}.safetensors")
    return folder


def test_without_its_own_ways_it_is_transformers_clip(tmp_path):
    model = load_evaclip(eva_folder(tmp_path / "eva"))
    clip = CLIPVisionModelWithProjection(CLIPVisionConfig(**SMALL_EVA["vision_config"], projection_dim=24)).eval()
    clip.vision_model.pre_layrnorm = torch.nn.Identity()
    clip.visual_projection = torch.nn.Linear(32, 24)
    clip.vision_model.embeddings.patch_embedding = torch.nn.Conv2d(3, 32, 8, 8)
    clip.load_state_dict({k: v for k, v in model.state_dict().items() if k.startswith("vis")}, strict=True)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(model.encode_image(pixels), clip(pixel_values=pixels).image_embeds, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("vision", [{"post_layernorm": True}, {"use_rms_norm": True}, {"v_bias": False}])
def test_flags_of_the_published_config_are_heeded(tmp_path, vision):
    plain, other = load_evaclip(eva_folder(tmp_path / "a")), load_evaclip(eva_folder(tmp_path / "b", **vision))
    other.load_state_dict({k: v for k, v in plain.state_dict().items() if k in other.state_dict()}, strict=True)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert (plain.encode_image(pixels) - other.encode_image(pixels)).abs().max() > 1e-4
    assert ("vision_model.encoder.layers.0.self_attn.v_proj.bias" in other.state_dict()) == ("v_bias" not in vision)


def test_a_folder_of_eva_clip_8b_is_one_entry_in_a_profile(tmp_path):
    encoder = load_encoder("eva_clip", model="EVA-CLIP-8B", pretrained=str(eva_folder(tmp_path / "eva")))
    assert encoder.dimensions == 24
    together = encoder.encode_clips(clips())
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together, np.concatenate([encoder.encode_clips([clip]) for clip in clips()]), atol=2e-5)
    alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), alone, atol=2e-5)


def test_a_checkpoint_of_another_architecture_is_named(tmp_path):
    folder = eva_folder(tmp_path / "eva")
    state = load_file(folder / "model-0.safetensors")
    name = sorted(state)[0]
    save_file({k: v for k, v in state.items() if k != name}, folder / "model-0.safetensors")
    with pytest.raises(ExpStarError, match=f"{name} is nothing, expected"):
        load_evaclip(folder)
    with pytest.raises(ExpStarError, match="no EVA-CLIP checkpoint there"):
        load_evaclip(tmp_path)
    with pytest.raises(ExpStarError, match="EVA-CLIP with use_rope is not known"):
        EvaClip(SMALL_EVA | {"vision_config": SMALL_EVA["vision_config"] | {"use_rope": True}})


# Names

@pytest.mark.parametrize(("name", "options", "said"), [
    ("clap", {}, "retriever 'clap' is not known"), ("text", {"modell": "x"}, "retriever 'text': .*modell"),
    ("clip", {"model": "ViT-none"}, "cannot be had"),
    ("clip", {"model": "small-clip", "pretrained": "/no/such/file.pt"}, "cannot be had")])
def test_what_cannot_be_had_is_named(name, options, said):
    with pytest.raises(ExpStarError, match=said):
        load_encoder(name, **options)


def test_a_text_encoder_refuses_clips():
    with pytest.raises(ExpStarError, match="encodes texts alone"):
        made("text").encode_clips(clips())
