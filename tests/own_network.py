"""A network of the user's own, as the file that `python:tiny_net:tiny` names, and options that train it quickly."""

TINY = """
import torch.nn as nn

def tiny():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(16, 24, 3, padding=1), nn.Conv2d(24, 16, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(self.conv1(x).relu())

def residual():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), Block(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))

def wide():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12))

def number():
    return 3

def broken():
    raise ValueError('no luck')

class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3)

    def forward(self, x):
        if x.sum() > 0:
            x = -x
        return self.conv(x).mean((2, 3))

def branching():
    return Branching()

class Pooling(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)).repeat(1, 10)

def pooling():
    return Pooling()
"""
QUICK = ("--data", "digits", "--finetune-epochs", "1", "--device", "cpu", "--round-to", "2", "--threads", "1")
