"""Styles, LoRAs, schedulers and ControlNets: whether the daemon has them, and whether they fit the job."""

from collections.abc import Collection, Iterator

from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.jobs.families import Family
from qwen_image_daemon.jobs.job_settings import Settings
from qwen_image_daemon.jobs.problems import Fault
from qwen_image_daemon.jobs.quoting import quoted
from qwen_image_daemon.jobs.styles import similar_name


def style_is_known(settings: Settings, catalogue: Catalogue) -> Iterator[Fault]:
    """Refuse a style that neither we nor the daemon's settings have."""
    style = settings.get("style")
    if style is not None and style not in catalogue.styles:
        similar = similar_name(style, catalogue.styles)
        names = ", ".join(quoted(name) for name in sorted(catalogue.styles))
        yield Fault(
            ("style",),
            f"{quoted(style)} is none of this daemon's styles.",
            f"{f'Did you mean {quoted(similar)}? ' if similar else ''}The styles are: {names}.",
        )


def a_style_has_words_to_stand_by(settings: Settings) -> Iterator[Fault]:
    """Refuse a style where the model writes the prompt itself."""
    styled = settings.task == "layered" and settings.get("style") is not None
    if styled and not settings.get("prompt") and ("prompt",) not in settings.refused:
        yield Fault(("style",), "a style needs a prompt to stand by.", "Write a prompt, or take style out.")


def loras_do_something(settings: Settings) -> Iterator[Fault]:
    """Refuse a weight of 0, and the same LoRA twice."""
    seen: set[str] = set()
    for place, lora in enumerate(settings.loras()):
        if lora.get("weight") == 0:
            yield Fault(("loras", place, "weight"), "a weight of 0 does nothing.", "Take the LoRA out.")
        if lora["name"] in seen:
            yield Fault(
                ("loras", place),
                f"{quoted(lora['name'])} is named twice.",
                "Name it once, with the weight that is wanted in all.",
            )
        seen.add(lora["name"])


def loras_are_known(settings: Settings, catalogue: Catalogue) -> Iterator[Fault]:
    """Refuse LoRAs that neither the folder nor the settings have."""
    loras = settings.loras()
    known = catalogue.loras() if loras else {}
    for place, lora in enumerate(loras):
        name = lora["name"]
        stem = name.rpartition("/")[2].removesuffix(".safetensors")
        if name not in known and name != stem:
            what = "a LoRA is named without folder and .safetensors."
            yield Fault(
                ("loras", place), what, f"Write {quoted(stem)}, with the file in the daemon's lora_folder."
            )
        elif name not in known:
            cure = _other_names(name, known, "LoRAs", "It has none: put .safetensors files into its lora_folder.")
            yield Fault(("loras", place), f"{quoted(name)} is none of this daemon's LoRAs.", cure)


def _other_names(name: str, known: Collection[str], kind: str, none: str) -> str:
    """Name what was probably meant, and what there is."""
    if not known:
        return none
    similar = similar_name(name, known)
    hint = f"Did you mean {quoted(similar)}? " if similar is not None else ""
    shown = sorted(known)[:_SHOWN_NAMES]
    more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    return f"{hint}The {kind} are: {', '.join(map(quoted, shown))}{more}."


_SHOWN_NAMES = 30


def loras_fit_the_model(settings: Settings, family: Family, catalogue: Catalogue) -> Iterator[Fault]:
    """Refuse LoRAs that the settings say are for models of another family."""
    loras = settings.loras()
    known = catalogue.loras() if loras else {}
    for place, lora in enumerate(loras):
        entry = known.get(lora["name"])
        if entry is not None and entry.family not in {None, family.name}:
            yield Fault(
                ("loras", place),
                f"{quoted(lora['name'])} is for the family {entry.family}, and the model is of {family.name}.",
                "Take it out, or choose another model.",
            )
        elif entry is not None and entry.distilled_steps not in {None, *family.distilled}:
            yield Fault(
                ("loras", place),
                f"{quoted(lora['name'])} is distilled for {entry.distilled_steps} steps, not for {family.name}.",
                "Take it out, or choose another model.",
            )


def scheduler_settings_are_its_own(settings: Settings) -> Iterator[Fault]:
    """Refuse settings that the scheduler does not have: diffusers would pass over them."""
    given = {key: value for key, value in settings.scheduler().items() if value is not None}
    name = given.pop("name", None)
    for key in given:
        if key == "solver_order" and name != "unipc":
            yield Fault(("scheduler", key), f"it is for unipc, not for {name}.", "Take it out.")
        elif name == "lightning":
            yield Fault(
                ("scheduler", key),
                "lightning is one fixed setting.",
                'Take it out, or use "euler" with settings of your own.',
            )
    if name == "unipc" and settings.task != "text-to-image":
        yield Fault(
            ("scheduler",),
            "unipc can begin from noise only, and this job begins from a picture.",
            'Use "euler", or leave scheduler out.',
        )


def a_controlnet_fits(settings: Settings, family: Family, catalogue: Catalogue) -> Iterator[Fault]:
    """Want a ControlNet for the model and the purpose, and only one where none is named."""
    if settings.task != "controlnet" or ("controlnet",) in settings.refused:
        return
    masked = bool(settings.get("mask")) or ("mask",) in settings.refused
    fitting = catalogue.controlnets_for(family, "inpaint" if masked else "union")
    purpose = "redrawing what is masked" if masked else "control pictures without a mask"
    names = ", ".join(map(quoted, fitting))
    named = settings.get("controlnet")
    if named is None and len(fitting) > 1:
        yield Fault(("controlnet",), "the daemon has several that fit.", f"Name one of them: {names}.")
    elif not fitting:
        yield Fault(
            ("controlnet",),
            f"the daemon has no ControlNet for the family {family.name} and {purpose}.",
            "Let the daemon's settings have one, as [controlnets.NAME].",
        )
    elif named is not None and named not in catalogue.controlnets:
        what = f"{quoted(named)} is none of this daemon's ControlNets."
        yield Fault(("controlnet",), what, _other_names(named, fitting, "fitting ones", ""))
    elif named is not None and named not in fitting:
        yield Fault(
            ("controlnet",),
            f"{quoted(named)} is not for the family {family.name} and {purpose}.",
            f"Use {' or '.join(map(quoted, fitting))}, or leave it out.",
        )
