"""Train, measure and export the demo model. `docs/demo_model.md` tells what it is and what each step takes."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from demo_model.curriculum import SCENE_SHARES, SCENES
from demo_model.evaluation import (
    Preset,
    Question,
    answer,
    contact_sheet,
    practice_scene,
    questions,
    scores,
    weak_words,
)
from demo_model.export import assemble, export, unpack
from demo_model.latents import write_shard
from demo_model.tokenizer import build_tokenizer
from demo_model.transformer_training import Settings, start, train
from demo_model.vae_training import VaeSettings, new_vae, train_vae
from demo_model.world import LAYOUTS, SHAPES, Layout, evaluation_scene

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SHIPPED: Final = Path(__file__).resolve().parents[1] / "daemon" / "qwen_image_daemon" / "demo_model"
_WEAKEST: Final = 8

log = logging.getLogger("train_demo_model")


def _device(name: str | None) -> torch.device:
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def _tokenizer(options: argparse.Namespace) -> None:
    tokenizer = build_tokenizer(options.work / "tokenizer", options.seed)
    log.info("tokenizer.built tokens=%d", len(tokenizer))


def _vae(options: argparse.Namespace) -> None:
    from diffusers import AutoencoderKLQwenImage  # noqa: PLC0415 (two seconds that `tokenizer` needn't wait)

    folder = options.work / "vae"
    begun = (folder / "config.json").exists()
    vae = AutoencoderKLQwenImage.from_pretrained(folder) if begun else new_vae()
    settings = VaeSettings(options.minutes, options.seed, learning_rate=2e-3 if begun else 5e-3)
    train_vae(vae, folder, settings, _device(options.device))
    log.info("vae.trained minutes=%g", options.minutes)


def _unpack(options: argparse.Namespace) -> None:
    unpack(options.folder, options.work)
    log.info("model.unpacked")


def _latents(options: argparse.Namespace) -> None:
    from diffusers import AutoencoderKLQwenImage  # noqa: PLC0415 (as above)

    vae = AutoencoderKLQwenImage.from_pretrained(options.work / "vae").to(_device(options.device)).eval()
    for number, (size, count) in enumerate(SCENES.items()):
        layouts = {layout: max(1, round(count * options.share * part)) for layout, part in SCENE_SHARES.items()}
        file = options.work / "latents" / f"{size[0]}x{size[1]}-{options.seed}"
        write_shard(file, vae, layouts, size, options.seed * len(SCENES) + number)
    log.info("latents.written sizes=%d", len(SCENES))


def _transformer(options: argparse.Namespace) -> None:
    settings = Settings(
        options.minutes, options.seed, options.rate, compiled=not options.eager, layers=options.layers
    )
    training = start(options.work, settings, _device(options.device))
    train(training, options.work / "transformer-run")
    log.info("transformer.trained steps=%d samples=%d", training.step, training.seen)


def _export(options: argparse.Namespace) -> None:
    work = options.work
    size = export(work / "tokenizer", work / "vae", work / "transformer-run", options.folder)
    log.info("model.exported megabytes=%.1f", size / 1e6)


def _asked(layout: Layout, options: argparse.Namespace) -> list[Question]:
    scene = practice_scene if options.practice else evaluation_scene
    drawn = questions(layout, options.count, options.seed, scene)
    return [one for one in drawn if all(thing.shape in options.shapes for thing in one.scene.things)]


def _evaluate(options: argparse.Namespace) -> None:
    from diffusers import QwenImagePipeline  # noqa: PLC0415 (as above)

    if options.unexported:
        work = options.work
        pipeline = assemble(work / "tokenizer", work / "vae", work / "transformer-run", torch.float32)
    else:
        pipeline = QwenImagePipeline.from_pretrained(options.folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(_device(options.device))
    console = Console(width=120)
    for size in options.sizes:
        width, height = (int(side) for side in size.split("x"))
        preset = Preset(width, height, options.steps, options.scale)
        answers = {layout: answer(pipeline, _asked(layout, options), preset) for layout in options.layouts}
        table = Table(
            title=f"{size}, {options.steps} steps, true_cfg_scale {options.scale:g}, seed {options.seed}"
        )
        for heading in ("layout", "prompts", *scores(next(iter(answers.values())))):
            table.add_column(heading)
        for layout, given in answers.items():
            table.add_row(layout, str(len(given)), *(f"{value:.3f}" for value in scores(given).values()))
            if options.sheets:
                options.sheets.mkdir(parents=True, exist_ok=True)
                contact_sheet(given[:40]).save(options.sheets / f"{layout}-{size}.png")
        console.print(table)
        weak = weak_words([one for given in answers.values() for one in given])[:_WEAKEST]
        console.print("weakest words:", ", ".join(f"{word} {share:.2f} of {asked}" for word, share, asked in weak))


def _all(options: argparse.Namespace) -> None:
    """Run everything from nothing, a fifth of the time for the VAE."""
    minutes = options.minutes
    _tokenizer(options)
    options.minutes = minutes * 0.2
    _vae(options)
    _latents(options)
    options.minutes = minutes * 0.8
    _transformer(options)
    _export(options)
    _evaluate(options)


_STEPS: Final[dict[str, tuple[Callable[[argparse.Namespace], None], str]]] = {
    "tokenizer": (_tokenizer, "learn the vocabulary"),
    "vae": (_vae, "train the VAE, or train it on"),
    "unpack": (_unpack, "take the exported model apart, to train it on"),
    "latents": (_latents, "draw and encode the training pictures"),
    "transformer": (_transformer, "train text encoder and transformer, or go on"),
    "export": (_export, "write the checkpoint that is shipped"),
    "evaluate": (_evaluate, "render held-out prompts and read the pictures back"),
    "all": (_all, "everything, from nothing"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "step", choices=_STEPS, help="; ".join(f"{name}: {what}" for name, (_, what) in _STEPS.items())
    )
    parser.add_argument(
        "--work", type=Path, default=Path("demo-model-work"), help="folder for everything unfinished"
    )
    parser.add_argument("--folder", type=Path, default=SHIPPED, help="the exported model")
    parser.add_argument("--minutes", type=float, default=100.0, help="time budget for training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="default: a GPU if there is one")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument(
        "--share", type=float, default=1.0, help="latents: this part of the usual number of scenes"
    )
    parser.add_argument("--eager", action="store_true", help="transformer: don't compile the blocks")
    parser.add_argument(
        "--rate", type=float, help="transformer: highest learning rate; default 3e-3, for a refinement 1.5e-3"
    )
    parser.add_argument(
        "--layers", type=int, help="transformer: this many, the additional ones without an effect at first"
    )
    parser.add_argument("--unexported", action="store_true", help="evaluate: what is in --work, in float32")
    parser.add_argument("--sizes", nargs="+", default=["128x128"], metavar="WxH", help="evaluate: picture sizes")
    parser.add_argument(
        "--layouts", nargs="+", default=list(LAYOUTS), choices=LAYOUTS, help="evaluate: kinds of scene"
    )
    parser.add_argument(
        "--practice", action="store_true", help="evaluate: ask for what training draws; choose by these prompts"
    )
    parser.add_argument("--count", type=int, default=100, help="evaluate: prompts drawn of each layout")
    parser.add_argument(
        "--shapes", nargs="+", default=list(SHAPES), choices=SHAPES, help="evaluate: leave out prompts with others"
    )
    parser.add_argument("--steps", type=int, default=20, help="evaluate: inference steps")
    parser.add_argument("--scale", type=float, default=4.0, help="evaluate: true_cfg_scale")
    parser.add_argument("--sheets", type=Path, help="evaluate: folder for contact sheets")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one step."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(show_path=False)])
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    run, _ = _STEPS[options.step]
    run(options)


if __name__ == "__main__":
    main()
