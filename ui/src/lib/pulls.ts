// What a pull looks like, decided without a page.
import type { LayerSource, Pull, Snapshot } from "./contract";

/** Sources in the order of the legend; `waiting` is no source yet. */
export const SOURCES: readonly Exclude<LayerSource, "waiting">[] = ["disk", "joined", "upstream"];

/** Bytes delivered from each source. */
export function bytesBySource(pull: Pull): Record<LayerSource, number> {
  const sums = { waiting: 0, disk: 0, joined: 0, upstream: 0 };
  for (const layer of pull.layers) sums[layer.source] += layer.done_bytes;
  return sums;
}

/** What of the delivered bytes did not cross the link for this pull; never negative. */
export function savedBytes(pull: Pull): number {
  return Math.max(0, pull.done_bytes - pull.fetched_bytes);
}

/** How much of the pull is done, 0 to 1; `null` while its size is not known. */
export function share(pull: Pull): number | null {
  if (pull.size_bytes === null) return null;
  return pull.size_bytes === 0 ? 1 : Math.min(1, pull.done_bytes / pull.size_bytes);
}

/** Seconds a finished pull took. */
export function seconds(pull: Pull): number {
  return Math.max(0, ((pull.ended ?? pull.started) - pull.started) / 1000);
}

/** All active pulls as one: bytes done and wanted. `size` is `null` while one of them is unknown. */
export function together(snapshot: Snapshot): { count: number; done: number; size: number | null } {
  const active = snapshot.pulls.filter((pull) => pull.state === "active");
  let size: number | null = 0;
  let done = 0;
  for (const pull of active) {
    done += pull.done_bytes;
    size = size === null || pull.size_bytes === null ? null : size + pull.size_bytes;
  }
  return { count: active.length, done, size };
}

/** Lets an announcement through at most every `interval` milliseconds, and only a new one. */
export class Announcer {
  #last = Number.NEGATIVE_INFINITY;
  #said = "";

  constructor(private readonly interval: number) {}

  /** The text to say now, or `null` to stay quiet. `now` in milliseconds. */
  say(text: string, now: number): string | null {
    if (text === this.#said || now - this.#last < this.interval) return null;
    this.#last = now;
    this.#said = text;
    return text;
  }
}
