"""timm models of every sort, cut without knowing any of them; the embedded weights; where weights come from."""

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from outdo import plugins
from outdo.backbones import _image, _weights, vision
from outdo.contracts import Origin
from outdo.errors import BackboneError, MissingExtra

# timm name -> (input size, blocks)
MODELS = {
    "tf_efficientnet_lite0": (64, 18), "efficientnet_b0": (64, 18), "mobilenetv3_small_100": (64, 13),
    "mobilenetv4_conv_small": (64, 16), "resnet18": (64, 9), "resnet50": (64, 17), "inception_v3": (96, 12),
    "convnext_atto": (64, 16), "regnetx_002": (64, 14), "vit_tiny_patch16_224": (224, 13),
    "deit_tiny_patch16_224": (224, 13), "swin_tiny_patch4_window7_224": (224, 16), "test_maxvit": (160, 5),
    "test_vit4": (160, 10),
}


def unrelated_weights(module):
    """Random, but alive: networks are initialised so that blocks start as the identity or norms do nothing."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_mean"):
                tensor.uniform_(-0.1, 0.1)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim == 1 and tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * 0.2 - 0.1)
    return module.eval()


def wrapped(module, size):
    preprocessing = {"kind": "image", "size": size, "fit": "squash", "store": None, "mean": [0.5] * 3,
                     "std": [0.5] * 3, "interpolation": "bicubic"}
    return _image.ImageBackbone("under test", module, Origin("here", "0" * 64, None), preprocessing)


@pytest.mark.parametrize("name", MODELS)
def test_any_network_is_cut_into_its_blocks(name):
    size, depth = MODELS[name]
    module = unrelated_weights(timm.create_model(name, num_classes=7))
    backbone = wrapped(module, size)
    assert backbone.depth == depth
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = module.forward_head(module.forward_features(x), pre_logits=True)
        for cut in (1, depth // 2, depth - 1):
            middle = backbone.run({"x": x}, 0, cut)
            kept = middle["x"].clone()
            found = backbone.pool(backbone.run(middle, cut, depth))
            torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max()))
            assert torch.equal(kept, middle["x"])
    assert sum(len(backbone.block_parameters(i)) for i in range(depth)) == len(list(module.parameters())) - 2


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224", "deit_tiny_patch16_224"])
def test_feature_sets_of_every_layout(name):
    """Channels first, channels last and tokens: the same three sets, computed from means over places."""
    size = MODELS[name][0]
    module = unrelated_weights(timm.create_model(name, num_classes=7))
    backbone = wrapped(module, size)
    rows = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    sets = backbone.features(rows)
    widths = {"resnet18": (128, 256, 512), "convnext_atto": (80, 160, 320),
              "swin_tiny_patch4_window7_224": (192, 384, 768), "deit_tiny_patch16_224": (192, 192, 192)}[name]
    assert backbone.feature_sets == {"last": widths[-1], "pools": sum(widths), "classes": 7}
    with torch.no_grad():
        logits = module(backbone.prepare(rows)["x"])
    torch.testing.assert_close(sets["classes"] ** 2, logits.softmax(1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close((sets["classes"] ** 2).sum(1), torch.ones(2))


@pytest.mark.parametrize(("name", "size"), [("dpn48b", 64), ("levit_128s", 224)])
def test_classifiers_of_other_sorts(name, size):
    """A convolution, and two linear ones whose answers are averaged."""
    module = unrelated_weights(timm.create_model(name, num_classes=7))
    backbone = wrapped(module, size)
    rows = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = module(backbone.prepare(rows)["x"]).softmax(1)
    torch.testing.assert_close(backbone.features(rows)["classes"] ** 2, expected, rtol=1e-2, atol=1e-3)
    heads = module.get_classifier()
    owned = {id(p) for block in range(backbone.depth) for p in backbone.block_parameters(block)}
    assert not owned & {id(p) for head in (heads if isinstance(heads, tuple) else (heads,)) for p in head.parameters()}


def test_a_network_without_a_classifier_has_no_classes():
    backbone = wrapped(timm.create_model("test_resnet", num_classes=0), 64)
    assert set(backbone.feature_sets) == {"last", "pools"}


def test_a_transformer_takes_images_of_other_sizes(tmp_path):
    safetensors.torch.save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "model.safetensors")
    backbone = vision.PLUGIN.load(f"vit_tiny_patch16_224.augreg_in21k_ft_in1k@{tmp_path}")
    rows = np.random.default_rng(0).integers(0, 256, (2, 160, 160, 3), dtype=np.uint8)
    assert backbone.features(rows, 96)["last"].shape == backbone.features(rows)["last"].shape == (2, 192)


def test_images_are_normalised_as_the_weights_want_them():
    backbone = wrapped(timm.create_model("test_resnet", num_classes=7), 32)
    backbone._preprocessing |= {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 0.2]}
    rows = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    expected = (torch.tensor(rows) / 255 - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.5, 0.25, 0.2])
    x = backbone.prepare(rows)["x"]
    torch.testing.assert_close(x, expected.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-5)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert backbone.prepare(rows, 48)["x"].shape == (2, 3, 48, 48)
    flat = np.full((1, 32, 32, 3), 51, np.uint8)  # 0.2, at any size
    torch.testing.assert_close(backbone.prepare(flat, 20)["x"][0, 1], torch.zeros(20, 20), rtol=0, atol=1e-6)


class NoBytes(torch.Tensor):
    """A tensor on a device that resizes no bytes, as CUDA does not."""

    device = property(lambda self: torch.device("cuda"))

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        assert function is not torch.nn.functional.interpolate or args[0].dtype.is_floating_point
        return super().__torch_function__(function, types, args, kwargs)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("darkest", "brightest", "near"), [(60, 200, 1), (0, 255, 40)])  # the CPU clamps midway
def test_bytes_are_resized_where_the_device_cannot(interpolation, darkest, brightest, near):
    noise = torch.rand((2, 3, 20, 24), generator=torch.Generator().manual_seed(0))
    rows = torch.where(noise < 0.5, darkest, brightest).to(torch.uint8)
    for size in (11, 40):
        found = _image.resize(rows.as_subclass(NoBytes), size, interpolation).as_subclass(torch.Tensor)
        assert found.dtype == torch.uint8
        assert (found.int() - _image.resize(rows, size, interpolation).int()).abs().max() <= near


def test_a_network_that_is_no_chain_is_one_block():
    """High-resolution nets run branches side by side to the end."""
    backbone = wrapped(unrelated_weights(timm.create_model("hrnet_w18_small", num_classes=7)), 64)
    assert backbone.depth == 1
    assert backbone.block_parameters(0)


def test_images_of_a_size_that_the_network_refuses():
    backbone = wrapped(timm.create_model("vit_tiny_patch16_224", num_classes=7), 224)
    rows = np.zeros((1, 224, 224, 3), np.uint8)
    with pytest.raises(BackboneError, match=r"cannot take images of 100 pixels.*--input-size 224"):
        backbone.run(backbone.prepare(rows, 100), 0, 1)


# ── the embedded weights ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def embedded():
    return plugins.load("backbones", "vision").load("efficientnet_lite0")


def test_embedded_weights_answer_as_timm_does(embedded):
    rows = np.random.default_rng(0).integers(0, 256, (2, 7, 7, 3), dtype=np.uint8).repeat(32, 1).repeat(32, 2)
    x = (torch.tensor(rows).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = embedded.torch_module(x).softmax(1)
    found = embedded.features(rows, 224)["classes"] ** 2
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)


def test_embedded_weights_know_something(embedded):
    """An orange disc on white is first of all a ping-pong ball."""
    y, x = np.mgrid[:224, :224] - 112
    disc = np.where((x**2 + y**2 < 70**2)[..., None], [255, 140, 0], [255, 255, 255]).astype(np.uint8)
    probabilities = embedded.features(disc[None])["classes"][0] ** 2
    assert probabilities.argmax() == 722
    assert probabilities[722] > 0.1


def test_embedded_weights_are_pinned(embedded):
    assert embedded.origin.sha256 == "4a1ca481e00aa9f4b1d800298a71dbaa4821768fbdb4fe10f9c731b37a34b18d"
    assert embedded.origin.licence == "apache-2.0"
    assert embedded.preprocessing()["mean"] == [0.5] * 3


def test_a_changed_weights_file_is_refused_before_it_is_opened(monkeypatch):
    monkeypatch.setattr(vision, "EMBEDDED_SHA256", "0" * 64)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(BackboneError, match="not the weights file that outdo knows"):
        vision.embedded()


def test_a_missing_package_says_what_to_install():
    with pytest.raises(MissingExtra, match=r"no-such-package.*outdo\[text\]"):
        _weights.package_folder("no_such_package", "this", "text")


# ── other weights ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small network's weights as a safetensors file in a folder."""
    folder = tmp_path_factory.mktemp("weights")
    module = timm.create_model("mobilenetv3_small_050")
    safetensors.torch.save_file(module.state_dict(), folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("inside", ["", "model.safetensors"])
def test_weights_from_a_local_file_or_folder(saved, inside):
    name = f"mobilenetv3_small_050.lamb_in1k@{saved / inside}"
    family = plugins.load("backbones", "vision")
    assert family.offers(name)
    backbone = family.load(name)
    assert backbone.name == name
    tensors = safetensors.torch.load_file(saved / "model.safetensors")
    assert all(torch.equal(tensors[key], value) for key, value in backbone.torch_module.state_dict().items())
    assert backbone.origin.weights == str(saved / inside)
    assert backbone.depends_on[0] == "mobilenetv3_small_050.lamb_in1k", "wherever the weights lie"
    assert backbone.origin.licence == "apache-2.0"
    cfg = timm.get_pretrained_cfg("mobilenetv3_small_050.lamb_in1k")
    assert backbone.preprocessing()["mean"] == list(cfg.mean)


def test_the_hash_is_of_the_tensors(saved):
    module = timm.create_model("mobilenetv3_small_050")
    first = _weights.hash_tensors(module.state_dict())
    assert first == _weights.hash_tensors(module.state_dict())
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] += 1
    assert first != _weights.hash_tensors(module.state_dict())


def test_weights_of_another_network_are_refused(saved):
    with pytest.raises(BackboneError, match="does not hold the weights of 'resnet18'"):
        vision.PLUGIN.load(f"resnet18@{saved}")


def test_pickled_weights_are_refused(tmp_path):
    torch.save({}, tmp_path / "weights.pth")
    with pytest.raises(BackboneError, match=r"not a safetensors file.*can run code"):
        vision.PLUGIN.load(f"resnet18@{tmp_path / 'weights.pth'}")


def test_missing_weights(tmp_path):
    with pytest.raises(BackboneError, match="no weights at"):
        vision.PLUGIN.load(f"resnet18@{tmp_path / 'model.safetensors'}")


def test_offline_the_hub_is_a_clear_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read when it is imported
    with pytest.raises(BackboneError, match=r"'timm/resnet18.a1_in1k'.*HF_HUB_OFFLINE.*from 'efficientnet_lite0'"):
        vision.PLUGIN.load("resnet18.a1_in1k")


def test_no_network_is_a_clear_error_within_seconds(monkeypatch):
    import huggingface_hub

    def no_route(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.create_connection", no_route)
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(BackboneError, match=r"could not give it.*Network is unreachable"):
        vision.PLUGIN.load("resnet18.a1_in1k")


def test_an_unknown_tag_names_the_nearest():
    with pytest.raises(BackboneError, match=r"unknown weights 'resnet18.a1_in2k'. Did you mean 'resnet18.a1_in1k'\?"):
        vision.PLUGIN.load("resnet18.a1_in2k")
