"""Who takes part in `bench_peers.py`: the peers, ours with their weights, and what bounds both."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unetpp.models.interop import load_peer
from unetpp.models.unetpp import UNetPlusPlus

PEERS = ("resnet18", "resnet34", "resnet50", "mobilenetv3_small_050", "monai", "nested_unet")
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
# Largest difference of the logits, as a share of the largest of the peer's.
_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One line of the table.

    Attributes:
        peer: one of `PEERS`; those without a library in the name are smp's UnetPlusPlus.
        size: of the square image, pixels.
        dtype: "fp32", or "bf16" for autocast.
        layout: "contiguous" or "channels_last", of image and weights.
        compiled: whether torch.compile is applied to both sides.
        task: "train" (forward, BCE, backward, SGD with momentum) or "inference".
    """

    peer: str
    size: int
    dtype: str
    layout: str
    compiled: bool
    task: str

    @property
    def memory_format(self) -> torch.memory_format:
        """Torch's name of the layout."""
        return torch.channels_last if self.layout == "channels_last" else torch.contiguous_format


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A peer and our network with its weights, whose logits are equal, and one batch."""

    peer: nn.Module
    ours: UNetPlusPlus
    image: Tensor
    target: Tensor


def build_pair(setting: Setting, *, batch: int, device: str) -> Pair:
    """Both networks of a setting, with the same weights."""
    torch.manual_seed(0)
    if setting.peer == "monai":
        from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus

        peer: nn.Module = BasicUNetPlusPlus(2, 3, 1)
        ours = load_peer(peer.state_dict(), architecture="monai_basicunetplusplus")
    elif setting.peer == "nested_unet":
        recipe = Path(__file__).parent.parent / "tests" / "nested_unet.py"
        peer = runpy.run_path(str(recipe))["NestedUNet"](1)
        ours = load_peer(peer.state_dict(), architecture="nested_unet")
    else:
        from segmentation_models_pytorch import UnetPlusPlus

        timm_only = setting.peer.startswith("mobilenet")
        name = f"tu-{setting.peer}" if timm_only else setting.peer
        peer = UnetPlusPlus(name, encoder_weights=None)
        ours = load_peer(peer.state_dict(), architecture="smp_unetplusplus", encoder=name)
    image = torch.randn(batch, 3, setting.size, setting.size)
    layout = setting.memory_format
    return Pair(
        peer=peer.to(device, memory_format=layout),  # pyright: ignore[reportCallIssue]
        ours=ours.to(device, memory_format=layout),  # pyright: ignore[reportCallIssue]
        image=image.to(device).contiguous(memory_format=layout),
        target=(torch.rand(batch, 1, setting.size, setting.size) > 0.5).float().to(device),
    )


def check_logits(pair: Pair, setting: Setting) -> None:
    """Stops unless both give the same logits in fp32, up to rounding."""
    pair.peer.eval()
    pair.ours.eval()
    with torch.inference_mode():
        expected, found = logits_of(pair.peer(pair.image)), pair.ours(pair.image)
    worst = ((found - expected).abs().max() / expected.abs().max()).item()
    assert worst < _TOLERANCE, f"{setting}: logits differ by {worst:.1e} of their largest"


def logits_of(output: Tensor | Sequence[Tensor]) -> Tensor:
    """MONAI answers with a list, whose last entry is the deepest head."""
    return output if isinstance(output, Tensor) else output[-1]


def step(
    network: Callable[[Tensor], Tensor], owner: nn.Module, pair: Pair, setting: Setting
) -> Callable[[], None]:
    """What is timed: one inference, or one training step.

    Args:
        network: what is called, `owner` itself or its compiled form.
        owner: of the parameters.
        pair: image and target.
        setting: task and precision.
    """
    owner.train(setting.task == "train")
    if setting.task == "inference":

        def infer() -> None:
            with torch.inference_mode(), autocast(setting, pair.image):
                network(pair.image)

        return infer
    optimizer = torch.optim.SGD(owner.parameters(), lr=1e-3, momentum=0.9)

    def train() -> None:
        optimizer.zero_grad()
        loss_of(network, pair, setting).backward()
        optimizer.step()

    return train


def loss_of(network: Callable[[Tensor], Tensor], pair: Pair, setting: Setting) -> Tensor:
    """BCE of the logits."""
    with autocast(setting, pair.image):
        logits = logits_of(network(pair.image))
    return F.binary_cross_entropy_with_logits(logits.float(), pair.target)


def autocast(setting: Setting, image: Tensor) -> torch.autocast:
    """Autocast to bf16, or none."""
    return torch.autocast(image.device.type, torch.bfloat16, enabled=setting.dtype == "bf16")


def convolutions_alone(pair: Pair, setting: Setting) -> Callable[[], None]:
    """The floor: every convolution of the peer on its own input, nothing between them.

    In training, forward and backward for input and weight; the image needs no gradient.
    """
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0].detach().requires_grad_(inputs[0].requires_grad)
        calls.append((module, x, torch.ones_like(output)))

    pair.peer.train(setting.task == "train")
    hooks = [
        m.register_forward_hook(note) for m in pair.peer.modules() if isinstance(m, _CONVOLUTIONS)
    ]
    with torch.set_grad_enabled(setting.task == "train"), autocast(setting, pair.image):
        pair.peer(pair.image)
    for hook in hooks:
        hook.remove()

    def infer() -> None:
        with torch.inference_mode(), autocast(setting, pair.image):
            for module, x, _ in calls:
                module(x)

    def train() -> None:
        for module, x, grad in calls:
            with autocast(setting, pair.image):
                y = module(x)
            wanted = [*([x] if x.requires_grad else []), *module.parameters()]
            torch.autograd.grad(y, wanted, grad)

    return infer if setting.task == "inference" else train


def activation_bytes(network: nn.Module, pair: Pair, setting: Setting) -> int:
    """Bytes that autograd keeps between forward and backward; weights and their casts excluded."""
    shapes = {p.shape for p in network.parameters()}
    own = {t.data_ptr() for t in [*network.parameters(), *network.buffers()]}
    with _kept_tensors() as kept:
        loss = loss_of(network.train(), pair, setting)
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in kept
        if t.data_ptr() not in own and t.shape not in shapes
    }
    del loss
    return sum(storages.values())


@contextmanager
def _kept_tensors() -> Iterator[list[Tensor]]:
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)  # alive, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept
