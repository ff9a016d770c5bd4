// A front end over the daemon's folders, in small: what it writes into the inbox, and what it shows of the outbox.
// The lines below @ts-expect-error are wrong uses, which the compiler must refuse.
import type {
  AspectRatio,
  BatchRequest,
  ControlNetRequest,
  DaemonStatus,
  Documents,
  EditRequest,
  GenerationParameters,
  GenerationRequest,
  ImageToImageRequest,
  InpaintRequest,
  JobRequest,
  JobResult,
  LayeredRequest,
  MemoryInfo,
  MemoryResponse,
  QueueItem,
  QueueResponse,
  TextToImageRequest,
} from "../../config/api";

// What a form holds. Only the prompt is needed.
const shared: GenerationParameters = {
  preset: "draft",
  true_cfg_scale: 4.0,
  seed: 7,
  loras: ["watercolour", { name: "faces", weight: 0.6 }],
  scheduler: { name: "euler", shift: 3.0 },
  output: { format: "jpeg", quality: 92 },
};
const shapes: readonly AspectRatio[] = ["1:1", "16:9", "2:3"];
const words: GenerationRequest = { ...shared, prompt: "a lighthouse at dusk", aspect_ratio: shapes[1] ?? "1:1" };
const drawn: TextToImageRequest = { ...words, task: "text-to-image" };
const redrawn: ImageToImageRequest = { ...words, image: "harbour.jpg", strength: 0.6, size: "source" };
const inpainted: InpaintRequest = { ...words, image: "harbour.jpg", mask: "mask.png", preserve_unmasked: true };
const edited: EditRequest = { prompt: "Put the lighthouse on the quay.", images: ["harbour.jpg", "lighthouse.png"] };
const layered: LayeredRequest = { task: "layered", image: "harbour.jpg", layers: 3, resolution: 640 };
const controlled: ControlNetRequest = { ...words, control_image: "edges.png", control_scale: 0.9 };
const requests: JobRequest[] = [drawn, redrawn, inpainted, edited, layered, controlled];

// Every request that draws to a prompt is a GenerationRequest, and every request has its parameters.
const withPrompt: GenerationRequest[] = [drawn, redrawn, inpainted, edited, controlled];
const withParameters: GenerationParameters[] = [...withPrompt, layered];

// One file, many jobs.
const sweep: BatchRequest = {
  prompt: "a lighthouse at dusk",
  image: "harbour.jpg",
  matrix: { strength: [0.4, 0.6], preset: ["draft", "high"], "output.format": ["png", "webp"], combine: "product" },
};
const listed: BatchRequest = {
  defaults: { ...shared, aspect_ratio: "3:2" },
  jobs: [{ prompt: "a lighthouse" }, { image: "harbour.jpg", task: "layered" }],
  on_invalid: "skip",
};

export function jobFile(request: JobRequest | BatchRequest): string {
  return JSON.stringify(request, null, 2);
}

export function pictureOf(request: JobRequest): string | undefined {
  switch (request.task) {
    case "image-to-image":
    case "inpaint":
    case "layered":
      return request.image;
    case "controlnet":
      return request.control_image;
    case "edit":
      return request.image ?? request.images?.[0];
    default:
      return undefined;
  }
}

export function line(item: QueueItem): string {
  const since = new Date(item.started_at ?? item.received_at);
  return `${item.name}: ${item.status} since ${since.toISOString()}, ${item.images} pictures`;
}

export function queueLines(queue: QueueResponse): string[] {
  const now = queue.current;
  const drawing = now === null ? [] : [`${now.name}: step ${now.step} of ${now.steps}, ${now.eta_seconds ?? "?"} s`];
  return [...drawing, ...queue.queue.map(line), `${queue.counts.succeeded} done`];
}

export function used(memory: MemoryInfo): number {
  return (memory.total_bytes - memory.free_bytes) / memory.total_bytes;
}

export function memoryLine(response: MemoryResponse): string {
  const { memory, model } = response;
  return memory === null ? response.state : `${model?.pipeline ?? "no model"}: ${used(memory)} of ${memory.device}`;
}

// The status is both answers at once.
export function page(status: DaemonStatus): string[] {
  return [memoryLine(status), ...queueLines(status)];
}

export function summary(result: JobResult): string {
  if (result.effective === null) {
    return result.problems.map((problem) => `${problem.where}: ${problem.what} ${problem.fix}`).join("\n");
  }
  const { width, height, true_cfg_scale, output } = result.effective;
  const files = result.images.map((image) => `${image.file.path} (seed ${image.seed})`);
  const task: string = result.requested?.task ?? "refused";
  return `${task} ${width}×${height} at ${true_cfg_scale.toFixed(1)}, ${output.format}: ${files.join(", ")}`;
}

export function asked(status: Documents["status.json"], list: Documents["list"]): QueueItem[] {
  return status.state === "rendering" ? list.jobs : [...status.queue];
}

// @ts-expect-error a job needs a prompt
const silent: GenerationRequest = { seed: 7 };
// @ts-expect-error no maker's shape
const odd: AspectRatio = "5:4";
// @ts-expect-error a source picture is needed
const sourceless: ImageToImageRequest = { prompt: "a lighthouse" };
// @ts-expect-error another program's word
const foreign: GenerationRequest = { prompt: "a lighthouse", guidance_scale: 7.5 };
// @ts-expect-error a number as text
const text: GenerationParameters = { num_inference_steps: "28" };
// @ts-expect-error words alone need no strength
const strong: TextToImageRequest = { prompt: "a lighthouse", strength: 0.5 };
// @ts-expect-error a task of another kind
const other: ImageToImageRequest = { prompt: "a lighthouse", image: "harbour.jpg", task: "edit" };
// @ts-expect-error layers have the picture's own size
const sized: LayeredRequest = { image: "harbour.jpg", width: 640 };
// @ts-expect-error a format that nobody can choose
const gif: GenerationParameters = { output: { format: "gif" } };
// @ts-expect-error a sweep is made of lists
const single: BatchRequest = { prompt: "a lighthouse", matrix: { seed: 7 } };
// @ts-expect-error in a file with many jobs no setting has another name either
const misspelt: BatchRequest = { jobs: [{ promt: "a lighthouse" }] };
// @ts-expect-error a status of the queue is one of three
export const ended = (item: QueueItem): boolean => item.status === "succeeded";
// @ts-expect-error what may be null must be looked at
export const free = (response: MemoryResponse): number => response.memory.free_bytes;
// @ts-expect-error refused jobs have no effective parameters
export const seeds = (result: JobResult): number => result.effective.seed;

export { foreign, gif, listed, misspelt, odd, other, requests, silent, single, sized, sourceless, strong, sweep, text, withParameters };
