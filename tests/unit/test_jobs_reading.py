import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from example_catalogue import CONTROLNETS, EVERYTHING, WITH_THE_DEMO_MODEL
from qwen_image_daemon.jobs.batches import PromptList, WantsList
from qwen_image_daemon.jobs.catalogue import Catalogue, ControlNet
from qwen_image_daemon.jobs.families import DEMO, FAMILIES, QWEN_IMAGE, Size
from qwen_image_daemon.jobs.models import AnyJob, ImageToImageJob, TextToImageJob, source_images
from qwen_image_daemon.jobs.problems import MAX_PROBLEMS, Rejection
from qwen_image_daemon.jobs.reading import read_drop, read_job
from qwen_image_daemon.jobs.resolution import resolve
from qwen_image_daemon.jobs.tasks import TASKS

EXAMPLES = Path(__file__).parents[2] / "jobs_example"
EXAMPLE_JOBS = sorted(path for path in EXAMPLES.iterdir() if path.suffix in {".toml", ".json"})
REJECTED_JOBS = sorted(path for path in (EXAMPLES / "rejected").iterdir() if path.suffix in {".toml", ".json"})
CATALOGUE = Catalogue(families={"qwen-image": QWEN_IMAGE}, default="qwen-image")
A_PROMPT = 'prompt = "a red circle"\n'


def accepted(text: str | bytes, filename: str = "job.toml", catalogue: Catalogue = CATALOGUE) -> AnyJob:
    job = read_job(text.encode() if isinstance(text, str) else text, filename, catalogue)
    assert not isinstance(job, Rejection), str(job)
    return job


def rejected(text: str | bytes, filename: str = "job.toml", catalogue: Catalogue = CATALOGUE) -> str:
    rejection = read_job(text.encode() if isinstance(text, str) else text, filename, catalogue)
    assert isinstance(rejection, Rejection)
    return str(rejection)


@pytest.mark.parametrize("path", EXAMPLE_JOBS, ids=lambda path: path.name)
@pytest.mark.parametrize("catalogue", [EVERYTHING, WITH_THE_DEMO_MODEL], ids=["the makers'", "with the demo"])
def test_every_example_is_a_job(path: Path, catalogue: Catalogue) -> None:
    job = accepted(path.read_bytes(), path.name, catalogue)
    resolve(job, catalogue, seed=1, source=Size(960, 640))
    for image in source_images(job):
        assert (EXAMPLES / image.path).is_file()


def test_there_is_an_example_for_every_task() -> None:
    jobs = [accepted(path.read_bytes(), path.name, EVERYTHING) for path in EXAMPLE_JOBS]
    assert {job.task for job in jobs} == set(TASKS)


@pytest.mark.parametrize("path", REJECTED_JOBS, ids=lambda path: path.name)
def test_every_rejected_example_gets_exactly_its_complaint(path: Path) -> None:
    expected = path.with_name(f"{path.name}.expected.txt").read_text(encoding="utf-8")
    read = read_drop(path.read_bytes(), path.name, CATALOGUE)
    if isinstance(read, WantsList):
        listed = PromptList(read.name, (path.parent / read.name).read_bytes())
        read = read_drop(path.read_bytes(), path.name, CATALOGUE, listed)
    assert f"{read}\n" == expected


def test_there_are_examples_of_both_kinds() -> None:
    assert len(EXAMPLE_JOBS) >= 6
    assert len(REJECTED_JOBS) >= 45


def test_the_example_that_shows_every_setting_shows_every_setting() -> None:
    text = (EXAMPLES / "03-full-text-to-image.toml").read_text(encoding="utf-8")
    for setting in TextToImageJob.model_fields:
        assert f"{setting} = " in text or f"{setting}." in text


def test_a_prompt_alone_is_a_job() -> None:
    job = accepted(A_PROMPT)
    assert isinstance(job, TextToImageJob)
    assert job.prompt == "a red circle"
    assert job.num_images == 1


def test_a_job_that_names_an_image_redraws_it() -> None:
    job = accepted(A_PROMPT + 'image = "sub folder/photo.JPG"')
    assert isinstance(job, ImageToImageJob)
    assert job.image == "sub folder/photo.JPG"


def test_the_two_faults_of_the_style_guide_are_said_in_its_words() -> None:
    text = '# A portrait.\nname = "p"\n\nguidance_scale = 7.5\npromt = "an old man"\n'
    assert rejected(text, "portrait.toml") == (
        "portrait.toml, line 4: guidance_scale: Qwen-Image does not use guidance_scale.\n"
        "  Use true_cfg_scale (4.0 is the model's recommendation).\n"
        "portrait.toml, line 5: promt: no such setting.\n"
        "  Did you mean prompt?"
    )


def test_all_faults_are_reported_at_once_in_the_order_of_the_file() -> None:
    said = rejected(
        'num_images = 0\nseed = -1\nprompt = " "\nheight = 1024\nfoo = 1\nmodel = "flux"\ntask = "draw"'
    )
    lines = [line.split(":")[0] for line in said.splitlines() if not line.startswith(" ")]
    assert lines == [f"job.toml, line {number}" for number in range(1, 8)]


@pytest.mark.parametrize(
    ("line", "complaints"),
    [
        ("steps = 20", ["steps", "num_inference_steps"]),
        ("num_steps = 20", ["num_inference_steps"]),
        ("cfg = 4.0", ["true_cfg_scale"]),
        ("cfg_scale = 4.0", ["true_cfg_scale"]),
        ("n = 2", ["num_images"]),
        ("batch_size = 2", ["num_images"]),
        ("num_images_per_prompt = 2", ["num_images"]),
        ('negative = "x"', ["negative_prompt"]),
        ('size = "1x1"', ["width and height", "aspect_ratio"]),
        ("resolution = 1024", ["width and height", "aspect_ratio"]),
        ('ratio = "1:1"', ["aspect_ratio"]),
        ("denoise = 0.5", ["strength"]),
        ("denoising_strength = 0.5", ["strength"]),
        ('init_image = "a.png"', ["Did you mean image?"]),
        ('source = "a.png"', ["Did you mean image?"]),
        ('sampler = "euler"', ["Did you mean scheduler?"]),
        ('lora = "x"', ["Did you mean loras?"]),
        ('mask_image = "a.png"\nimage = "b.png"', ["Did you mean mask?"]),
        ("controlnet_conditioning_scale = 1.0", ["Did you mean control_scale? It is for controlnet jobs"]),
        ("numImages = 2", ["Did you mean num_images?"]),
        ("Seed = 2", ["Did you mean seed?"]),
        ("num-images = 2", ["Did you mean num_images?"]),
        ("widht = 2", ["Did you mean width?"]),
        ("hight = 512\nwidth = 512", ["Did you mean height?"]),
        ('format = "png"', ["Did you mean output.format?"]),
        ('output.fromat = "png"', ["Did you mean output.format?"]),
        ("xyzzy = 1", ["no such setting", "There are: name, model"]),
        ("output.xyzzy = 1", ["no such setting", "There are: format, quality"]),
        ("[output]\nend = true", ["belongs to the job, not to output", "above the line [output]"]),
    ],
)
def test_an_unknown_setting_comes_with_what_was_probably_meant(line: str, complaints: list[str]) -> None:
    said = rejected(A_PROMPT + line)
    for complaint in complaints:
        assert complaint in said
    assert said.count("\n  ") == 1


def test_a_picture_under_another_programs_name_is_not_complained_about_twice() -> None:
    said = rejected(A_PROMPT + 'init_image = "a.png"\nstrength = 0.5')
    assert said.count("\n  ") == 1


@pytest.mark.parametrize(
    ("lines", "what", "fix"),
    [
        ('aspect_ratio = "1:1"\nwidth = 512\nheight = 512', "exclude each other", "Keep aspect_ratio alone"),
        ('aspect_ratio = "1:1"\nheight = 512', "exclude each other", "Keep aspect_ratio alone"),
        (
            'image = "a.png"\nsize = "1x1"',
            '"1x1" is not possible',
            'Use "source". For another size give width and',
        ),
        ('image = "a.png"\nsize = 512', "512 is not possible", 'Use "source".'),
        (
            'image = "a.png"\nsize = "source"\nwidth = 512\nheight = 512',
            "size and width and height exclude each other",
            "Keep size alone, or width and height without it.",
        ),
        (
            'image = "a.png"\nsize = "source"\naspect_ratio = "1:1"',
            "size and aspect_ratio exclude each other",
            "Keep size alone, or aspect_ratio without it.",
        ),
        ('size = "source"', "it is for jobs that name an image", "Use width and height, or aspect_ratio."),
        ("width = 512", "width is given without height", "Add height"),
        ("height = 512", "height is given without width", "Add width"),
        ("width = 1465\nheight = 1024", "silently draw 1456", "Use 1456 or 1472."),
        ("width = 1024\nheight = 1465", "silently draw 1456", "Use 1456 or 1472."),
        ("width = 1472\nheight = 1140", "silently draw 1136", "1472×1104 is the makers' 4:3"),
        ("width = 1140\nheight = 1472", "silently draw 1136", "Use 1104"),
        ("width = 48\nheight = 512", "48 pixels are too few", "Use 64 or more."),
        ("width = 0\nheight = 512", "0 pixels are too few", "Use 64 or more."),
        ("width = 3088\nheight = 512", "3088 pixels are too many", "Use 3072 or fewer."),
        ("width = 3071\nheight = 512", "silently draw 3056", "Use 3056 or 3072."),
        ("width = 2064\nheight = 2048", "the model takes 4,194,304", "Use 2048×2032 or smaller."),
        ("num_inference_steps = 1", "black picture", "Use 2 or more (50 is the model's recommendation)."),
        ("num_inference_steps = 0", "0 is too small", "Use 2 or more"),
        ("num_inference_steps = 201", "201 is too large", "from 2 to 200"),
        ('true_cfg_scale = 1\nnegative_prompt = "x"', "no effect", "Raise true_cfg_scale above 1.0"),
        ('true_cfg_scale = 1.0\nnegative_prompt = "x"', "no effect", "or leave negative_prompt out"),
        ("strength = 0.5", "redrawn", "Name the picture with image"),
        ('task = "text-to-image"\nimage = "a.png"', "from words alone", 'Set task to "image-to-image"'),
        ('task = "image-to-image"', "needs a source picture", "set image to its name"),
        ('task = "img2img"', '"img2img" is no task', 'Did you mean "image-to-image"? Use "text-to-image", '),
        ('task = "layred"', '"layred" is no task', 'Did you mean "layered"? Use "text-to-image", '),
        ("task = 5", "5 is no task", 'Use "text-to-image", "image-to-image", '),
        ('model = "flux"', '"flux" is none', 'The models are: "qwen-image".'),
        ("output.quality = 90", "png is written without loss", 'Set output.format to "jpeg"'),
        ('output = {format = "webp", quality = 90}', "webp is written without loss", "or leave the quality out"),
        ('output = "png"', '"png" is no table', "output.format, output.quality, output.name"),
        ('output.format = "gif"', '"gif" is not possible here', 'Use one of "png", "webp", "jpeg".'),
        (
            "seed = 9223372036854775806\nnum_images = 3",
            "more than 9223372036854775807",
            "at most 9223372036854775805",
        ),
        ("seed = -1", "-1 is too small", "from 0 to 9223372036854775807"),
        ("seed = 9223372036854775808", "9223372036854775808 is too large", "from 0 to 9223372036854775807"),
        (f"seed = 0x{'f' * 60_000}", "this huge number is too large", "from 0 to"),
        (f"true_cfg_scale = 0x{'f' * 60_000}", "this huge number", "from 1.0 to 20.0"),
        ("num_images = 0", "0 is too small", "from 1 to 1000"),
        ("timeout_seconds = 0", "0 is too small", "above 0, up to 604800"),
        ("timeout_seconds = inf", "Infinity is no number", "above 0, up to 604800"),
        ('timeout_seconds = "1 h"', '"1 h" is a text', "Write a number above 0, up to"),
        ("timeout = 60", "no such setting", "Did you mean timeout_seconds?"),
        ("priority = 101", "101 is too large", "from -100 to 100"),
        ("true_cfg_scale = 0.5", "0.5 is too small", "from 1.0 to 20.0"),
        ("true_cfg_scale = nan", "NaN is no number", "from 1.0 to 20.0"),
        ("true_cfg_scale = -inf", "-Infinity is no number", "from 1.0 to 20.0"),
        ('image = "a.png"\nstrength = 0', "0 is too small", "above 0.0, up to 1.0"),
        ('image = "a.png"\nstrength = 1.1', "1.1 is too large", "above 0.0, up to 1.0"),
        ('num_inference_steps = "28"', '"28" is a text, not a number', 'Write 28, not "28".'),
        ('true_cfg_scale = "4"', '"4" is a text, not a number', 'Write 4.0, not "4".'),
        ('num_inference_steps = "many"', '"many" is a text', "from 2 to 200"),
        ("seed = 42.0", "42.0 is no whole number", "Write 42."),
        ("seed = 1.5", "1.5 is no whole number", "Write a whole number from 0"),
        ("seed = 1e300", "1e+300 is no whole number", "Write a whole number from 0"),
        ("seed = nan", "NaN is no number", "Write a whole number from 0"),
        ("seed = true", "true is no number", "Write a whole number from 0"),
        ("seed = 1979-05-27", "1979-05-27 is no number", "Write a whole number from 0"),
        ("true_cfg_scale = true", "true is no number", "Write a number from 1.0"),
        ("seed = [1, 2]", "a list is no number", "Write a whole number from 0"),
        ("width = 1.5\nheight = 512", "1.5 is no whole number", "a multiple of 16"),
        ("name = 5", "5 is no text", 'Put it between quotation marks: "5".'),
        ("name = {}", "a table is no text", "between quotation marks"),
        ('name = ""', "it is empty", "or leave it out"),
        ('name = "  "', "nothing but blanks", "or leave it out"),
        (f'name = "{"n" * 121}"', "121 characters; 120 are allowed", "Shorten it."),
        (r'name = "a\nb"', "control character (U+000A)", "Take it out."),
        (r'id = "a\u001b[31m"', "control character (U+001B)", "Take it out."),
        (r'negative_prompt = "a\u0007b"', "control character (U+0007)", "new line"),
        ('aspect_ratio = "4:5"', '"4:5" is not possible here', "give width and height"),
        ('tags = "a"', '"a" is no list', 'Write a list: ["a"].'),
        ("tags = 5", "5 is no list", 'Write a list: ["…"].'),
        ('tags = ["a", 5]', "tags.1: 5 is no text", 'Put it between quotation marks: "5".'),
        ('tags = ["a", ""]', "it is empty", "or leave it out"),
        ('tags = [" "]', "tag 1 holds nothing but blanks", "Write a word"),
        (r'tags = ["a", "b\u001b"]', "tag 2 holds a control character", "Take it out."),
        (f'tags = ["{"x" * 81}"]', "81 characters; 80 are allowed", "Shorten it."),
        (f"tags = {['x'] * 33}", "33 entries; 32 are allowed", "Take some out."),
        ('output.name = "{nmae}"', '"{nmae}" is no variable', "There are: {name}, {index}, {seed}, {date}, {id}."),
        ('output.name = "{}"', '"{}" is no variable', "There are: {name}"),
        ('output.name = "a{b"', "a brace stands alone", "Braces stand around variables"),
        ('output.name = "a/{index}"', '"/" cannot stand', "Pictures lie in the job's result folder."),
        ('output.name = "..\\\\x"', "cannot stand in a file's name", "write a dash"),
        ('output.name = "a:b"', '":" cannot stand', "write a dash"),
        (r'output.name = "a\u0007"', "control character", "Take it out."),
        ('output.name = ""', "it is empty", "or leave it out"),
        ('output.name = " "', "says nothing", 'Write for example "{name}-{index}".'),
        ('output.name = ".hidden"', "begins or ends with a blank or a dot", "{name}-{index}"),
        ('output.name = "nul"', "Windows takes no file", "another name"),
        ('output.name = "{name}{name}{name}"', "261 bytes long; 200 are allowed", "Shorten it."),
        (
            'num_images = 3\noutput.name = "fox {date}"',
            "the 3 pictures of the job would all have the same name",
            'as in "fox {date}-{index}"',
        ),
        ("end = false", "false is not possible here", "Write true, or leave it out."),
        ("end = 1", "1 is not possible here", "Write true, or leave it out."),
        (
            'style = "cinamatic"',
            '"cinamatic" is none of',
            'Did you mean "cinematic"? The styles are: "cinematic", ',
        ),
        ('style = "xyz"', "none of this daemon's styles", 'The styles are: "cinematic", "illustration"'),
        ('style = ""', "it is empty", "or leave it out"),
        ('"$schema" = 5', "5 is no address of a schema", "Take it out."),
    ],
)
def test_what_cannot_be_drawn_as_asked_is_refused_with_a_cure(lines: str, what: str, fix: str) -> None:
    said = rejected(A_PROMPT + lines)
    fault, cure = said.split("\n  ")
    assert what in fault
    assert fix in cure


NON_COMMERCIAL = 'model = "qwen-image-2.1"\n'


@pytest.mark.parametrize(
    ("lines", "what", "fix"),
    [
        ("images = []", "it is an empty list", "or leave it out"),
        ('images = "a.png"', '"a.png" is no list', 'Write a list: ["a.png"].'),
        ('images = ["a.png", "../b.png"]', "images.1: it leads out of", 'write "b.png"'),
        ('control_image = "C:/a.png"', "control_image: it names a drive", 'write "a.png"'),
        ('image = "a.png"\nmask = "m.gif"', 'mask: "m.gif" is no picture', "PNG, JPEG or WEBP"),
        (
            'image = "a.png"\nmask = "m.png"\nmodel = "qwen-image-edit-plus"',
            "edit without a mask",
            "family qwen-image-edit",
        ),
        ('images = ["a.png", "b.png"]\nmask = "m.png"', "there can be no mask", "Keep one picture"),
        (
            'images = ["a.png", "b.png"]\nmask = "m.png"\nmodel = "qwen-image-edit"',
            "there can be no mask",
            "Keep one",
        ),
        (
            'images = ["a.png", "b.png"]\nmodel = "qwen-image-edit"',
            "edit 1 picture at a time, and 2 are named",
            "several",
        ),
        ('task = "edit"', "an edit needs a picture", "set images to a list of names"),
        ('task = "edit"\nimage = "a.png"\nstrength = 0.5', "an edit has none", 'set task to "image-to-image"'),
        (
            'image = "a.png"\nmodel = "qwen-image"\ntask = "edit"',
            '"qwen-image" does no edit jobs',
            'Use "qwen-image-edit" or',
        ),
        ('model = "qwen-image-layered"', '"qwen-image-layered" does no text-to-image jobs', 'Use "qwen-image" or'),
        ('task = "inpaint"\nimage = "a.png"\nimages = ["a.png"]', "it redraws one picture", 'set task to "edit"'),
        ('image = "a.png"\nlayers = 0', "0 is too small", "from 1 to 10"),
        (
            'image = "a.png"\nlayers = 3\nwidth = 640',
            "layers in the picture's own shape",
            "resolution (640 or 1024)",
        ),
        ('image = "a.png"\nresolution = 512', "512 is not possible here", "Use one of 640, 1024."),
        ('control_image = "a.png"\nimage = "b.png"', "reads control_image", "take image out"),
        ('control_image = "a.png"\ncontrol_scale = 2.5', "2.5 is too large", "above 0.0, up to 2.0"),
        (
            'control_image = "a.png"\ncontrol_start = 1.0',
            "from 1.0 to 1.0 of the steps: not at all",
            "above control_start",
        ),
        (
            'control_image = "a.png"\ncontrolnet = "unoin"',
            "none of this daemon's ControlNets",
            'Did you mean "union"?',
        ),
        ('control_image = "a.png"\ncontrolnet = "inpainting"', "control pictures without a mask", 'Use "union"'),
        (
            'control_image = "a.png"\nmask = "m.png"\ncontrolnet = "union"',
            "redrawing what is masked",
            'Use "inpainting"',
        ),
        (
            'loras = ["watercolor"]',
            '"watercolor" is none of',
            'Did you mean "watercolour"? The LoRAs are: "faces", ',
        ),
        ('loras = ["faces", "faces"]', '"faces" is named twice', "in all"),
        ('loras = [{name = "faces", weight = 0.0}]', "a weight of 0 does nothing", "Take the LoRA out."),
        (f"loras = {[f'l{number}' for number in range(9)]}", "it has 9 entries; 8 are allowed", "Take some out."),
        ("loras = [5]", "5 is no LoRA", 'or a table: { name = "watercolour", weight = 0.8 }'),
        (
            'loras = ["lightning"]\nmodel = "qwen-image-2.1"',
            "is for the family qwen-image",
            "choose another model",
        ),
        (
            'loras = ["lightning"]\nscheduler = "euler"',
            "distilled for the scheduler lightning",
            'write "lightning"',
        ),
        ('loras = ["lightning"]\ntrue_cfg_scale = 4.0', "without guidance; more gives glaring", "write 1.0"),
        (
            'loras = ["lightning"]\nnegative_prompt = "x"',
            'the LoRA "lightning" is made for',
            "do without the LoRA",
        ),
        (
            NON_COMMERCIAL + 'negative_prompt = "x"',
            "the family qwen-image-2.1 is made for",
            "Set true_cfg_scale above 1.0",
        ),
        ('model = "qwen-image-2.1-turbo"\nnum_inference_steps = 30', "always take 8 steps", "or write 8"),
        ('model = "qwen-image-2.1"\nwidth = 1328\nheight = 1344', "silently draw 1312", "Use 1312 or 1344."),
        ("scheduler = 5", "5 is no scheduler", "Write its name between quotation marks"),
        ("scheduler = {shift = 3.0}", "does not say which scheduler", 'Add name, as in { name = "euler"'),
        ('scheduler = {name = "euler", shift = 0}', "0 is too small", "above 0.0, up to 20.0"),
        ('scheduler = {name = "euler", shift_terminal = 1.0}', "1.0 is too large", "above 0.0 and below 1.0"),
        (
            'scheduler = {name = "euler", sigmas = "beta"}',
            '"beta" is not possible',
            'Use one of "karras", "exponential".',
        ),
        ('image = "a.png"\nscheduler = "unipc"', "can begin from noise only", 'Use "euler"'),
        ("not_before = 2026-12-24", "2026-12-24 is no moment", "Write date, time and offset"),
        ('not_before = "2026-12-24 20:00"', "does not say in which time zone", "Add the offset from UTC"),
        ("not_before = 1700000000", "1700000000 is no moment", "Write date, time and offset"),
        ("not_before = 0001-01-01T00:00:00+14:00", "the year 1 is out of reach", "from 2000 to 2999"),
        ('on_exists = "overwrite"', "is not possible here", 'Use one of "draw", "skip", "refuse".'),
        (
            'image = "a.png"\nfit = "scale"\nwidth = 512\nheight = 512',
            "width and height asks for another",
            'Use "pad"',
        ),
        ('image = "a.png"\nfit = "scale"\nsize = "source"', "size asks for another", "take size out"),
        ('fit = "crop"', "this job reads none", "or take fit out"),
        ('task = "edit"\nimage = "a.png"\npreserve_unmasked = false', "no effect without a mask", "Name a mask"),
        (
            'task = "edit"\nimage = "a.png"\nmask = "m.png"\naspect_ratio = "1:1"',
            "an edit with a mask has the picture's own shape",
            "edit without a mask",
        ),
    ],
)
def test_what_no_model_does_as_asked_is_refused_with_a_cure(lines: str, what: str, fix: str) -> None:
    said = rejected(A_PROMPT + lines, catalogue=EVERYTHING)
    fault, cure = said.split("\n  ")
    assert what in fault
    assert fix in cure


@pytest.mark.parametrize(
    ("lines", "task"),
    [
        ("", "text-to-image"),
        ('image = "a.png"', "image-to-image"),
        ('image = "a.png"\nstrength = 0.5\nmodel = "qwen-image"', "image-to-image"),
        ('image = "a.png"\nmodel = "qwen-image-edit"', "edit"),
        ('image = "a.png"\nmodel = "qwen-image-2.1"', "edit"),
        ('image = "a.png"\nmodel = "qwen-image-layered"', "layered"),
        ('image = "a.png"\nmask = "m.png"', "inpaint"),
        ('image = "a.png"\nmask = "m.png"\nmodel = "qwen-image-edit"', "edit"),
        ('images = ["a.png"]', "edit"),
        ('image = "a.png"\nlayers = 3', "layered"),
        ('image = "a.png"\nresolution = 1024', "layered"),
        ('control_image = "a.png"', "controlnet"),
        ('control_image = "a.png"\nmask = "m.png"', "controlnet"),
    ],
)
def test_the_task_is_told_by_what_the_job_names_and_by_what_its_model_can(lines: str, task: str) -> None:
    assert accepted(A_PROMPT + lines, catalogue=EVERYTHING).task == task


def test_a_layered_job_needs_no_prompt() -> None:
    assert accepted('task = "layered"\nimage = "a.png"', catalogue=EVERYTHING).prompt is None


def test_a_style_needs_a_prompt_to_stand_by() -> None:
    said = rejected('task = "layered"\nimage = "a.png"\nstyle = "photo"', catalogue=EVERYTHING)
    assert "a style needs a prompt" in said


def test_a_model_whose_licence_the_daemon_shuns_is_refused_and_never_chosen() -> None:
    shy = replace(EVERYTHING, license_policy="refuse")
    assert "allows no commercial use" in rejected(A_PROMPT + NON_COMMERCIAL, catalogue=shy)
    only = replace(shy, families={"new": FAMILIES["qwen-image-2.1"]}, default="new")
    assert "none of this daemon's models" in rejected(A_PROMPT, catalogue=only)


def test_several_controlnets_that_fit_want_one_to_be_named() -> None:
    nets = {**CONTROLNETS, "depth": ControlNet("qwen-image", "union")}
    several = replace(EVERYTHING, controlnets=nets)
    said = rejected(A_PROMPT + 'control_image = "a.png"', catalogue=several)
    assert "the daemon has several that fit" in said
    assert 'Name one of them: "union", "depth".' in said


def test_what_a_job_that_is_not_strict_asks_in_vain_is_no_fault() -> None:
    accepted(A_PROMPT + NON_COMMERCIAL + 'negative_prompt = "x"\nstrict = false', catalogue=EVERYTHING)
    accepted(A_PROMPT + 'loras = ["lightning"]\nscheduler = "unipc"\nstrict = false', catalogue=EVERYTHING)


def test_a_moment_is_written_in_toml_as_such_and_in_json_as_a_text() -> None:
    moment = datetime(2026, 12, 24, 19, tzinfo=UTC)
    assert accepted(A_PROMPT + "not_before = 2026-12-24T20:00:00+01:00").not_before == moment
    assert accepted('{"prompt": "x", "not_before": "2026-12-24T19:00:00Z"}', "job.json").not_before == moment


@pytest.mark.parametrize(
    ("prompt", "what"),
    [
        ('prompt = ""', "it is empty"),
        ('prompt = " \\n "', "nothing but blanks"),
        (r'prompt = "a\u0000b"', "U+0000"),
        (r'prompt = "a\u007fb"', "U+007F"),
        (r'prompt = "a\rb"', "U+000D"),
        (f'prompt = "{"x" * 10_001}"', "10,001 characters; 10,000 are allowed"),
        ("seed = 1", "every job needs a prompt"),
    ],
)
def test_a_prompt_that_says_nothing_or_too_much_is_refused(prompt: str, what: str) -> None:
    assert what in rejected(prompt)


def test_the_demo_family_has_its_own_limits() -> None:
    catalogue = Catalogue(families={"qwen-image": QWEN_IMAGE, "demo": DEMO}, default="qwen-image")
    size = A_PROMPT + "width = 1024\nheight = 1024\n"
    accepted(size, catalogue=catalogue)
    assert "Use 512 or fewer" in rejected(size + 'model = "demo"', catalogue=catalogue)


def test_no_guidance_and_a_blank_negative_prompt_go_together() -> None:
    """As in the makers' recipe for the distilled models; nothing is asked for, so nothing is lost."""
    accepted(A_PROMPT + 'true_cfg_scale = 1.0\nnegative_prompt = " "')


def test_a_null_in_json_is_a_setting_left_out() -> None:
    assert accepted('{"prompt": "x", "seed": null, "width": null, "name": null}', "job.json") == accepted(
        '{"prompt": "x"}', "job.json"
    )


def test_a_schema_may_be_named_for_the_editor() -> None:
    assert accepted('{"$schema": "../job.schema.json", "prompt": "x"}', "job.json").prompt == "x"


@pytest.mark.parametrize(
    "prompt",
    [
        "Ein grüner Fuchs, groß wie ein Löwe, „Müßiggang“",
        "一只红色的狐狸。站在雪地里、写着「你好」",
        "👩‍🚀🦊 on the moon 🌕",
        "שועל אדום על רקע לבן",
        "first line\n\tsecond line",
        "界" * 10_000,
        "🦊" * 10_000,
    ],
    ids=["German", "Chinese", "emoji", "right to left", "two lines", "10,000 characters", "10,000 emoji"],
)
def test_prompts_of_all_languages_arrive_unchanged(prompt: str) -> None:
    quoted = json.dumps(prompt, ensure_ascii=False)
    assert accepted(f"prompt = {quoted}").prompt == prompt
    assert accepted(f'{{"prompt": {quoted}}}', "job.json").prompt == prompt


def test_windows_line_ends_and_a_byte_order_mark_are_fine() -> None:
    assert accepted(b'\xef\xbb\xbfprompt = "x"\r\nseed = 5\r\n').seed == 5
    assert accepted(b'\xef\xbb\xbf{\r\n"prompt": "x"}\r\n', "job.JSON").prompt == "x"
    assert "line 2: foo" in rejected(b'\xef\xbb\xbfprompt = "x"\r\nfoo = 5\r\n')


def test_an_entry_of_a_list_is_complained_about_in_the_line_of_its_list() -> None:
    assert "job.toml, line 2: tags.1: 5 is no text." in rejected(f'{A_PROMPT}tags = [\n  "a",\n  5,\n]')


def test_a_file_name_cannot_forge_a_complaint() -> None:
    said = rejected("", "a\nb\u202e\udcff.toml")
    assert said.startswith("a\\u000ab\\u202e\\udcff.toml: the file is empty.\n  ")
    said.encode()


def test_a_file_with_hundreds_of_faults_names_some_and_counts_the_rest() -> None:
    many = A_PROMPT + "\n".join(f"unknown{number} = 1" for number in range(3000))
    rejection = read_job(many.encode(), "job.toml", CATALOGUE)
    assert isinstance(rejection, Rejection)
    assert len(rejection.problems) == MAX_PROBLEMS + 1
    assert "more faults" in rejection.problems[-1].what


def test_a_fault_behind_hundreds_of_others_is_still_taken_for_one() -> None:
    unknown = {f"unknown{number}": 1 for number in range(400)}
    rejected(json.dumps({"prompt": "x", "image": 5, "end": [], "output": unknown}), "job.json")
