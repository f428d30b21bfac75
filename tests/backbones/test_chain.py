"""Cutting toy networks whose traps are known."""

import torch
from torch import nn
from toys import Net

from outdo.backbones import _chain


class Residual(nn.Module):
    """Two kernels and a shortcut, added in place or not: the inside must not be taken for a chain."""

    def __init__(self, in_place):
        super().__init__()
        self.one, self.act, self.two, self.last = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(inplace=True)
        self.in_place = in_place

    def forward(self, x):
        y = self.two(self.act(self.one(x)))
        if self.in_place:
            y += x
        else:
            y = y + x
        return self.last(y)


def blocks(module, x=None):
    return [block.modules for block in _chain.cut(_chain.watch(module, torch.randn(2, 4) if x is None else x)).blocks]


def test_a_stack_of_residual_blocks():
    for in_place in (True, False):
        body = nn.Sequential(*(Residual(in_place) for _ in range(3)))
        assert blocks(Net(lambda net, x: net.body(x), body=body)) == [("body.0",), ("body.1",), ("body.2",)]


def test_an_addition_in_place_ends_the_chain_inside_a_block():
    """`y += x` leaves the tensor object the same: only its version tells that y is not what b gave."""
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.last = Residual(False), Residual(False), nn.ReLU()

        def forward(self, x):
            y = self.b(self.a(x))
            y += x
            return self.last(y)

    body = nn.Sequential(*(Outer() for _ in range(3)))
    assert blocks(Net(lambda net, x: net.body(x), body=body)) == [("body.0",), ("body.1",), ("body.2",)]


def test_containers_inside_containers_are_opened():
    stage = [nn.Sequential(Residual(True), Residual(True)) for _ in range(2)]
    net = Net(lambda net, x: net.b(net.a(x)), a=stage[0], b=stage[1])
    assert blocks(net) == [("a.0",), ("a.1",), ("b.0",), ("b.1",)]


def test_light_modules_join_their_neighbours():
    body = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Residual(True), nn.LayerNorm(4), nn.ReLU(), Residual(True),
                         nn.LayerNorm(4))
    assert blocks(Net(lambda net, x: net.body(x), body=body)) == [
        ("body.0", "body.1"), ("body.2", "body.3", "body.4"), ("body.5", "body.6")]


def test_a_plain_stack_is_cut_at_every_kernel():
    body = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    assert blocks(Net(lambda net, x: net.body(x), body=body)) == [
        ("body.0", "body.1"), ("body.2", "body.3"), ("body.4",)]


def test_what_comes_before_the_chain_is_an_opaque_stem():
    body = nn.Sequential(*(Residual(False) for _ in range(3)))
    net = Net(lambda net, x: net.body(x * net.scale + 1), body=body)
    net.scale = nn.Parameter(torch.ones(4) * 2)
    trace = _chain.watch(net, torch.randn(2, 4))
    chain = _chain.cut(trace)
    assert [block.modules for block in chain.blocks] == [(), ("body.0",), ("body.1",), ("body.2",)]
    assert chain.blocks[0].until == "body.0"
    with torch.no_grad():
        torch.testing.assert_close(chain.run(trace.example, 0, 1), trace.example * 2 + 1)


def test_a_skip_over_blocks_keeps_the_cut_out_of_it():
    """a and b run side by side: nothing between them can be cut."""
    net = Net(lambda net, x: net.d(net.c(net.a(y := net.stem(x)) + net.b(y))), stem=Residual(True), a=Residual(True),
              b=Residual(True), c=Residual(True), d=Residual(True))
    names = blocks(net)
    assert names == [(), ("c",), ("d",)]


def test_modules_with_more_than_one_tensor_are_no_links():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x, y):
            return self.b(self.a(x)) + y

    net = Net(lambda net, x: net.two(net.one(x, x), x), one=Two(), two=Two())
    assert blocks(net) == [()]


def test_a_chain_that_does_not_reproduce_the_output_is_given_up():
    """`flip` changes what blocks do as they are called: repeated on its own, a block answers differently."""
    class Moody(Residual):
        calls = 0

        def forward(self, x):
            Moody.calls += 1
            return super().forward(x) * Moody.calls

    net = Net(lambda net, x: net.body(x), body=nn.Sequential(*(Moody(False) for _ in range(3))))
    assert blocks(net, torch.rand(2, 4) + 1) == [()]
