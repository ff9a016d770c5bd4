"""What can be done: the kinds of work that a job may ask for."""

from typing import Literal, get_args

Task = Literal["text-to-image", "image-to-image", "inpaint", "edit", "layered", "controlnet"]
TASKS: tuple[Task, ...] = get_args(Task)
