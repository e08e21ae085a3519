// What the page says about images that are fetched ahead. Pure.
import type { Kept, Prefetch, PrefetchItem, PrefetchJob, QuietHours } from "./contract";
import type { Key } from "./texts";

/** The platforms offered; `""` is this machine's. Others are a matter for the command line. */
export const PLATFORMS = ["", "linux/amd64", "linux/arm64", "all"] as const;

/** The images somebody wrote: one a line, or apart by spaces or commas. */
export function items(text: string, platform: string): PrefetchItem[] {
  const names = text.split(/[\s,]+/).filter(Boolean);
  return [...new Set(names)].map((name) => ({ name, platform: platform === "" ? null : platform }));
}

/** `nginx:1.27` for `docker.io/library/nginx:1.27`, digests shortened. */
export function title(name: string): string {
  const short = name.replace(/^docker\.io\/library\//, "").replace(/^docker\.io\//, "");
  return short.replace(/@(sha256:[0-9a-f]{12})[0-9a-f]*/, "@$1");
}

/** What a job is about, as a key; its numbers are the caller's. */
export function stateKey(job: PrefetchJob, queue: Prefetch): Key {
  if (job.state === "done") return job.moved ? "prefetch.moved" : "prefetch.done";
  if (job.state === "failed") return "prefetch.failed";
  if (job.state === "running") return job.size_bytes === null ? "prefetch.asking" : "prefetch.running";
  if (job.again_at !== null) return "prefetch.again";
  const hurry = job.now && (queue.waits === "quiet_hours" || queue.waits === "metered");
  if (queue.waits === null || hurry) return "prefetch.waiting";
  if (queue.waits === "quiet_hours") return "prefetch.waits_hours";
  if (queue.waits === "offline") return "prefetch.waits_offline";
  if (queue.waits === "metered") return "prefetch.waits_metered";
  return queue.waits === "paused" ? "prefetch.waits_paused" : "prefetch.waits_sampan";
}

/** The entry that keeps a tag fresh, whatever its platform. */
export const keptAs = (kept: readonly Kept[], name: string): Kept | undefined => kept.find((one) => one.name === name);

/** `22:00`, as an `<input type="time">` has it. */
export const clockOf = (minutes: number): string =>
  `${String(Math.floor(minutes / 60)).padStart(2, "0")}:${String(minutes % 60).padStart(2, "0")}`;

/** The minutes of such a text; `null` where it is none. */
export function minutesOf(text: string): number | null {
  const found = /^([01]\d|2[0-3]):([0-5]\d)/.exec(text);
  return found === null ? null : Number(found[1]) * 60 + Number(found[2]);
}

/** The hours between two times, or `null` where one is missing or both are the same. */
export function hoursOf(from: string, to: string): QuietHours | null {
  const [begin, end] = [minutesOf(from), minutesOf(to)];
  return begin === null || end === null || begin === end ? null : { from: begin, to: end };
}
