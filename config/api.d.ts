// Jobs, results and the status of qwen-image-daemon, for programs over its folders.
// Written by tools/make_api_types.py out of the models: do not change it by hand.

/**
 * A job of any kind. The task may be left out where the settings tell it.
 */
export type JobRequest =
  | TextToImageRequest
  | ImageToImageRequest
  | InpaintRequest
  | EditRequest
  | LayeredRequest
  | ControlNetRequest;
/**
 * A shape of pictures: width to height.
 */
export type AspectRatio = "1:1" | "16:9" | "9:16" | "4:3" | "3:4" | "3:2" | "2:3";
/**
 * How much work goes into a picture.
 */
export type PresetName = "draft" | "fast" | "balanced" | "high" | "ultra";
/**
 * How noise is taken away, step by step.
 */
export type SchedulerName = "euler" | "lightning" | "unipc" | "lcm";
/**
 * What to do where a job was done before.
 */
export type OnExists = "draw" | "skip" | "refuse";
/**
 * A file format of pictures.
 */
export type OutputFormat = "png" | "webp" | "jpeg";
/**
 * How a picture is brought to another shape.
 */
export type Fit = "pad" | "crop" | "scale";
/**
 * One file, many jobs: settings that all of them have, and what makes them many.
 */
export type BatchRequest = JobSettings & BatchSettings;
/**
 * Settings of any kind of job, as many as are wanted.
 */
export type JobSettings = Partial<
  Omit<TextToImageRequest, "task"> &
    Omit<ImageToImageRequest, "task"> &
    Omit<InpaintRequest, "task"> &
    Omit<EditRequest, "task"> &
    Omit<LayeredRequest, "task"> &
    Omit<ControlNetRequest, "task">
> & {task?: Task};
/**
 * For each setting the list of its values.
 */
export type Sweep = {[K in keyof JobSettings]?: NonNullable<JobSettings[K]>[]} & {
  [of_a_table: `output.${string}` | `scheduler.${string}`]: (string | number)[];
} & {combine?: "product" | "zip"};
/**
 * How a job ended.
 */
export type OutcomeStatus = "succeeded" | "failed" | "refused" | "cancelled" | "duplicate";
/**
 * What is to be done.
 */
export type Task = "text-to-image" | "image-to-image" | "inpaint" | "edit" | "layered" | "controlnet";
/**
 * What the daemon is doing.
 */
export type DaemonState =
  "starting" | "loading" | "idle" | "rendering" | "paused" | "troubled" | "stopping" | "stopped" | "broken";
/**
 * What is being done for one picture.
 */
export type Stage = "encode" | "denoise" | "decode";
/**
 * How far a job is that is not given out yet.
 */
export type QueueStatus = "queued" | "rendering" | "rendered";

/**
 * What is written where, as JSON.
 */
export interface Documents {
  /**
   * A file in the inbox, of any name that ends in .json.
   */
  job: JobRequest;
  /**
   * Another one, that makes many jobs.
   */
  batch: BatchRequest;
  /**
   * In the folder of every result.
   */
  "result.json": JobResult;
  /**
   * In the outbox; also what `qwen-image-daemon status --json` prints.
   */
  "status.json": DaemonStatus;
  /**
   * What `qwen-image-daemon list --json` prints.
   */
  list: JobList;
}
/**
 * Draw pictures from words alone.
 */
export interface TextToImageRequest extends GenerationRequest {
  /**
   * What is to be done.
   */
  task?: "text-to-image";
}
/**
 * A job that draws to a prompt, in a size that it may choose.
 */
export interface GenerationRequest extends GenerationParameters {
  /**
   * What the picture shows; for an edit, what is to be changed.
   */
  prompt: string;
  /**
   * The picture's shape, in the size that the makers recommend for it. 1:1 where no size is given, or the shape
   * nearest to the source's.
   */
  aspect_ratio?: AspectRatio | null;
  /**
   * Width in pixels, a multiple of 16 (Qwen-Image 2.1: 32); together with height, instead of aspect_ratio.
   */
  width?: number | null;
  /**
   * Height in pixels, a multiple of 16 (Qwen-Image 2.1: 32); together with width, instead of aspect_ratio.
   */
  height?: number | null;
}
/**
 * What every kind of job can ask for.
 */
export interface GenerationParameters {
  /**
   * What to call the job in lists and in the result folder's name. The file's name where it is left out.
   */
  name?: string | null;
  /**
   * A model's name out of the daemon's settings. Where it is left out: the daemon's default model if it can
   * do the task, else the first in the settings that can.
   */
  model?: string | null;
  /**
   * What the picture must not show. A single space, the makers' recommendation, where it is left out. Has an
   * effect only where true_cfg_scale is above 1.0.
   */
  negative_prompt?: string | null;
  /**
   * Words that are written around the prompt, in its language (English or Chinese): makers (their quality suffix
   * alone), photo, cinematic, illustration, product, poster, or one of the daemon's settings. null where it is left
   * out. The result holds the prompt as it was written and as it was drawn.
   */
  style?: string | null;
  /**
   * How much work goes into a picture: steps and true_cfg_scale as recommended for the model's family. What the
   * job sets itself wins.
   */
  preset?: PresetName | null;
  /**
   * How closely the prompt is followed, 1.0 to 20.0. 1.0 switches guidance and negative prompt off and halves
   * the time. The model's recommendation where it is left out: 4.0, for Qwen-Image 2.1 and distilled LoRAs 1.0.
   */
  true_cfg_scale?: number | null;
  /**
   * Denoising steps, 2 to 200. The model's recommendation where it is left out: 50, for Qwen-Image-Edit-2509,
   * 2511 and Qwen-Image 2.1 40.
   */
  num_inference_steps?: number | null;
  /**
   * LoRAs out of the daemon's LoRA folder, at most 8, each a name or { name = "…", weight = 0.8 }. null where
   * it is left out.
   *
   * @maxItems 8
   */
  loras?: (string | LoraUse)[];
  /**
   * How noise is taken away, step by step: a name, or a table with name and settings. The model's own where
   * it is left out, or the one that a distilled LoRA wants.
   */
  scheduler?: SchedulerName | SchedulerUse | null;
  /**
   * Image k is drawn from seed + k, counted from 0. Drawn by lot, and recorded, where it is left out.
   */
  seed?: number | null;
  /**
   * How many pictures to draw, each from its own seed.
   */
  num_images?: number;
  /**
   * true: what cannot be done exactly as asked is refused. false: it is done as nearly as can be, and the result
   * says in `adjustments` what was done otherwise.
   */
  strict?: boolean;
  /**
   * A sender's own key, so that a job that is sent twice is done once: the same id with the same files is
   * answered with the earlier result, with other files it is refused. A job that failed may be sent again.
   */
  id?: string | null;
  /**
   * What to do where a job with the same job file and the same pictures, byte for byte, was done before: draw it
   * again, skip it (the earlier result is the answer), or refuse it. A job that failed does not count.
   */
  on_exists?: OnExists;
  /**
   * Jobs of higher priority are taken first; equal ones in the order of their arrival.
   */
  priority?: number;
  /**
   * A moment, with its offset from UTC, before which the job is not begun; others go on. At once where it is
   * left out.
   */
  not_before?: string | null;
  /**
   * How long one attempt at the pictures may take, in seconds: the job fails at its next step then, is not tried
   * again, and keeps the pictures that are finished. Waiting and loading the model do not count; after a pause, a
   * stop or a failure the time begins anew. No limit where it is left out.
   */
  timeout_seconds?: number | null;
  /**
   * Words of the sender's own, at most 32, that are carried into the result. They change nothing else.
   *
   * @maxItems 32
   */
  tags?: string[];
  /**
   * How the pictures are written.
   */
  output?: Output;
  /**
   * A careful sender's mark, as the file's last line, that the file is whole. Changes nothing else.
   */
  end?: true | null;
}
/**
 * One LoRA that is laid over the model while a job is drawn.
 */
export interface LoraUse {
  /**
   * Its file's name in the daemon's LoRA folder, without .safetensors, or one of the settings' [loras.NAME].
   */
  name: string;
  /**
   * How strongly it is laid over the model, -4.0 to 4.0, and not 0: that would do nothing. Below 0 it works the
   * other way round.
   */
  weight?: number;
}
/**
 * How noise is taken away, step by step.
 */
export interface SchedulerUse {
  /**
   * euler: the makers' own (flow matching, Euler steps), here with settings of one's own. lightning: the same as
   * the Lightning LoRAs want it; taken by itself where such a LoRA is used. unipc: a multistep solver, for
   * text-to-image only. lcm: for LCM-distilled LoRAs.
   */
  name: SchedulerName;
  /**
   * How far the steps are moved towards high noise, above 0 to 20. The same for all sizes. Left out: as the
   * model has it, which is more for larger pictures.
   */
  shift?: number | null;
  /**
   * The noise level that the last step ends at, above 0 and below 1 (0.02 for Qwen-Image 1.x). Left out: as the
   * model has it.
   */
  shift_terminal?: number | null;
  /**
   * How the noise levels are spaced. Evenly, before the shift, where it is left out.
   */
  sigmas?: ("karras" | "exponential") | null;
  /**
   * How many earlier steps unipc looks at, 1 to 3. 2 where it is left out. Only for unipc.
   */
  solver_order?: number | null;
}
/**
 * How the pictures of a job are written.
 */
export interface Output {
  /**
   * File format. png and webp are written without loss; jpeg is not.
   */
  format?: OutputFormat;
  /**
   * JPEG quality, 1 to 100 (95 where it is left out). Only for jpeg.
   */
  quality?: number | null;
  /**
   * What the pictures are called, without suffix: words and {name}, {index} (from 1), {seed}, {date} (of
   * arrival), {id}. "{name}-{index}" where it is left out.
   */
  name?: string | null;
}
/**
 * Redraw a picture, led by words.
 */
export interface ImageToImageRequest extends GenerationRequest {
  /**
   * "source" draws in the source's own size, after its EXIF rotation, and refuses one that the model cannot draw
   * exactly; instead of aspect_ratio, width and height. An edit is not refused: it is drawn at the nearest size
   * that the model can draw, and brought back to the source's exact size. Where no size at all is given, the
   * recommended size whose shape is nearest to the source's is taken. The source is image, the first of images, or
   * control_image.
   */
  size?: "source" | null;
  /**
   * How a picture of another shape is brought to the result's, never by stretching. pad: all of it is kept, the
   * margins are filled. crop: its middle is cut out. scale: the result takes the picture's shape instead, at about
   * the number of pixels that is recommended; without aspect_ratio, width, height and size.
   */
  fit?: Fit;
  /**
   * What is to be done.
   */
  task?: "image-to-image";
  /**
   * The source picture: a path relative to the job file, in its folder or below. PNG, JPEG or WEBP.
   */
  image: string;
  /**
   * How much of the source is redrawn: near 0 keeps it, 1.0 ignores it. ceil(steps × strength) steps run.
   */
  strength?: number;
}
/**
 * Redraw a part of a picture, led by words.
 */
export interface InpaintRequest extends GenerationRequest {
  /**
   * "source" draws in the source's own size, after its EXIF rotation, and refuses one that the model cannot draw
   * exactly; instead of aspect_ratio, width and height. An edit is not refused: it is drawn at the nearest size
   * that the model can draw, and brought back to the source's exact size. Where no size at all is given, the
   * recommended size whose shape is nearest to the source's is taken. The source is image, the first of images, or
   * control_image.
   */
  size?: "source" | null;
  /**
   * How a picture of another shape is brought to the result's, never by stretching. pad: all of it is kept, the
   * margins are filled. crop: its middle is cut out. scale: the result takes the picture's shape instead, at about
   * the number of pixels that is recommended; without aspect_ratio, width, height and size.
   */
  fit?: Fit;
  /**
   * What is to be done.
   */
  task?: "inpaint";
  /**
   * The source picture: a path relative to the job file, in its folder or below. PNG, JPEG or WEBP.
   */
  image: string;
  /**
   * Where to redraw: a picture of the source's shape, white where it is redrawn and black where it is kept. Left
   * out: the source's own transparency; what is transparent is redrawn.
   */
  mask?: string | null;
  /**
   * How much of the masked part is redrawn: near 0 keeps it, 1.0 ignores what was there. ceil(steps × strength)
   * steps run.
   */
  strength?: number;
  /**
   * true: what is not masked is taken from the source, to the pixel. false: as the model gives it, which is
   * nearly the source.
   */
  preserve_unmasked?: boolean;
}
/**
 * Change pictures as told, or make one of several.
 */
export interface EditRequest extends GenerationRequest {
  /**
   * "source" draws in the source's own size, after its EXIF rotation, and refuses one that the model cannot draw
   * exactly; instead of aspect_ratio, width and height. An edit is not refused: it is drawn at the nearest size
   * that the model can draw, and brought back to the source's exact size. Where no size at all is given, the
   * recommended size whose shape is nearest to the source's is taken. The source is image, the first of images, or
   * control_image.
   */
  size?: "source" | null;
  /**
   * How a picture of another shape is brought to the result's, never by stretching. pad: all of it is kept, the
   * margins are filled. crop: its middle is cut out. scale: the result takes the picture's shape instead, at about
   * the number of pixels that is recommended; without aspect_ratio, width, height and size.
   */
  fit?: Fit;
  /**
   * What is to be done.
   */
  task?: "edit";
  /**
   * The picture to edit: a path relative to the job file, in its folder or below. PNG, JPEG or WEBP. Instead of
   * images.
   */
  image?: string | null;
  /**
   * The pictures to edit, at most 10 (Qwen-Image-Edit: one), in the order in which the prompt counts them ("the
   * person of picture 1 …"). Instead of image.
   */
  images?: string[] | null;
  /**
   * Where to edit, for one picture and Qwen-Image-Edit only: white where it is changed, black where it is kept.
   * Everywhere where it is left out. With a mask the size is the model's choice: the picture's shape, at about
   * 1024×1024 pixels; without aspect_ratio, width and height. size = "source" brings the result back to the
   * picture's own size.
   */
  mask?: string | null;
  /**
   * true: what is not masked is taken from the source, to the pixel. false: as the model gives it. Only with
   * mask.
   */
  preserve_unmasked?: boolean;
}
/**
 * Take a picture apart into layers with transparency.
 */
export interface LayeredRequest extends GenerationParameters {
  /**
   * What is to be done.
   */
  task?: "layered";
  /**
   * The picture to take apart: a path relative to the job file, in its folder or below. PNG, JPEG or WEBP.
   */
  image: string;
  /**
   * What the picture shows, in all. The model describes it itself where it is left out; the result holds its
   * words.
   */
  prompt?: string | null;
  /**
   * Into how many layers, 1 to 10.
   */
  layers?: number;
  /**
   * 640 (recommended by the makers) or 1024: the layers have the picture's shape and about as many pixels as a
   * square of this side.
   */
  resolution?: 640 | 1024;
}
/**
 * Draw to a prompt along the lines, depths or poses of a control picture.
 */
export interface ControlNetRequest extends GenerationRequest {
  /**
   * "source" draws in the source's own size, after its EXIF rotation, and refuses one that the model cannot draw
   * exactly; instead of aspect_ratio, width and height. An edit is not refused: it is drawn at the nearest size
   * that the model can draw, and brought back to the source's exact size. Where no size at all is given, the
   * recommended size whose shape is nearest to the source's is taken. The source is image, the first of images, or
   * control_image.
   */
  size?: "source" | null;
  /**
   * How a picture of another shape is brought to the result's, never by stretching. pad: all of it is kept, the
   * margins are filled. crop: its middle is cut out. scale: the result takes the picture's shape instead, at about
   * the number of pixels that is recommended; without aspect_ratio, width, height and size.
   */
  fit?: Fit;
  /**
   * What is to be done.
   */
  task?: "controlnet";
  /**
   * The control picture (edges, depth map, pose, …), ready-made; with mask, the picture of which a part is
   * redrawn. A path relative to the job file, in its folder or below. PNG, JPEG or WEBP.
   */
  control_image: string;
  /**
   * A ControlNet's name out of the settings' [controlnets.NAME]. The only one for the model and purpose where it
   * is left out.
   */
  controlnet?: string | null;
  /**
   * How closely the control picture is followed, above 0 to 2.0.
   */
  control_scale?: number;
  /**
   * From which part of the steps on the control picture counts, 0.0 (the first) to 1.0 (the last).
   */
  control_start?: number;
  /**
   * Up to which part of the steps the control picture counts, 0.0 to 1.0; above control_start.
   */
  control_end?: number;
  /**
   * Where to redraw, for inpaint ControlNets, which need it: white where control_image is redrawn, black
   * where it is kept.
   */
  mask?: string | null;
  /**
   * true: what is not masked is taken from control_image, to the pixel. false: as the model gives it. Only with
   * mask.
   */
  preserve_unmasked?: boolean;
}
/**
 * What a file says beside the settings of its jobs. Only at the top of the file.
 */
export interface BatchSettings {
  /**
   * Settings for all of the jobs in the list `jobs`. What a job sets itself wins.
   */
  defaults?: JobSettings | null;
  /**
   * The jobs, each with settings of its own: in TOML one [[jobs]] for each.
   */
  jobs?: JobSettings[] | null;
  /**
   * A sweep: for each setting the list of its values, and `combine`: "product" (each with each, where it is
   * left out) or "zip" (the first ones together, then the second ones). The last setting changes first.
   */
  matrix?: Sweep | null;
  /**
   * Prompts, each for a job of its own.
   */
  prompts?: string[] | null;
  /**
   * A list beside the job file: .txt with one prompt a line (# begins a comment), or .csv whose first line names
   * the settings and whose other lines are a job each. An empty cell is as if it were not there.
   */
  prompts_from?: string | null;
  /**
   * What to make of the choices in prompts, {red|blue} and __colour__. random: num_prompts prompts drawn by lot,
   * the same ones each time (from the job's seed, or else from the file's content). all: each prompt that there is.
   * Where it is left out, braces and underscores are drawn as they are.
   */
  expand?: ("random" | "all") | null;
  /**
   * How many prompts to draw by lot from each one with choices. 1 where it is left out.
   */
  num_prompts?: number | null;
  /**
   * Lists for prompts: `colour = ["red", "blue"]` is __colour__ there. Entries may hold choices too.
   */
  wildcards?: {
    /**
     * @minItems 1
     * @maxItems 5000
     */
    [k: string]: string[];
  } | null;
  /**
   * refuse, where it is left out: one bad job refuses the whole file. skip: the good ones are drawn, and a
   * report among the failed ones says which were left out.
   */
  on_invalid?: ("refuse" | "skip") | null;
}
/**
 * What was asked, what was done, what came out.
 */
export interface JobResult {
  version: 1;
  id: string;
  name: string;
  /**
   * succeeded; failed: it was tried and could not be done; refused: the job file is wrong; cancelled: somebody
   * asked for its end; duplicate: the same job, by its own id, was sent before, and was not run again.
   */
  status: OutcomeStatus;
  /**
   * The sender's own words, out of the job file.
   */
  tags: string[];
  /**
   * The job file as it was dropped, in this folder; null where it was too large to be carried along.
   */
  job_file: string | null;
  /**
   * Which job it is of which file, where the file asked for many; null for a job by itself.
   */
  batch: BatchPlace | null;
  /**
   * What the job file asks for, in its author's own choices. Null for a refused file.
   */
  requested: (JobRequest & {task: Task}) | null;
  /**
   * What was done, every open choice filled in. null for a refused file.
   */
  effective: EffectiveParameters | null;
  /**
   * What was done otherwise than a reader of the job may expect, in sentences.
   */
  adjustments: string[];
  /**
   * Everything that is wrong with a refused file.
   */
  problems: ProblemRecord[];
  /**
   * Why a job failed.
   */
  error: ErrorReport | null;
  /**
   * Of a duplicate: the id of the job that was sent before, under whose id its result lies.
   */
  earlier: string | null;
  /**
   * Who asked for the end of a cancelled job.
   */
  cancelled_by: string | null;
  images: ImageResult[];
  /**
   * Every other file of this folder, so that a copy of it can be checked.
   */
  files: FileRecord[];
  received_at: string;
  started_at: string | null;
  finished_at: string;
  attempts: number;
  timings: Timings;
  /**
   * What drew the pictures: pipeline, device, precision, software versions.
   */
  model: ModelInfo | null;
  memory_before: MemoryInfo | null;
  memory_after: MemoryInfo | null;
  /**
   * How memory was cleared before the first picture of the last attempt. null where nothing was drawn.
   */
  clean_up_before: CleanUp | null;
  /**
   * How memory was cleared when the job was over. null where nothing was drawn, and for cancelled jobs.
   */
  clean_up_after: CleanUp | null;
  /**
   * Version of qwen-image-daemon that gave out this result.
   */
  daemon_version: string;
}
/**
 * Of which batch a job is one, and which.
 */
export interface BatchPlace {
  /**
   * The batch's own id: all its jobs have the same.
   */
  id: string;
  /**
   * What the file calls all of it together, or its own name.
   */
  name: string;
  /**
   * The sender's own id of the whole file.
   */
  key: string | null;
  /**
   * The file that was dropped, and the prompt list that it names. They lie beside the results of the batch.
   */
  files: FileRecord[];
  /**
   * What the file makes of this job; null for the report on those that were left out.
   */
  origin: Origin | null;
}
/**
 * One file as it was when it was copied or written.
 */
export interface FileRecord {
  /**
   * Relative, with forward slashes.
   */
  path: string;
  size_bytes: number;
  sha256: string;
}
/**
 * Where a job of a batch comes from.
 */
export interface Origin {
  /**
   * Which of the file's jobs it is, counted from 1.
   */
  index: number;
  /**
   * How many jobs the file makes.
   */
  of: number;
  /**
   * The prompt with its choices, before they were made; null where it has none.
   */
  template: string | null;
  /**
   * The line of the prompt list that it comes from, counted from 1; null where there is no list.
   */
  line: number | null;
  /**
   * What the matrix sets for it.
   */
  matrix: {
    [k: string]: unknown;
  };
}
/**
 * What the renderer is really asked for. Image k is drawn from seed + k.
 */
export interface EffectiveParameters {
  task: Task;
  model: string;
  /**
   * What is drawn: the prompt that was asked for, in the words of its style. Empty exactly for a layered job
   * that leaves it to the model to describe the picture.
   */
  prompt: string;
  /**
   * The prompt as it was written, where a style's words were written around it.
   */
  original_prompt: string | null;
  /**
   * The style whose words were written around the prompt; null where there are none.
   */
  style: string | null;
  /**
   * null exactly if classifier-free guidance is off.
   */
  negative_prompt: string | null;
  true_cfg_scale: number;
  num_inference_steps: number;
  /**
   * Pixels.
   */
  width: number;
  /**
   * Pixels.
   */
  height: number;
  seed: number;
  num_images: number;
  /**
   * The source of image-to-image, inpaint and layered.
   */
  image: string | null;
  /**
   * The references of an edit, in order; the first decides the size.
   */
  images: string[];
  /**
   * White is redrawn.
   */
  mask: string | null;
  /**
   * The mask is the source's own transparency: what is transparent is redrawn.
   */
  mask_from_alpha: boolean;
  control_image: string | null;
  /**
   * Its name in the settings.
   */
  controlnet: string | null;
  control_scale: number | null;
  control_start: number | null;
  control_end: number | null;
  /**
   * How much is redrawn: for image-to-image, inpaint, and edits with a mask (1.0).
   */
  strength: number | null;
  /**
   * How pictures of another shape are brought to width and height.
   */
  fit: Fit;
  /**
   * What was drawn in width and height is brought back to the exact size of the first picture. Only edits.
   */
  back_to_source: boolean;
  /**
   * What is not masked is taken from the source. Never true without a mask.
   */
  preserve_unmasked: boolean;
  layers: number | null;
  resolution: (640 | 1024) | null;
  loras: EffectiveLora[];
  /**
   * null: the model's own.
   */
  scheduler: EffectiveScheduler | null;
  /**
   * What cannot be drawn exactly so is an error; else it is an adjustment.
   */
  strict: boolean;
  output: EffectiveOutput;
  /**
   * What was filled in otherwise than asked, in sentences. Always empty where `strict` is true.
   */
  adjustments: string[];
}
/**
 * One LoRA that is laid over the model while a job is drawn.
 */
export interface EffectiveLora {
  /**
   * Its file's name in the daemon's LoRA folder, without .safetensors, or one of the settings' [loras.NAME].
   */
  name: string;
  /**
   * How strongly it is laid over the model, -4.0 to 4.0, and not 0: that would do nothing. Below 0 it works the
   * other way round.
   */
  weight: number;
}
/**
 * How noise is taken away, step by step.
 */
export interface EffectiveScheduler {
  /**
   * euler: the makers' own (flow matching, Euler steps), here with settings of one's own. lightning: the same as
   * the Lightning LoRAs want it; taken by itself where such a LoRA is used. unipc: a multistep solver, for
   * text-to-image only. lcm: for LCM-distilled LoRAs.
   */
  name: SchedulerName;
  /**
   * How far the steps are moved towards high noise, above 0 to 20. The same for all sizes. Left out: as the
   * model has it, which is more for larger pictures.
   */
  shift: number | null;
  /**
   * The noise level that the last step ends at, above 0 and below 1 (0.02 for Qwen-Image 1.x). Left out: as the
   * model has it.
   */
  shift_terminal: number | null;
  /**
   * How the noise levels are spaced. Evenly, before the shift, where it is left out.
   */
  sigmas: ("karras" | "exponential") | null;
  /**
   * How many earlier steps unipc looks at, 1 to 3. 2 where it is left out. Only for unipc.
   */
  solver_order: number | null;
}
/**
 * How the pictures of a job are written.
 */
export interface EffectiveOutput {
  /**
   * File format. png and webp are written without loss; jpeg is not.
   */
  format: OutputFormat;
  /**
   * JPEG quality, 1 to 100 (95 where it is left out). Only for jpeg.
   */
  quality: number | null;
  /**
   * What the pictures are called, without suffix: words and {name}, {index} (from 1), {seed}, {date} (of
   * arrival), {id}. "{name}-{index}" where it is left out.
   */
  name: string | null;
}
/**
 * One complaint about a job file.
 */
export interface ProblemRecord {
  where: string;
  what: string;
  fix: string;
}
/**
 * Why a job failed, in words for a person.
 */
export interface ErrorReport {
  /**
   * Class of the error, for programs.
   */
  kind: string;
  what: string;
  fix: string;
  /**
   * What else is known, in lines: how the process died, memory, the end of the job's log.
   */
  details: string[];
}
/**
 * One picture of the result.
 */
export interface ImageResult {
  file: FileRecord;
  /**
   * Drawing one picture with this seed and the effective parameters gives this picture again.
   */
  seed: number;
  /**
   * Denoising steps that were run.
   */
  steps: number;
  /**
   * Of a layered job: the layers as files of their own, the lowest first; `file` has all, one over the other.
   */
  layers: FileRecord[];
  /**
   * The prompt that the model found itself, where a layered job left it to it.
   */
  caption: string | null;
  /**
   * Where the model's weights were while it was drawn, and whether that changed it.
   */
  arrangement: Arrangement | null;
}
/**
 * Where the model's weights were while a picture was drawn, and what that means for it.
 */
export interface Arrangement {
  /**
   * Name of the arrangement; `qwen-image-daemon plan` explains them.
   */
  plan: string;
  /**
   * exact: the picture of an unlimited card, to the bit. float-drift: computed on another device than asked for,
   * or in another order, whose rounding differs. lossy: with weights in fewer bits, or encoded or decoded in
   * tiles.
   */
  exactness: "exact" | "float-drift" | "lossy";
  /**
   * What made it not exact, one sentence each without its full stop; none where it is exact.
   */
  levers: string[];
  /**
   * How the pictures that it is drawn from were encoded by the VAE, in the words of `decoding`.
   */
  encoding: string;
  /**
   * How it was decoded: whole; alone: with nothing else on the device; sliced: one layer after the other;
   * tiles-512, tiles-256, tiles-128: in tiles of so many pixels; cpu: on the CPU.
   */
  decoding: string;
  /**
   * What was done because memory ran out, one after the other.
   */
  steps_down: string[];
}
/**
 * Seconds of wall time. Those of the stages are sums over all pictures of the job.
 */
export interface Timings {
  /**
   * From the arrival to the first attempt, or to the refusal.
   */
  queued: number;
  /**
   * Waiting for the model to be loaded.
   */
  load: number;
  encode: number;
  denoise: number;
  decode: number;
  save: number;
  /**
   * From the arrival to the end.
   */
  total: number;
}
/**
 * What is loaded, for the record in each result.
 */
export interface ModelInfo {
  /**
   * Architecture of the model. Results from before there were several have none, and are of this one.
   */
  family:
    | "qwen-image"
    | "qwen-image-edit"
    | "qwen-image-edit-plus"
    | "qwen-image-layered"
    | "qwen-image-2.1"
    | "qwen-image-2.1-turbo"
    | "demo";
  /**
   * The makers' licence, as far as it is known.
   */
  licence: string | null;
  /**
   * Class of the pipeline, for example `QwenImagePipeline`.
   */
  pipeline: string;
  /**
   * Folder or hub name that the checkpoint was loaded from.
   */
  source: string;
  /**
   * The hub revision asked for, if any.
   */
  revision: string | null;
  /**
   * The hub's commit that was loaded; null for folders.
   */
  commit: string | null;
  /**
   * What was held against listed hashes, and against which; null where no list was there.
   */
  verified: string | null;
  device: string;
  /**
   * The floating point format of the weights, for example `bfloat16`.
   */
  precision: string;
  /**
   * What is not as it was first asked for, and why (for example a fall-back to another precision).
   */
  notes: string[];
  /**
   * Versions of the libraries that drew the picture.
   */
  versions: {
    [k: string]: string;
  };
  load_seconds: number;
}
/**
 * Memory at one moment, in bytes. The device's figures are the host's where the device is the CPU.
 */
export interface MemoryInfo {
  /**
   * Name of the device, for example `cuda:0` or `cpu`.
   */
  device: string;
  /**
   * Held by tensors. On the CPU: the resident memory of the process.
   */
  allocated_bytes: number;
  /**
   * Held by the allocator. On the CPU: the resident memory of the process.
   */
  reserved_bytes: number;
  /**
   * Free on the device, for all processes.
   */
  free_bytes: number;
  /**
   * Size of the device's memory.
   */
  total_bytes: number;
  /**
   * Resident memory of the render process.
   */
  process_rss_bytes: number;
  /**
   * The most that tensors held on the device since the last report; on the CPU the most that the process ever
   * held. null where it is not known.
   */
  peak_bytes: number | null;
  /**
   * Of what tensors hold on the device: copies of the transformers of models that stand by. They go as soon as
   * the model at work needs the room.
   */
  standing_by_bytes: number;
  /**
   * Free within the process's heap, where the C library keeps it for later. Some of it may have been handed back
   * to the system already, which nobody counts. null where it is not known: only glibc tells.
   */
  idle_heap_bytes: number | null;
}
/**
 * One clearing of memory before or after a job: what was found, what was done about it, what that cost.
 */
export interface CleanUp {
  /**
   * In this order.
   */
  done: ("garbage collected" | "device caches emptied" | "heap trimmed")[];
  /**
   * Why that was done and no more, in sentences without their full stops.
   */
  reason: string;
  /**
   * What it cost, with waiting for the device and measuring.
   */
  seconds: number;
  /**
   * Memory before. Its peak is that of what was drawn since the last clean-up.
   */
  found: MemoryInfo;
  /**
   * Memory afterwards, with the same peak.
   */
  left: MemoryInfo;
  /**
   * The plan by which the model lies in this memory. null where there is no model, or none of it on a device.
   */
  arrangement: string | null;
}
/**
 * All about the daemon at one moment: both the queue's and the memory's answer.
 */
export interface DaemonStatus extends MemoryResponse, QueueResponse {}
/**
 * What a front end that shows the memory needs. Every status is one.
 */
export interface MemoryResponse extends DaemonMoment {
  /**
   * The model that is loaded.
   */
  model: ModelInfo | null;
  /**
   * A model that is being fetched, checked or loaded, and how far that is.
   */
  loading: LoadingModel | null;
  /**
   * Memory of the render process and its device, as last reported.
   */
  memory: MemoryInfo | null;
  /**
   * What the last jobs left in use of it, at least.
   */
  memory_floor: MemoryFloor | null;
}
/**
 * A model, or a part of one, that is being loaded.
 */
export interface LoadingModel {
  /**
   * The settings' name of the model.
   */
  name: string;
  /**
   * fetch: what is missing comes from the hub. verify: files are held against their listed hashes. read: files
   * with weights are read. arrange: the model comes onto its device, and a trial picture is drawn.
   */
  stage: "fetch" | "verify" | "read" | "arrange";
  /**
   * The component or file that it is at.
   */
  part: string | null;
  done_bytes: number;
  /**
   * Of this stage; 0 where there is nothing to count.
   */
  total_bytes: number;
  began_at: string;
}
/**
 * The least that jobs leave in use: of the first few, and of the last few. Where it rises, something leaks.
 *
 * Of jobs with one model in one arrangement, since the render process began.
 */
export interface MemoryFloor {
  /**
   * The settings' name of the model.
   */
  model: string;
  /**
   * The plan by which it was arranged; null where there is none.
   */
  arrangement: string | null;
  jobs: number;
  /**
   * Resident memory of the render process that it shares with no file, so without mapped weights.
   */
  host_first_bytes: number;
  host_bytes: number;
  /**
   * Held by tensors on the device. null where that is the host.
   */
  device_first_bytes: number | null;
  device_bytes: number | null;
}
/**
 * The daemon at one moment: whose word this is, and whether it works.
 */
export interface DaemonMoment {
  version: 1;
  daemon_version: string;
  host: string;
  pid: number;
  /**
   * paused: somebody asked it to begin nothing; troubled: it waits for a fault of its surroundings to pass;
   * broken: it gave up, and says why.
   */
  state: DaemonState;
  /**
   * What to know although nothing is wrong: who paused it, and how it goes on.
   */
  note: string | null;
  /**
   * What is wrong at present, in sentences.
   */
  trouble: string[];
  started_at: string;
  /**
   * When this was last found to be so; an old time means that the daemon is not running.
   */
  updated_at: string;
}
/**
 * What a front end that shows the queue needs. Every status is one.
 */
export interface QueueResponse extends DaemonMoment {
  /**
   * The job that is being rendered, with step and estimated end.
   */
  current: CurrentJob | null;
  /**
   * The next jobs in the order in which they will be taken, at most 200.
   */
  queue: QueueItem[];
  /**
   * Job files in the inbox that wait, with the reason.
   */
  waiting: {
    [k: string]: string;
  };
  counts: Counts;
}
/**
 * The job that is being rendered.
 */
export interface CurrentJob {
  id: string;
  name: string;
  /**
   * The picture being drawn, counted from 1.
   */
  image: number;
  images: number;
  stage: Stage;
  /**
   * Finished denoising steps of this picture.
   */
  step: number;
  steps: number;
  started_at: string;
  /**
   * Estimated time to the end of the job: by its own pace once a step is done, before that by the pace of such
   * pictures; null where none was drawn.
   */
  eta_seconds: number | null;
  /**
   * What is out of the ordinary: the CPU draws it as the last resort, and how long a picture takes there.
   */
  note: string | null;
}
/**
 * One job that is not given out yet.
 */
export interface QueueItem {
  id: string;
  name: string;
  /**
   * queued; rendering; rendered: finished, and about to be given out.
   */
  status: QueueStatus;
  priority: number;
  /**
   * Pictures asked for; 0 for a refused file.
   */
  images: number;
  received_at: string;
  /**
   * When its first attempt began; null where none did.
   */
  started_at: string | null;
  /**
   * The moment before which it is not begun, as its author wrote it; null where it may begin at once.
   */
  not_before: string | null;
  /**
   * The name and id of the batch that it is one job of, as the folder of its results is called; null where it is
   * by itself.
   */
  batch: string | null;
}
/**
 * Jobs by where they are. The last five count what was given out since the spool was last cleared.
 */
export interface Counts {
  /**
   * Dropped, but not whole yet: still being written, or waiting for a picture.
   */
  waiting: number;
  queued: number;
  rendering: number;
  rendered: number;
  succeeded: number;
  failed: number;
  refused: number;
  cancelled: number;
  duplicate: number;
}
/**
 * Every job on its way, what waits in the inbox, and the last that failed.
 */
export interface JobList {
  /**
   * In the order in which they will be done.
   */
  jobs: QueueItem[];
  /**
   * Job files in the inbox that wait, with the reason, as the daemon saw them last.
   */
  waiting: {
    [k: string]: string;
  };
  /**
   * The last jobs that failed or were refused or cancelled, the latest first.
   */
  ended: EndedJob[];
}
/**
 * A job that was given out, and did not succeed.
 */
export interface EndedJob {
  id: string;
  name: string;
  status: OutcomeStatus;
  finished_at: string;
}
