"""What a job's settings must be to its task and to each other, as far as a JSON Schema can say it.

For the reader jobs/inference.py, jobs/foreign.py and jobs/rules.py say it, the last of them more. Tests want them
to agree.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Final

from qwen_image_daemon.jobs.families import FAMILIES
from qwen_image_daemon.jobs.foreign import foreign
from qwen_image_daemon.jobs.inference import task_of
from qwen_image_daemon.jobs.models import MODELS, SchedulerUse
from qwen_image_daemon.jobs.recipes import OF_CONTROLNETS
from qwen_image_daemon.jobs.schema_settings import NULL, UNOFFERED, Schema, refusal, settings_by_task, widest
from qwen_image_daemon.jobs.tasks import TASKS, Task

TELLING: Final = tuple(
    frozenset(keys)
    for keys in (
        ("control_image",),
        ("layers",),
        ("resolution", "image"),
        ("images",),
        ("mask",),
        ("image", "strength"),
        ("image",),
    )
)
"""What tells the task where it is left out, the first that applies; jobs/inference.py knows which task."""

SIZES: Final = ("aspect_ratio", "width", "height", "size")
"""Settings that each ask for a size."""


def when(condition: Schema, then: Schema, otherwise: Schema | None = None) -> Schema:
    """Give a schema that holds `then` against a document which fulfils the condition."""
    return {"if": condition, "then": then, **({} if otherwise is None else {"else": otherwise})}


def given(*keys: str) -> Schema:
    """Be fulfilled where all of these settings are given. JSON's null says the same as leaving one out."""
    return {"required": list(keys), "properties": {key: {"not": {"type": NULL}, **UNOFFERED} for key in keys}}


def either(*keys: str) -> Schema:
    """Be fulfilled where one of these settings is given."""
    return {"anyOf": [given(key) for key in keys]}


def has(key: str, value: Any) -> Schema:
    """Be fulfilled where a setting has this value."""
    return {"required": [key], "properties": {key: {"const": value, **UNOFFERED}}}


def without(why: str, *keys: str) -> Schema:
    """Refuse settings for a reason."""
    return {"properties": dict.fromkeys(keys, nothing(why))}


def nothing(why: str) -> Schema:
    """Refuse every value but null, for a reason."""
    return {"not": {"description": why, "not": {"type": NULL}}, "errorMessage": why, **UNOFFERED}


def by_task_of_a_job() -> Schema:
    """Refer to the rules of a job's task, stated or told by the settings."""
    return _by_task(_told(frozenset()))


def by_task_of_a_recipe() -> Schema:
    """Refer to the rules of a recipe's task; the picture that is dropped is there without being named."""
    controls = {"anyOf": [{"required": [key]} for key in OF_CONTROLNETS]}
    return _by_task(when(controls, _reference({"controlnet"}), _told(_DROPPED)))


def _by_task(told: Schema) -> Schema:
    stated = {"allOf": [when(has("task", task), _reference({task})) for task in TASKS]}
    return when({"required": ["task"]}, stated, told)


def _told(there: frozenset[str]) -> Schema:
    """Go through the settings that tell the task. `there` are those that need no writing."""
    told = _reference(_told_by(there))
    for keys in reversed(TELLING):
        further, rules = sorted(keys - there), _reference(_told_by(keys | there))
        told = when(given(*further), rules, told) if further else rules
    return told


def definitions_of_jobs() -> dict[str, Schema]:
    """Give the rules that `by_task_of_a_job` refers to."""
    return _definitions(frozenset(), frozenset())


def definitions_of_recipes() -> dict[str, Schema]:
    """Give the rules that `by_task_of_a_recipe` refers to."""
    return _definitions(_DROPPED, frozenset({"image", "control_image"}))


_DROPPED: Final = frozenset({"image"})
"""What a recipe's picture is to its jobs, where they are not for a ControlNet."""


def _definitions(there: frozenset[str], named: frozenset[str]) -> dict[str, Schema]:
    """Give the rules of each task, and of what settings may mean beside those that are there.

    `named` are settings that a file need not have.
    """
    told = (_told_by(keys | there) for keys in (frozenset[str](), *TELLING))
    sets = dict.fromkeys([*(frozenset({task}) for task in TASKS), *told])
    return {_name_of(tasks): _rules(tasks, named) for tasks in sets}


def _told_by(keys: frozenset[str]) -> frozenset[Task]:
    """Give what these settings mean to one family or another."""
    return frozenset(task_of(keys, family) for family in FAMILIES.values())


def _reference(tasks: Collection[Task]) -> Schema:
    return {"$ref": f"#/definitions/{_name_of(tasks)}"}


def _name_of(tasks: Collection[Task]) -> str:
    return f"for-{'-or-'.join(task for task in TASKS if task in tasks)}"


def _rules(tasks: frozenset[Task], named: frozenset[str]) -> Schema:
    """Say which settings some task needs, refuses, or has otherwise; of several tasks, what holds for all."""
    properties: dict[str, Schema] = {}
    for name, schemas in settings_by_task().items():
        if not any(task in schemas for task in tasks):
            properties[name] = _refused(name, tasks, schemas)
        elif len(tasks) == 1 and (own := schemas[next(iter(tasks))]) != widest(schemas):
            properties[name] = own
    if "text-to-image" not in tasks:
        properties["scheduler"] = _NO_UNIPC
    needed = frozenset.intersection(*(_required(task) for task in tasks)) - named - _SAID_ELSEWHERE
    further = [rule for rule in _FURTHER.get(tasks, ()) if rule not in _OF_PICTURES or "image" not in named]
    return {
        "properties": properties,
        **({"required": sorted(needed)} if needed else {}),
        **({"allOf": further} if further else {}),
    }


def _refused(name: str, tasks: Collection[Task], owners: Collection[Task]) -> Schema:
    said = {foreign(name, task) for task in tasks}
    sentences = said.pop()
    if said or sentences is None:
        return refusal(f"It is for {', '.join(owners)} jobs.")
    what, cure = sentences
    return refusal(f"{what[0].upper()}{what[1:]} {cure}")


def _required(task: Task) -> frozenset[str]:
    return frozenset(name for name, field in MODELS[task].model_fields.items() if field.is_required())


_SAID_ELSEWHERE: Final = frozenset({"prompt"})
"""Where a prompt may come from depends on the file: see `PROMPTED_JOB`."""
_NO_UNIPC: Final[Schema] = {
    "not": {
        "anyOf": [{"const": "unipc"}, {"type": "object", **has("name", "unipc")}],
        "description": "unipc can begin from noise only.",
    },
    "errorMessage": "unipc can begin from noise only, and this job begins from a picture.",
    **UNOFFERED,
}
_MASK_TO_GIVE_UP: Final = when(has("preserve_unmasked", value=False), given("mask"))
_MASKED_EDIT: Final = when(
    given("mask"),
    {
        "properties": {
            **without("An edit with a mask has the picture's own shape.", *SIZES)["properties"],
            "images": {"maxItems": 1, "errorMessage": "With several pictures there can be no mask.", **UNOFFERED},
        }
    },
)
_PICTURE_TO_EDIT: Final = when({"not": given("images")}, given("image"))
_OF_PICTURES: Final = (_PICTURE_TO_EDIT,)
_FURTHER: Final[Mapping[frozenset[Task], tuple[Schema, ...]]] = MappingProxyType(
    {
        frozenset({"edit"}): (_PICTURE_TO_EDIT, _MASK_TO_GIVE_UP, _MASKED_EDIT),
        # What a mask alone may mean.
        frozenset({"inpaint", "edit"}): (_PICTURE_TO_EDIT,),
        frozenset({"controlnet"}): (_MASK_TO_GIVE_UP,),
        frozenset({"layered"}): (when(given("style"), given("prompt")),),
    }
)
"""What is to be said of some tasks besides; the first of it only where a job names its own picture."""

PROMPTED_JOB: Final = when(
    {"anyOf": [has("task", "layered"), {"not": {"required": ["task"]}, **either("layers", "image")}]},
    {},
    {"required": ["prompt"]},
)
"""Jobs need a prompt, but for layered ones, which layers or a picture alone may mean."""
PROMPTED_RECIPE: Final = when(
    {
        "anyOf": [
            {"required": ["task"], "not": has("task", "layered")},
            {
                "not": {"anyOf": [{"required": ["task"]}, either("layers", "resolution")]},
                **either("mask", "strength"),
            },
        ]
    },
    {"required": ["prompt"]},
)
"""Recipes need one too, but there a picture alone is not told by any setting."""

TOGETHER: Final = (
    when(given("aspect_ratio"), without("It excludes aspect_ratio.", "width", "height")),
    when(given("size"), without("It excludes size.", "aspect_ratio", "width", "height")),
    when(given("images"), without("It excludes images.", "image")),
)
"""Settings that exclude each other wherever they come from."""

_SCHEDULER: Final = (
    when({"type": "object", **given("solver_order")}, has("name", "unipc")),
    when(
        {"type": "object", **has("name", "lightning")},
        without("lightning is one fixed setting.", *(key for key in SchedulerUse.model_fields if key != "name")),
    ),
)
VALUES: Final = (
    {
        "properties": {
            "output": when(given("quality"), has("format", "jpeg")),
            "scheduler": {"allOf": [*_SCHEDULER]},
        }
    },
    when(given("width"), given("height")),
    when(given("height"), given("width")),
    when(has("fit", "scale"), without('It excludes fit = "scale".', *SIZES)),
    when(
        {"not": has("strict", value=False), **has("true_cfg_scale", 1)},
        {
            "properties": {
                "negative_prompt": {
                    "pattern": r"^\s*$",
                    "errorMessage": "It has no effect where true_cfg_scale is 1.0.",
                    **UNOFFERED,
                }
            }
        },
    ),
)
"""What settings must be to each other in one job whose settings are all in one place."""
