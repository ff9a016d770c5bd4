"""What an operator can set: a TOML file, overridden by environment variables.

`config/daemon.toml` shows every key.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from qwen_image_daemon.jobs.catalogue import Catalogue, ControlNet, ControlNetKind, LicensePolicy, Lora
from qwen_image_daemon.jobs.families import FAMILIES, DistilledSteps, FamilyName
from qwen_image_daemon.jobs.quoting import is_control
from qwen_image_daemon.jobs.styles import MAX_STYLE_NAME_CHARACTERS, STYLES, Style, fault_of_template
from qwen_image_daemon.lora_folder import SUFFIX, LoraFolder, NamedLora

Precision = Literal["bfloat16", "float16", "float32"]
Quality = Literal["lossless", "allow-quantized"]
PlanName = Literal[
    "resident",
    "resident-table",
    "encoder-streamed",
    "encoder-streamed-table",
    "by-turns",
    "by-turns-table",
    "int8",
    "int8-table",
    "uint6",
    "uint6-table",
    "float8",
    "float8-table",
    "uint4",
    "uint4-table",
    "nf4",
    "nf4-table",
    "blocks-table",
    "blocks",
    "leaves",
    "encoder-disk",
    "encoder-disk-table",
    "disk-table",
    "disk",
    "cpu",
]
"""Arrangements of a model in memory, best first. `render/memory.py` says what they are."""
Placement = Literal["auto", PlanName]
Cleanup = Literal["always", "adaptive", "never"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


EMBEDDED = "embedded"
"""The source of the demo model, which the package carries."""
DEMO_MODEL = "demo"
ENVIRONMENT_PREFIX = "QWEN_IMAGE_DAEMON_"


class Section(BaseModel):
    """One table of the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _a_transformers_file(name: str) -> str:
    if not name.endswith((".gguf", ".safetensors")):
        raise ValueError(
            "only a GGUF file or one of Nunchaku's (svdq-….safetensors) can stand here. A folder that "
            "bitsandbytes, torchao, SDNQ or diffusers' nunchaku_lite quantised is a source"
        )
    return name


class ModelSettings(Section):
    """One model that jobs may name."""

    family: FamilyName = "qwen-image"
    """Architecture: which tasks, sizes and defaults apply. qwen-image (Qwen-Image, Qwen-Image-2512),
    qwen-image-edit, qwen-image-edit-plus (Qwen-Image-Edit-2509, 2511), qwen-image-layered, qwen-image-2.1,
    qwen-image-2.1-turbo or demo."""
    source: Annotated[str, Field(min_length=1)]
    """Checkpoint folder (a relative one begins with ./), hub name (owner/name), or embedded: the small demo model
    that the daemon brings along (family demo). Never taken from a job."""
    revision: str | None = None
    """Hub revision (commit, tag or branch). Pin a commit where the box must not change by itself: the log warns
    where none is pinned, and names the one that was loaded."""
    checksums: Path | None = None
    """A list of the checkpoint's files with their hashes, as sha256sum writes it, with paths relative to the
    checkpoint's folder; it may lie there, or elsewhere (absolute). Nothing is loaded where a file differs. A file
    CHECKSUMS in the folder is used by itself."""
    transformer: (
        Annotated[
            str,
            AfterValidator(_a_transformers_file),
            Field(json_schema_extra={"pattern": r"\.(gguf|safetensors)$"}),
        ]
        | None
    ) = None
    """A file on this machine with the transformer in fewer bits, in place of the checkpoint's, of which all
    else is taken: a GGUF file (needs the extra gguf), or one of Nunchaku's (svdq-….safetensors, Qwen-Image 1.x;
    needs nothing, and uses none of Nunchaku's kernels). Every result says that it is lossy, whatever
    render.quality says."""

    @property
    def transformer_file(self) -> Path | None:
        """Give the file that stands for the checkpoint's transformer."""
        return None if self.transformer is None else Path(self.transformer).expanduser()

    @property
    def folder(self) -> Path | None:
        """Give the checkpoint's folder, or None where `source` is a hub name: owner/name."""
        if self.source == EMBEDDED:
            return Path(__file__).resolve().parent / "demo_model"
        return _folder_of(self.source)


def _folder_of(source: str) -> Path | None:
    is_hub_name = source.count("/") == 1 and not source.startswith(("/", ".", "~"))
    return None if is_hub_name else Path(source).expanduser()


class ControlNetSettings(Section):
    """One ControlNet that jobs may name."""

    family: FamilyName = "qwen-image"
    """For models of which family it is made."""
    source: Annotated[str, Field(min_length=1)]
    """Checkpoint folder (a relative one begins with ./) or hub name (owner/name). Never taken from a job."""
    revision: str | None = None
    """Hub revision (commit, tag or branch). Pin a commit where the box must not change by itself."""
    checksums: Path | None = None
    """A list of its files with their hashes, as for a model."""
    kind: ControlNetKind = "union"
    """union: follows edges, depth, poses and the like. inpaint: redraws the masked part of a picture."""

    @model_validator(mode="after")
    def _its_family_takes_one(self) -> "ControlNetSettings":
        if "controlnet" not in FAMILIES[self.family].tasks:
            able = ", ".join(name for name, family in FAMILIES.items() if "controlnet" in family.tasks)
            raise ValueError(f"models of the family {self.family} take no ControlNet; these do: {able}")
        return self

    @property
    def folder(self) -> Path | None:
        """Give the checkpoint's folder, or None where `source` is a hub name: owner/name."""
        return _folder_of(self.source)


def _file_name(name: str) -> str:
    if "/" in name or name.startswith(".") or not name.endswith(SUFFIX):
        raise ValueError(f"it is the name of a file in lora_folder, and ends in {SUFFIX}")
    return name


class LoraSettings(Section):
    """What is to be known of a LoRA in the folder. Files need no entry; distilled ones (Lightning) do."""

    file: Annotated[str, AfterValidator(_file_name)]
    """Its file's name in lora_folder."""
    distilled_steps: DistilledSteps | None = None
    """4 or 8 for Lightning LoRAs: jobs that use it then draw in so many steps, without guidance, on the
    schedule that it wants. Left out for all others."""
    family: FamilyName | None = None
    """For models of which family it is made. Left out: jobs may try it with all."""

    @model_validator(mode="after")
    def _its_family_can_be_distilled(self) -> "LoraSettings":
        steps = self.distilled_steps
        if self.family is not None and steps is not None and steps not in FAMILIES[self.family].distilled:
            raise ValueError(f"nothing is known of LoRAs that are distilled for {steps} steps of {self.family}")
        return self


def _usable(template: str) -> str:
    fault = fault_of_template(template)
    if fault is not None:
        raise ValueError(fault)
    return template


def _writable(name: str) -> str:
    if not name.strip() or len(name) > MAX_STYLE_NAME_CHARACTERS or any(map(is_control, name)):
        raise ValueError(f"a style's name has 1 to {MAX_STYLE_NAME_CHARACTERS} characters, none that steers")
    return name


Template = Annotated[str, AfterValidator(_usable)]
StyleName = Annotated[str, AfterValidator(_writable)]


class StyleSettings(Section):
    """One style that jobs may name, besides those that we bring along. A name of ours replaces ours."""

    en: Template | None = None
    """What is drawn for prompts in Latin letters, with {prompt} where the prompt goes."""
    zh: Template | None = None
    """What is drawn for prompts with Chinese characters, with {prompt} where the prompt goes."""

    @model_validator(mode="after")
    def _says_something(self) -> "StyleSettings":
        if self.en is None and self.zh is None:
            raise ValueError("a style needs en, zh or both")
        return self


class InboxSettings(Section):
    """How drops are noticed and taken."""

    settle_seconds: Positive = 2.0
    """A drop is taken when it has not changed for so long, over at least three looks. Renamed files at once."""
    rescan_seconds: Positive = 5.0
    """The inbox is listed anew at least this often; file events only make it sooner."""
    watch: Literal["auto", "events", "rescan"] = "auto"
    """events: file events wake the daemon at once. rescan: only the listing counts, as on shares that others write
    to, where events are missing. auto decides by the type of the inbox's file system."""
    shared: bool = False
    """Several daemons, each with a spool of its own, take from this inbox. Set it for all of them or for none."""
    max_image_bytes: Annotated[int, Field(gt=0)] = 100 * 1024 * 1024
    """Largest source image that is copied, in bytes."""
    max_image_pixels: Annotated[int, Field(gt=0)] = 50_000_000
    """Largest source image that is decoded, in pixels."""
    taken_days: Annotated[float, Field(ge=0)] = 14.0
    """What was taken is kept in `inbox/.taken` for so many days."""
    taken_bytes: Annotated[int, Field(ge=0)] = 20 * 1024**3
    """The oldest of what was taken is deleted when there is more than so many bytes of it."""


class SpoolSettings(Section):
    """When the disk is full, and what is kept."""

    min_free_bytes: Annotated[int, Field(ge=0)] = 2 * 1024**3
    """Drops stay in the inbox while the spool's disk has less free space than this. It goes on by itself."""
    min_free_inodes: Annotated[int, Field(ge=0)] = 5_000
    """The same for the number of files that can still be made, where the file system has such a limit."""
    done_days: Annotated[float, Field(ge=0)] = 30.0
    """The records of finished jobs are kept for so many days: what `list` and a job's `id` look back on."""
    done_entries: Annotated[int, Field(ge=0)] = 200_000
    """The oldest records are deleted when there are more than so many. Each takes about 10 KiB."""


class QuantiserSettings(Section):
    """Which library packs weights into a format that several can make.

    auto takes the one that loses least of those that are installed; one that is named here must be. Every result
    and `qwen-image-daemon plan` name the one that did.
    """

    int8: Literal["auto", "sdnq", "torchao", "bitsandbytes"] = "auto"
    """8-bit integers. auto tries sdnq, then torchao, then bitsandbytes; the last two lose the same."""
    float8: Literal["auto", "torch", "torchao"] = "auto"
    """8-bit floating point. auto takes torch itself, which is always there; torchao loses the same."""


class RenderSettings(Section):
    """How models are loaded and run."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    """auto takes the first CUDA device, then Apple's, then the CPU. Or cuda, cuda:1, mps, cpu."""
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)] = ("bfloat16", "float32")
    """Tried in this order: one that the hardware lacks, that fails to load or gives no picture is passed over,
    and every result says so. float16 is left out: the 1.x transformer overflows in it."""
    quality: Quality = "lossless"
    """lossless: only arrangements that draw the picture of an unlimited card. allow-quantized: weights may be kept
    in fewer bits where they do not fit otherwise; every result says so. Which ones come into question depends on
    what is installed (the extras int8, nf4 and sdnq); `qwen-image-daemon plan` says what would help."""
    placement: Placement = "auto"
    """Where the weights are while they are not at work: an arrangement that `qwen-image-daemon plan` lists. auto
    takes the best one that fits. Where memory runs out, the next one is tried, and the result says so."""
    placement_retry_seconds: Positive = 21_600.0
    """After memory ran out, pictures of that kind begin with the arrangement that worked, for so long."""
    cpu_fallback: bool = False
    """Where no arrangement fits the device, draw on the CPU: hours instead of seconds for a real model."""
    cpu_fallback_max_seconds: Positive = 21_600.0
    """A picture that would take longer there, by its estimate, fails instead: all other jobs would wait for it."""
    trust_remote_code: bool = False
    """Let a checkpoint bring its own Python code. The Qwen-Image classes need none: leave it off."""
    step_timeout_seconds: Positive = 600.0
    """A step that takes longer is a hang: the render process is replaced."""
    load_timeout_seconds: Positive = 3600.0
    """A model whose loading does not get on for so long is a hang: the render process is replaced. A download may
    take longer, as long as it goes on."""
    dry_run_step_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """How long each step of a --dry-run takes: to try what stops, pauses and long queues look like."""
    unload_after_seconds: Positive | None = None
    """A model that no job needed for so long is let go of, with its process: the card is wholly free. The next job
    loads it again. Left out: it stays."""
    cleanup: Cleanup = "adaptive"
    """What is cleared before and after each job. always: garbage is collected, and the device's caches and the
    heap are given back. adaptive: caches and heap only where that pays, and nothing where nothing was drawn.
    never: memory is only measured. Every result says what was done, and what it cost."""
    warm_up: tuple[str, ...] = ()
    """Models by their names in [models.NAME]: when the daemon starts they are loaded one after the other, and draw
    a short picture for nobody, so that their first jobs need not wait for that. At most render.warm_models of
    them. Not again after render.unload_after_seconds let go of them."""
    warm_models: Annotated[int, Field(ge=1, le=16)] = 1
    """How many models are kept loaded. One is on the device; the others stand by in host memory, where they cost
    little if their files are in the precision that they are used in, and are let go of where it runs out. Their
    transformers stay on the device as long as there is room."""
    renew_growth_bytes: Annotated[int, Field(gt=0)] = 8 * 1024**3
    """The render process is replaced between two jobs when what five jobs in a row left in use, at least, is so
    much more than what the first five left, with the same model in the same arrangement: of the process's own
    memory, or of the device's."""
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """How often a job is tried before it is given out as failed."""
    retry_pause_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    """A job that failed waits so long for its second try, and five times as long for each further one.
    Other jobs go on meanwhile."""
    group_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 600.0
    """Jobs for the model and LoRAs that are loaded go before others of the same priority, so that models change
    seldom; the one whose turn it is waits for that at most so long. 0: strictly in the order of arrival."""
    gate_black_level: Annotated[int, Field(ge=-1, le=255)] = 2
    """A picture of which no level (0 to 255) is above this is black: it is drawn once more, and then fails. -1
    lets all pass."""
    gate_flat_deviation: Annotated[float, Field(ge=0, le=128, allow_inf_nan=False)] = 0.1
    """A picture whose levels deviate by less than this is one flat colour: likewise. 0 lets all pass."""
    gate_unchanged_difference: Annotated[float, Field(ge=0, le=255, allow_inf_nan=False)] = 0.5
    """An edit that differs from its picture by less than so many levels on average changed nothing: likewise. 0
    lets all pass."""
    quantisers: QuantiserSettings = QuantiserSettings()
    """Which library packs weights, where there is a choice."""


class OutboxSettings(Section):
    """How results are given out."""

    png_compression: Annotated[int, Field(ge=0, le=9)] = 4
    """zlib level of PNG files. 4 takes 1.7 times the time of 1 and is nearly as small as 6."""
    keep_days: Annotated[float, Field(gt=0)] | None = None
    """Results are deleted after so many days. Left out: never, somebody else clears the outbox."""
    keep_bytes: Annotated[int, Field(gt=0)] | None = None
    """The oldest results are deleted when all together have more than so many bytes. Left out: never."""


class ServiceSettings(Section):
    """How the daemon looks after its loops."""

    share_timeout_seconds: Positive = 120.0
    """An inbox or outbox whose file server does not answer for so long counts as hung: the status says so, the
    loop that waits for it is replaced when it can be, and everything else goes on."""


class LogSettings(Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe events that are written."""
    format: Literal["auto", "json", "console"] = "auto"
    """auto writes for people on a terminal, JSON lines elsewhere."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Where people, the queue and results are. Absolute."""

    inbox: Path
    spool: Path
    outbox: Path


def _default_models() -> dict[str, ModelSettings]:
    return {"qwen-image": ModelSettings(family="qwen-image", source="Qwen/Qwen-Image")}


class Settings(BaseSettings):
    """Everything that an operator can set. Environment variables win over the file, arguments over both."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
    )

    root: Path = Path("/var/lib/qwen-image-daemon")
    """Folder that holds inbox, spool and outbox where these are not set one by one."""
    inbox_folder: Path | None = None
    """Where people drop jobs. May be on a share. `<root>/inbox` where it is left out."""
    spool_folder: Path | None = None
    """The durable queue. Must be on a local disk. `<root>/spool` where it is left out."""
    outbox_folder: Path | None = None
    """Where results appear. May be on a share. `<root>/outbox` where it is left out."""
    default_model: str = "qwen-image"
    """The model of jobs that name none. One of [models.NAME], or demo: the small model that we bring along."""
    lora_folder: Path | None = None
    """Folder with the LoRAs that jobs may name: each .safetensors file by its name. `<root>/loras` where it is
    left out."""
    license_policy: LicensePolicy = "label"
    """What becomes of jobs for models whose licence is said to forbid commercial use (Qwen-Image 2.1). label:
    they are drawn, and the result says so. refuse: they are refused."""
    models: Annotated[dict[str, ModelSettings], Field(min_length=1)] = Field(default_factory=_default_models)
    """The models that jobs may name."""
    styles: dict[StyleName, StyleSettings] = Field(default_factory=dict)
    """The styles that jobs may name, besides those that we bring along."""
    loras: dict[Annotated[str, Field(min_length=1, max_length=80)], LoraSettings] = Field(default_factory=dict)
    """What is to be known of LoRAs in the folder."""
    controlnets: dict[Annotated[str, Field(min_length=1, max_length=80)], ControlNetSettings] = Field(
        default_factory=dict
    )
    """The ControlNets that jobs may name."""
    inbox: InboxSettings = InboxSettings()
    spool: SpoolSettings = SpoolSettings()
    render: RenderSettings = RenderSettings()
    outbox: OutboxSettings = OutboxSettings()
    service: ServiceSettings = ServiceSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="before")
    @classmethod
    def _offer_demo_model(cls, values: dict[str, Any]) -> dict[str, Any]:
        # Only where it is asked for: on a render box no job can push out the real model with it.
        if values.get("default_model") != DEMO_MODEL or DEMO_MODEL in values.get("models", {}):
            return values
        demo = {DEMO_MODEL: {"family": "demo", "source": EMBEDDED}}
        return {**values, "models": {**values.get("models", {}), **demo}}

    @model_validator(mode="after")
    def _default_model_exists(self) -> "Settings":
        if self.default_model not in self.models:
            names = ", ".join(sorted(self.models))
            raise ValueError(f"default_model {self.default_model!r} is none of the models: {names}")
        return self

    @model_validator(mode="after")
    def _models_to_warm_up_exist(self) -> "Settings":
        for name in self.render.warm_up:
            if name not in self.models:
                names = ", ".join(sorted(self.models))
                raise ValueError(f"render.warm_up: {name!r} is none of the models: {names}")
        if len(self.render.warm_up) > self.render.warm_models:
            raise ValueError("render.warm_up names more models than are kept loaded (render.warm_models)")
        return self

    @property
    def folders(self) -> Folders:
        """Say where the three folders are."""
        root = self.root.expanduser().absolute()
        return Folders(
            inbox=(self.inbox_folder or root / "inbox").expanduser().absolute(),
            spool=(self.spool_folder or root / "spool").expanduser().absolute(),
            outbox=(self.outbox_folder or root / "outbox").expanduser().absolute(),
        )

    @property
    def catalogue(self) -> Catalogue:
        """Say which models, ControlNets, LoRAs and styles jobs may name."""
        families = {name: FAMILIES[model.family] for name, model in self.models.items()}
        own = {name: Style(en=style.en, zh=style.zh) for name, style in self.styles.items()}
        return Catalogue(
            families=families,
            default=self.default_model,
            styles={**STYLES, **own},
            loras=self.lora_shelf,
            controlnets={name: ControlNet(net.family, net.kind) for name, net in self.controlnets.items()},
            license_policy=self.license_policy,
        )

    @property
    def lora_shelf(self) -> LoraFolder:
        """Say where the LoRAs are, and what is known of them."""
        folder = self.lora_folder or self.root / "loras"
        named = {
            name: NamedLora(entry.file, Lora(entry.family, entry.distilled_steps))
            for name, entry in self.loras.items()
        }
        return LoraFolder(folder.expanduser().absolute(), named)


class UnknownVariableError(ValueError):
    """An environment variable with our prefix that sets nothing."""


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    # pydantic-settings passes over them: a misspelt one would change nothing, and nobody would know.
    for name in environment:
        key = name.upper().removeprefix(ENVIRONMENT_PREFIX)
        if key != name.upper() and key.split("__")[0].lower() not in Settings.model_fields:
            raise UnknownVariableError(f"{name}: no such setting. config/daemon.toml shows those that there are")


def load_settings(toml_file: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings.

    Raises pydantic.ValidationError, tomli.TOMLDecodeError, UnicodeDecodeError, UnknownVariableError or OSError.

    `overrides` are whole top-level keys and win over everything else.
    """
    _refuse_unknown_variables(os.environ)
    document = {} if toml_file is None else tomli.loads(toml_file.read_text(encoding="utf-8"))

    class FromFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  the signature is pydantic's
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=document)

    # Back to the public class, which can be handed to other processes.
    return Settings.model_validate(FromFile(**overrides).model_dump())
