"""Counting: operations and saved bytes, against numbers computed by hand."""

import gc

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stillspeak.training.adversarial.losses import gradient_penalty
from stillspeak.training.profiling import FlopCounter, SavedActivations, _recurrent, nbytes


def test_flops_of_a_convolution_and_its_backward_pass() -> None:
    conv = nn.Conv2d(3, 5, 4, 2, 1)
    x = torch.zeros(2, 3, 8, 6)
    with FlopCounter() as forward:
        y = conv(x)
    # 4 x 3 places of output, 5 channels, each 3 x 4 x 4 products, twice; 2 pictures.
    once = 2 * (4 * 3) * 5 * (3 * 4 * 4) * 2
    assert forward.flops == once
    with FlopCounter() as backward:
        y.sum().backward()
    assert backward.flops == once  # the input wants no gradient
    x.requires_grad_()
    with FlopCounter() as both:
        conv(x).sum().backward()
    assert both.flops == 3 * once


def test_flops_of_a_transposed_and_of_a_waveform_convolution() -> None:
    with FlopCounter() as counter, torch.no_grad():
        nn.ConvTranspose2d(3, 5, 4, 2, 1)(torch.zeros(1, 3, 4, 3))
    assert counter.flops == 2 * (4 * 3) * 3 * 5 * (4 * 4)
    with FlopCounter() as counter, torch.no_grad():
        nn.Conv1d(2, 3, 4, 2, 1)(torch.zeros(5, 2, 20))
    assert counter.flops == 5 * 2 * 10 * 3 * (2 * 4)


def test_flops_of_a_recurrent_network_however_it_is_run() -> None:
    gru = nn.GRU(4, 6, 2, batch_first=True)
    matrices = 3 * 6 * (4 + 6) + 3 * 6 * (6 + 6)
    with FlopCounter() as counter, torch.no_grad():
        gru(torch.zeros(2, 7, 4))
    assert counter.flops == 2 * 2 * 7 * matrices
    weights = list(gru.parameters())
    assert _recurrent(1, torch.zeros(2, 7, 4), weights) == counter.flops
    assert _recurrent(2, torch.zeros(2, 7, 4), weights) == 2 * counter.flops


def test_a_gradient_within_a_gradient_is_counted() -> None:
    layer = nn.Linear(6, 1, bias=False)
    x = torch.zeros(3, 6, requires_grad=True)
    with FlopCounter() as counter:
        gradient_penalty(layer(x).squeeze(-1), x).backward()
    once = 2 * 3 * 6
    # The output, its gradient to the input, and of that gradient the one to the weight.
    assert counter.flops == 3 * once


def test_saved_bytes_count_a_storage_once_and_go_with_the_graph() -> None:
    weight = torch.zeros(10, 10, requires_grad=True)
    with SavedActivations([weight]) as saved:
        x = torch.zeros(5, 10).requires_grad_()
        y = x @ weight  # keeps x
        z = y.sigmoid()  # keeps z
        w = (z * z).sum() + (z * z.view(10, 5).view(5, 10)).sum()  # keep z again
    assert saved.peak == saved.live == 4 * (50 + 50)
    w.backward()
    del y, z, w
    gc.collect()
    assert saved.live == 0
    assert saved.peak == 400
    assert weight.grad is not None


def test_gradients_are_the_same_while_bytes_are_followed() -> None:
    layer = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1))
    x = torch.randn(3, 6).requires_grad_()

    def gradients() -> list[torch.Tensor]:
        layer.zero_grad()
        gradient_penalty(layer(x).squeeze(-1), x).backward()
        return [p.grad.clone() for p in layer.parameters() if p.grad is not None]

    plain = gradients()
    with SavedActivations() as saved:
        followed = gradients()
    assert saved.peak > 0
    assert all(torch.equal(a, b) for a, b in zip(plain, followed, strict=True))


def test_bytes_of_nested_tensors() -> None:
    half = torch.zeros(3, dtype=torch.float16)
    assert nbytes({"a": [half, (half,)], "b": {1: torch.zeros(2)}, "c": "text"}) == 6 + 6 + 8


def test_the_count_is_that_of_pytorch_where_that_can_count() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 4, 2))
    x = torch.zeros(2, 3, 8, 6)
    with FlopCounterMode(display=False) as theirs:
        network(x).sum().backward()
    with FlopCounter() as ours:
        network(x).sum().backward()
    assert ours.flops == theirs.get_total_flops() > 0
