"""Networks whose traps are known."""

from torch import nn


class Net(nn.Module):
    """`forward_features` is the function given; it gets the network and the input."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.how = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward_features(self, x):
        return self.how(self, x)
