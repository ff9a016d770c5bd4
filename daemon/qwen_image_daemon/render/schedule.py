"""How many of the requested denoising steps are run. Imports no torch."""

from qwen_image_daemon.render.renderer import RenderRequest


def steps_that_run(request: RenderRequest, fixed: int | None = None) -> int:
    """Give the steps that are run: all of them, or ceil(steps × strength) where a picture is redrawn.

    `fixed` is the number that the checkpoint prescribes, if any. Follows the pipelines' `get_timesteps` operation
    by operation: ceil of the product differs by one where the product is not exact (100 steps at strength 0.07 run
    7, not 8).
    """
    steps = request.num_inference_steps if fixed is None else fixed
    if request.strength is None:
        return steps
    return steps - int(max(steps - min(steps * request.strength, steps), 0))
