"""From a job's parameters and its own copies of pictures to the request for its first picture."""

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from PIL.Image import Image, Resampling

from qwen_image_daemon.jobs.families import FAMILIES, Family, FamilyName, Size
from qwen_image_daemon.jobs.resolution import EffectiveParameters
from qwen_image_daemon.render.differences import drawn_size
from qwen_image_daemon.render.fitting import Placement, placed, placed_mask, placed_on, shaped_like, taken_back
from qwen_image_daemon.render.masks import Untouched, mask_of_transparency, read_mask
from qwen_image_daemon.render.models import MODELS
from qwen_image_daemon.render.renderer import Control, RenderRequest, RequestRefused
from qwen_image_daemon.render.sources import on_white, read_picture

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job's first picture as a request; what of its source is to be in the results; and what was done to it."""

    request: RenderRequest
    untouched: Untouched | None = None
    notes: tuple[str, ...] = ()
    back: Placement | None = None
    """How the picture that decides the size came to lie on what is drawn, where that is to be taken back."""

    def finished(self, drawn: Image) -> Image:
        """Give a drawn picture as the job wants it."""
        there = drawn if self.back is None else taken_back(drawn, self.back)
        return there if self.untouched is None else self.untouched.put_into(there)


def prepared(parameters: EffectiveParameters, family: FamilyName, path_of: Callable[[str], Path]) -> PreparedJob:
    """Read all pictures of a job, and bring them to what the request takes.

    `path_of` gives the file of a picture that the job names. Raises RequestRefused where it cannot be read any
    more, OSError where the disk is at fault.
    """
    return _Preparation(parameters, FAMILIES[family], path_of).done()


class _Preparation:
    def __init__(self, parameters: EffectiveParameters, family: Family, path_of: Callable[[str], Path]) -> None:
        self._parameters = parameters
        self._family = family
        self._path_of = path_of
        self._size = Size(parameters.width, parameters.height)
        self._notes: tuple[str, ...] = ()
        self._back: Placement | None = None

    def done(self) -> PreparedJob:
        parameters, request = self._parameters, _without_pictures(self._parameters)
        match parameters.task:
            case "text-to-image":
                return PreparedJob(request)
            case "image-to-image" | "inpaint":
                picture, mask, untouched = self._on_canvas(parameters.image)
                request = replace(request, source=picture, mask=mask)
            case "layered":
                request = replace(request, source=self._read(parameters.image).convert("RGBA"))
                untouched = None
            case "controlnet":
                picture, mask, untouched = self._on_canvas(parameters.control_image)
                request = replace(request, control=self._control(picture), mask=mask)
            case "edit" if parameters.mask is None:
                request = replace(request, references=self._references())
                untouched = None
            case "edit":
                request, untouched = self._masked_edit(request)
        return PreparedJob(request, untouched, self._notes, self._back)

    def _on_canvas(self, name: str | None) -> tuple[Image, Image | None, Untouched | None]:
        """Give the picture of that name in the result's size, with its mask, and what of it is to be kept."""
        picture = self._read(name)
        placement = placed_on(Size(*picture.size), self._size, self._parameters.fit)
        self._notes += placement.note(Path(str(name)).name)
        fitted = placed(on_white(picture), placement)
        mask = self._mask(picture)
        if mask is None:
            return fitted, None, None
        mask = placed_mask(mask, placement)
        return fitted, mask, Untouched(fitted, mask) if self._parameters.preserve_unmasked else None

    def _references(self) -> tuple[Image, ...]:
        """Give an edit's pictures at their own scale; what is to lie upon the result, in the result's shape."""
        first, *others = (self._with_alpha(self._read(name)) for name in self._parameters.images)
        if self._parameters.back_to_source:
            placement = shaped_like(Size(*first.size), self._size, "pad")
            self._take_back(placement)
            first = placed(first, placement)
        elif not others:
            placement = shaped_like(Size(*first.size), self._size, self._parameters.fit)
            self._notes += placement.note(Path(self._parameters.images[0]).name)
            first = placed(first, placement)
        return (first, *others)

    def _take_back(self, placement: Placement) -> None:
        """Bring what is drawn back to the size of the picture that is placed so; margins are cut off again."""
        self._back = placement
        if placement.source != self._size:
            back = f"brought back to its source's {placement.source}"
            self._notes += (f"the picture was drawn at {self._size} and {back}",)

    def _masked_edit(self, request: RenderRequest) -> tuple[RenderRequest, Untouched | None]:
        """Give the request with its picture and mask, in the shape that decides the size."""
        name = self._parameters.images[0]
        picture = self._read(name)
        mask, flat = self._mask(picture), on_white(picture)
        if mask is None:
            raise ValueError("a masked edit without a mask")
        mask = mask.resize(flat.size, Resampling.BILINEAR)
        whole = replace(request, references=(flat,), mask=mask)
        if self._parameters.back_to_source:
            # As it is: the pipeline brings it to its own grid, and the way back undoes just that.
            self._take_back(Placement(Size(*flat.size), Size(*flat.size), Size(*flat.size)))
            return whole, Untouched(flat, mask) if self._parameters.preserve_unmasked else None
        if drawn_size(whole, self._family) != self._size:
            placement = shaped_like(Size(*flat.size), self._size, self._parameters.fit)
            self._notes += placement.note(Path(name).name)
            whole = replace(request, references=(placed(flat, placement),), mask=placed_mask(mask, placement))
        if not self._parameters.preserve_unmasked or whole.mask is None:
            return whole, None
        result = (self._size.width, self._size.height)
        kept = whole.references[0].resize(result, Resampling.LANCZOS)
        return whole, Untouched(kept, whole.mask.resize(result, Resampling.BILINEAR))

    def _mask(self, picture: Image) -> Image | None:
        if self._parameters.mask_from_alpha:
            return mask_of_transparency(picture)
        return None if self._parameters.mask is None else self._opened(self._parameters.mask, read_mask)

    def _control(self, picture: Image) -> Control:
        name, scale = self._parameters.controlnet, self._parameters.control_scale
        start, end = self._parameters.control_start, self._parameters.control_end
        if name is None or scale is None or start is None or end is None:
            raise ValueError("a ControlNet job without its ControlNet")
        return Control(picture, name, scale, start, end)

    def _with_alpha(self, picture: Image) -> Image:
        return picture if MODELS[self._family.name].draws_alpha else on_white(picture)

    def _read(self, name: str | None) -> Image:
        if name is None:
            raise ValueError("a job without its picture")
        picture, notes = self._opened(name, read_picture)
        self._notes += notes
        return picture

    def _opened(self, name: str, read: Callable[[Path], Read]) -> Read:
        try:
            return read(self._path_of(name))
        except OSError as error:
            # Pillow's own complaints carry no number; those that do are the disk's.
            if error.errno not in {None, errno.ENOENT}:
                raise
            raise RequestRefused(
                f"The job's copy of {name} cannot be read any more: {error}.",
                "Drop the job and its picture again.",
            ) from None


def _without_pictures(parameters: EffectiveParameters) -> RenderRequest:
    return RenderRequest(
        task=parameters.task,
        prompt=parameters.prompt,
        prompt_as_written=parameters.original_prompt,
        negative_prompt=parameters.negative_prompt,
        true_cfg_scale=parameters.true_cfg_scale,
        num_inference_steps=parameters.num_inference_steps,
        width=parameters.width,
        height=parameters.height,
        seed=parameters.seed,
        strength=parameters.strength,
        layers=parameters.layers,
        resolution=parameters.resolution,
        loras=parameters.loras,
        scheduler=parameters.scheduler,
        strict=parameters.strict,
    )
