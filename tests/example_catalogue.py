"""A daemon that has a model for everything: what the examples are read with."""

from qwen_image_daemon.jobs.catalogue import Catalogue, ControlNet, Lora
from qwen_image_daemon.jobs.families import FAMILIES, Family

MODELS: dict[str, Family] = {name: FAMILIES[name] for name in FAMILIES if name != "demo"}
LORAS = {"watercolour": Lora(), "faces": Lora(), "lightning": Lora("qwen-image", 8)}
CONTROLNETS = {
    "union": ControlNet("qwen-image", "union"),
    "inpainting": ControlNet("qwen-image", "inpaint"),
}
EVERYTHING = Catalogue(families=MODELS, default="qwen-image", loras=lambda: LORAS, controlnets=CONTROLNETS)
WITH_THE_DEMO_MODEL = Catalogue(
    families={"demo": FAMILIES["demo"], **MODELS}, default="demo", loras=lambda: LORAS, controlnets=CONTROLNETS
)
