"""Finding a backbone by name, across families."""

import pytest

from outdo import backbones
from outdo.errors import BackboneError


@pytest.mark.parametrize(("said", "meant"), [
    ("resnet5", "resnet50"), ("inceptionv3", "inception_v3"), ("efficientnet_lite", "efficientnet_lite0"),
    ("resnet50.a1_in1", "resnet50.a1_in1k"), ("all-minilm-l6", "all-MiniLM-L6-v2"), ("tinyimage", "tiny-image"),
])
def test_the_nearest_name_of_any_family(said, meant):
    with pytest.raises(BackboneError, match=f"'{said}'. Did you mean '{meant}'"):
        backbones.load(said)


def test_only_names_of_the_kind_that_is_wanted():
    with pytest.raises(BackboneError, match="Valid: BAAI") as raised:
        backbones.load("inceptionv3", "text")
    assert "inception_v3" not in str(raised.value)


@pytest.mark.parametrize("name", ["resnet50.a1_in1k", "resnet50", "timm/resnet50.a1_in1k", "inception_v3.tv_in1k",
                                  "hf-hub:timm/resnet50.a1_in1k", "resnet50@/some/where.safetensors"])
def test_timms_own_names_are_offered(name):
    assert backbones.family(name).kind == "image"


@pytest.mark.parametrize("name", ["answerdotai/ModernBERT-base", "sentence-transformers/all-MiniLM-L12-v2"])
def test_the_hubs_encoders_are_offered(name):
    assert backbones.family(name).kind == "text"


@pytest.mark.parametrize(("kind", "name"), [("image", "efficientnet_lite0"), ("text", "all-MiniLM-L6-v2")])
def test_what_is_started_from_when_nothing_is_said(kind, name):
    backbone = backbones.load(None, kind)
    assert (backbone.name, backbone.kind) == (name, kind)
