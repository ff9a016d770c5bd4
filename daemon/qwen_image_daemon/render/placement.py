"""Where a model's weights are: the one owner of that. A plan says it, and pictures are drawn in its stages.

The host's tensors are kept: they are the checkpoint's mapped files, which take no memory that is needed elsewhere.
So nothing is ever copied back, and every arrangement can be undone, after whatever failure.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from typing import Any

import structlog
import torch
from torch import nn

from qwen_image_daemon.render import devices
from qwen_image_daemon.render.modulation_table import ModulationTable
from qwen_image_daemon.render.packed_weights import Packed
from qwen_image_daemon.render.packers import packer
from qwen_image_daemon.render.plans import Plan
from qwen_image_daemon.render.quantisers import Format, Makers, makers_at_hand
from qwen_image_daemon.render.streaming import Part, Streamed, StreamedAhead, tensors_of

log = structlog.get_logger()


class WeightPlacement:
    """Arranges one model's transformer, text encoder and VAE on a device, again and again as plans change."""

    def __init__(self, transformer: Any, text_encoder: Any, vae: Any, makers: Makers | None = None) -> None:
        """Take a model that is still in host memory. `makers` make its weights' bits; None: those at hand."""
        self.makers = makers_at_hand() if makers is None else makers
        self._transformer = transformer
        self._text_encoder = text_encoder
        self._vae = vae
        self._guests: dict[str, nn.Module] = {}
        self._modules: tuple[nn.Module, ...] = (transformer, text_encoder, vae)
        self._host = {tensor: tensor.data for module in self._modules for tensor in tensors_of(module)}
        self._rests: dict[torch.Tensor, torch.Tensor] = {}
        """Tensors that are at work only at times, with what they are otherwise."""
        self._placed: dict[torch.Tensor, torch.Tensor] = {}
        """All others, with what they are on the device."""
        self._parked: dict[torch.Tensor, torch.Tensor] = {}
        """Tensors of the transformer, with copies that were left on the device for the next arrangement."""
        self._by_turns: list[torch.Tensor] = []
        self._streams: list[Streamed] = []
        self._table: ModulationTable | None = None
        self._bring: Callable[[torch.Tensor], torch.Tensor] = devices.off
        self.plan: Plan | None = None
        self.staying = 0
        self.device = torch.device("cpu")

    def arrange(self, plan: Plan, device: torch.device, staying: int = 0) -> None:
        """Bring the model into the arrangement of the plan; so many of its blocks stay where others are streamed.

        Raises what torch raises where memory runs out.
        """
        self._take_back()
        if not plan.keeps_transformer:
            self.unpark()
        self.device = device
        # On the CPU the host's own tensors are at work.
        self._bring = devices.off if plan.on_cpu else partial(devices.onto, device)
        aside: set[torch.Tensor] = set()
        if plan.table:
            self._table = ModulationTable(self._transformer, device)
            aside = set(self._table.weights())
            self._rests |= {tensor: tensor.data for tensor in aside}
            for tensor in aside:
                self._parked.pop(tensor, None)
        if plan.encoder == "streamed":
            self._stream_encoder()
        self._arrange_transformer(plan, aside, staying)
        self.settle()
        self.plan, self.staying = plan, staying

    def undo(self) -> None:
        """Bring everything back into host memory, as it was loaded."""
        self._take_back()
        self.unpark()

    def park(self) -> int:
        """Bring all back into host memory, but leave a copy of the transformer on the device. Gives its bytes.

        The next arrangement takes it from there, or drops it.
        """
        own = dict.fromkeys(tensors_of(self._transformer))
        keeps = self.plan is not None and self.plan.keeps_transformer
        copies = {
            tensor: there
            for tensor, there in self._placed.items()
            if keeps and tensor in own and tensor in self._host and not _is_same(self._host[tensor], there)
        }
        self.undo()
        self._parked = copies
        return sum(copy.nbytes for copy in copies.values())

    def unpark(self) -> None:
        """Drop what was left on the device."""
        self._parked.clear()

    def _take_back(self) -> None:
        for stream in self._streams:
            stream.remove()
        if self._table is not None:
            self._table.remove()
        self._streams, self._table = [], None
        self._rests.clear()
        self._placed.clear()
        self._by_turns = []
        for tensor, data in self._host.items():
            tensor.data = data
        self.plan = None

    def settle(self) -> None:
        """Bring every tensor to where it belongs between two pictures. Those that were elsewhere are logged.

        What was added to the model since (a LoRA's weights) comes onto the device; what was taken off is dropped.
        """
        for stream in self._streams:
            stream.rest()
        tensors = dict.fromkeys(chain.from_iterable(map(tensors_of, (*self._modules, *self._guests.values()))))
        self._placed = {tensor: data for tensor, data in self._placed.items() if tensor in tensors}
        astray = 0
        for tensor in tensors:
            if tensor not in self._rests and tensor not in self._placed:
                parked = self._parked.pop(tensor, None)
                self._placed[tensor] = tensor.data = self._bring(tensor.data) if parked is None else parked
                continue
            expected = self._rests.get(tensor, self._placed.get(tensor))
            if expected is not None and not _is_same(tensor, expected):
                tensor.data = expected
                astray += 1
        if astray:
            log.warning("weights.put_back", tensors=astray)

    def beside_the_vae(self) -> list[torch.Tensor]:
        """Give the tensors that can go from the device while only the VAE is at work: the host has them, too."""
        vae = dict.fromkeys(tensors_of(self._vae))
        return [
            tensor
            for tensor, there in self._placed.items()
            if tensor in self._host and tensor not in vae and not _is_same(self._host[tensor], there)
        ]

    def leave_only_the_vae(self) -> None:
        """Take off the device all that can go while the VAE is at work. It comes back with the next `settle`."""
        for tensor in self.beside_the_vae():
            tensor.data = self._host[tensor]
            del self._placed[tensor]

    @contextmanager
    def vae_on_the_host(self) -> Iterator[None]:
        """Let the VAE compute on the CPU inside."""
        kept = [(tensor, tensor.data) for tensor in tensors_of(self._vae)]
        try:
            for tensor, data in kept:
                tensor.data = devices.off(data)
            yield
        finally:
            for tensor, data in kept:
                tensor.data = data

    def take_in(self, kind: str, guest: Any) -> Any:
        """Place a module that draws along (a ControlNet). The last one of its kind is let go of."""
        self.let_go(kind)
        self._guests[kind] = guest
        self._host |= {tensor: tensor.data for tensor in tensors_of(guest)}
        self.settle()
        return guest

    def let_go(self, kind: str) -> None:
        """Forget the module of a kind that draws along, so that nothing here keeps it."""
        guest = self._guests.pop(kind, None)
        for tensor in () if guest is None else tensors_of(guest):
            self._host.pop(tensor, None)
            self._placed.pop(tensor, None)

    @contextmanager
    def denoising(self, scheduler: Any) -> Iterator[None]:
        """Have the transformer ready inside. By turns it comes with its first forward: the VAE encodes before."""
        waiting = [*self._by_turns]

        def bring(*_: object) -> None:
            while waiting:
                tensor = waiting.pop()
                tensor.data = devices.onto(self.device, self._rests[tensor])

        with ExitStack() as stack:
            if self._table is not None:
                stack.enter_context(self._table.schedule(scheduler))
            stack.callback(self._lay_down)
            stack.enter_context(self._transformer.register_forward_pre_hook(bring))
            yield

    def _lay_down(self) -> None:
        for tensor in self._by_turns:
            tensor.data = self._rests[tensor]
        for stream in self._streams:
            stream.rest()

    def _stream_encoder(self) -> None:
        """Stream the encoder by its layers; what is around them comes for the whole of its forward."""
        layers = _repeated(self._text_encoder)
        in_layers = set(chain.from_iterable(map(tensors_of, layers)))
        around = [tensor for tensor in tensors_of(self._text_encoder) if tensor not in in_layers]
        self._stream([Part(layer, list(tensors_of(layer))) for layer in layers])
        self._stream([Part(self._text_encoder, around)])

    def _arrange_transformer(self, plan: Plan, aside: set[torch.Tensor], staying: int) -> None:
        transformer = self._transformer
        blocks = [
            Part(block, [tensor for tensor in tensors_of(block) if tensor not in aside])
            for block in transformer.transformer_blocks
        ]
        match plan.transformer:
            case "resident":
                if plan.kept != "as loaded":
                    self._pack(blocks, plan.kept)
            case "by turns":
                self._by_turns = [tensor for tensor in tensors_of(transformer) if tensor not in aside]
                self._rests |= {tensor: tensor.data for tensor in self._by_turns}
            case "blocks streamed":
                streamed = _spread(blocks, len(blocks) - staying)
                self._keep([tensor for part in streamed for tensor in part.tensors])
                self._streams.append(StreamedAhead(streamed, self.device))
            case "leaves streamed":
                leaves = [
                    Part(module, [tensor for tensor in _own_tensors(module) if tensor not in aside])
                    for part in _spread(blocks, len(blocks) - staying)
                    for module in part.module.modules()
                ]
                self._stream([leaf for leaf in leaves if leaf.tensors])

    def _stream(self, parts: list[Part]) -> None:
        self._rests |= {tensor: tensor.data for part in parts for tensor in part.tensors}
        self._streams.append(Streamed(parts, partial(devices.onto, self.device)))

    def _keep(self, tensors: list[torch.Tensor]) -> None:
        """Let tensors rest in host memory that the card can read by itself, three times as fast."""
        for tensor in tensors:
            self._rests[tensor] = tensor.data = devices.pinned_for(self.device, tensor.data)

    def _pack(self, blocks: list[Part], kept: Format) -> None:
        """Keep the blocks' matrices on the device in fewer bits. Biases and norms stay as they are."""
        parts = [
            Part(module, [module.weight])
            for block in blocks
            for module in block.module.modules()
            if isinstance(module, nn.Linear) and module.weight in set(block.tensors)
        ]
        packed = Packed(parts, packer(kept, self.makers[kept]), self.device)
        self._rests |= packed.resting
        self._streams.append(packed)


def _spread(blocks: list[Part], count: int) -> list[Part]:
    """Choose so many blocks, evenly spread: while those between them compute, the next one has time to come."""
    total = len(blocks)
    return [block for place, block in enumerate(blocks) if (place + 1) * count // total > place * count // total]


def _is_same(tensor: torch.Tensor, expected: torch.Tensor) -> bool:
    return tensor.data_ptr() == expected.data_ptr() and tensor.device == expected.device


def _own_tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def _repeated(module: nn.Module) -> list[nn.Module]:
    """Give the layers that come several times: the elements of the lists in it, not of lists within those."""
    found: list[nn.Module] = []
    for child in module.children():
        found += list(child) if isinstance(child, nn.ModuleList) else _repeated(child)
    return found
