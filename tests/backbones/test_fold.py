"""The fast forwards against the plain one: same answers, same gradients, same names of weights."""

import copy

import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import nn
from toys import Net

from outdo.backbones import _chain, _fold, tiny_image

NETS = {"tiny": tiny_image.network, **{name: lambda name=name: timm.create_model(name, num_classes=5)
        for name in ("test_resnet", "test_efficientnet", "test_byobnet", "tf_mobilenetv3_small_minimal_100")}}


def alive(module):
    """Statistics and affine parameters that are not the identity."""
    torch.manual_seed(1)
    with torch.no_grad():
        for norm in (m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
            norm.running_mean.uniform_(-0.5, 0.5)
            norm.running_var.uniform_(0.5, 2)
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.5, 0.5)
    return module.eval()


@pytest.fixture(params=NETS)
def trace(request):
    return _chain.watch(alive(NETS[request.param]()), torch.randn(2, 3, 64, 64))


def loss(module, x):
    return _chain.forward_features(module, x).float().pow(2).mean()


def gradients(module, x):
    module.zero_grad()
    loss(module, x).backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def test_every_norm_after_a_convolution_is_found(trace):
    norms = [name for name, m in trace.module.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert {pair.norm for pair in _fold.find_pairs(trace)} == set(norms)


def test_the_frozen_copy_answers_the_same(trace):
    twin = _fold.fold_for_inference(trace.module, _fold.find_pairs(trace), "float32")
    with torch.no_grad():
        found = _chain.forward_features(twin, trace.example)
    torch.testing.assert_close(found, trace.output, rtol=1e-3, atol=1e-4)
    assert not any(p.requires_grad for p in twin.parameters())


def test_folded_norms_are_not_run_any_more(trace, monkeypatch):
    twin = _fold.fold_for_inference(trace.module, _fold.find_pairs(trace), "float32")
    monkeypatch.setattr(torch.nn.functional, "batch_norm", lambda *_, **__: pytest.fail("batch norm was run"))
    with torch.no_grad():
        _chain.forward_features(twin, trace.example)
        with _fold.folding(trace.module, _fold.find_pairs(trace)):
            _chain.forward_features(trace.module, trace.example)


@pytest.mark.parametrize(("precision", "least"), [("float32", 0.99999), ("bfloat16", 0.9)])
def test_gradients_are_those_of_the_plain_forward(trace, precision, least):
    expected = gradients(trace.module, trace.example)
    with _fold.training(trace.module, _fold.find_pairs(trace), precision):
        found = gradients(trace.module, trace.example)
    assert set(found) == set(expected)
    for name in expected:
        likeness = torch.cosine_similarity(found[name].flatten(), expected[name].flatten(), dim=0)
        assert likeness > least or expected[name].norm() < 1e-6, name
        assert found[name].dtype == torch.float32
    whole = [torch.cat([g[name].flatten() for name in expected]) for g in (found, expected)]
    assert torch.cosine_similarity(*whole, dim=0) > 0.99
    assert 0.9 < whole[0].norm() / whole[1].norm() < 1.1


def test_training_leaves_module_names_and_statistics_as_they_were(trace):
    before = copy.deepcopy(trace.module.state_dict())
    kinds = {name: type(m) for name, m in trace.module.named_modules()}
    with _fold.training(trace.module, _fold.find_pairs(trace), "float32"):
        loss(trace.module, trace.example).backward()
    assert list(before) == list(trace.module.state_dict())
    assert all(torch.equal(before[key], value) for key, value in trace.module.state_dict().items())
    assert kinds == {name: type(m) for name, m in trace.module.named_modules()}
    assert not any("forward" in m.__dict__ for m in trace.module.modules()), "the class's own forward is back"


def test_one_step_of_training_gives_the_same_weights(trace):
    plain, fast = copy.deepcopy(trace.module), trace.module
    for module, fold in ((plain, []), (fast, _fold.find_pairs(trace))):
        optimiser = torch.optim.SGD(module.parameters(), 0.01)
        for _ in range(2):
            optimiser.zero_grad()
            with _fold.folding(module, fold):
                loss(module, trace.example).backward()
            optimiser.step()
    for (name, expected), found in zip(plain.state_dict().items(), fast.state_dict().values(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4, msg=name)


def test_the_convolutions_own_forward_runs():
    """TensorFlow pads one side more than the other when it strides; that is in Conv2dSame's forward."""
    module = alive(Net(lambda net, x: net.norm(net.conv(x)), conv=Conv2dSame(3, 4, 3, stride=2, bias=False),
                       norm=nn.BatchNorm2d(4)))
    trace = _chain.watch(module, torch.randn(1, 3, 8, 8))
    pairs = _fold.find_pairs(trace)
    assert pairs == [_fold.Pair("conv", "norm")]
    twin = _fold.fold_for_inference(module, pairs, "float32")
    with torch.no_grad():
        torch.testing.assert_close(_chain.forward_features(twin, trace.example), trace.output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normed", [True, False])
def test_thin_strided_convolutions_of_the_image(normed):
    """torch's own backward of these corrupts memory in channels-last order, so that only NCHW can be compared with."""
    norm = nn.BatchNorm2d(8) if normed else nn.ReLU()
    module = alive(Net(lambda net, x: net.norm(net.conv(x)), conv=nn.Conv2d(3, 8, 1, 2), norm=norm))
    trace = _chain.watch(module, torch.randn(2, 3, 15, 16))
    expected = gradients(module, trace.example)
    with _fold.training(module, _fold.find_pairs(trace), "float32"):
        assert module.conv.forward.__qualname__.startswith("conv_forward")
        found = gradients(module, trace.example)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)
    assert not _fold.is_thin(nn.Conv2d(64, 8, 1, 2))
    assert not _fold.is_thin(nn.Conv2d(3, 8, 3, 2))


def test_a_convolution_that_something_else_reads_is_left_alone():
    module = alive(Net(lambda net, x: net.norm(y := net.conv(x)) + net.other(y), conv=nn.Conv2d(3, 4, 3),
                       norm=nn.BatchNorm2d(4), other=nn.ReLU()))
    assert _fold.find_pairs(_chain.watch(module, torch.randn(1, 3, 8, 8))) == []
    body = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))
    both = Net(lambda net, x: net.rest.forward_features(net.body(x)), rest=module, body=alive(body))
    found = _fold.find_pairs(_chain.watch(both, torch.randn(1, 3, 8, 8)))
    assert found == [_fold.Pair("body.0", "body.1")], "the others fold all the same"


def test_reading_that_no_hook_sees_is_found_by_the_numbers():
    module = alive(Net(lambda net, x: net.norm(y := net.conv(x)) + y, conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)))
    assert _fold.find_pairs(_chain.watch(module, torch.randn(1, 3, 8, 8))) == []


def test_a_convolution_used_twice_is_left_alone():
    module = alive(Net(lambda net, x: net.norm(net.conv(net.conv(x))), conv=nn.Conv2d(3, 3, 3),
                       norm=nn.BatchNorm2d(3)))
    assert _fold.find_pairs(_chain.watch(module, torch.randn(1, 3, 8, 8))) == []


def test_the_follower_makes_a_new_copy_only_after_a_change():
    made = []
    module = nn.Linear(2, 2)
    follower = _fold.Follower(module, lambda precision: made.append(precision) or len(made))
    assert [follower("float32"), follower("float32")] == [1, 1]
    assert follower("bfloat16") == 2
    torch.optim.SGD(module.parameters(), 1.0)
    with torch.no_grad():
        module.weight.add_(1)
    assert [follower("bfloat16"), follower("bfloat16")] == [3, 3]
    module.weight.data.mul_(2)
    assert follower("bfloat16") == 4
    module.load_state_dict({k: v.clone() for k, v in module.state_dict().items()}, assign=True)
    assert follower("bfloat16") == 5


def test_a_copied_follower_carries_no_fast_copy():
    follower = _fold.Follower(nn.Linear(2, 2), lambda precision: precision)
    follower("float32")
    assert copy.deepcopy(follower)._runner is None
