// Speed limits to choose from, the same as in the tray's menu (src-tauri/src/menu.rs). Pure.
import type { SpeedLimit } from "./contract";

/** Bytes per second; `null`: no limit. */
export type Limit = number | null;

/** What is always offered. */
export const OFFERED: readonly Limit[] = [null, 250_000, 1_000_000, 5_000_000];

/** What is offered while `current` is in force: a limit set elsewhere has an entry of its own, in its place. */
export function choices(current: Limit): Limit[] {
  if (OFFERED.includes(current)) return [...OFFERED];
  return [...OFFERED, current].sort((one, other) => (one ?? 0) - (other ?? 0));
}

/** A limit as the name of an entry. */
export const entry = (limit: Limit): string => (limit === null ? "off" : String(limit));

/** The change that the entry of this name asks for. */
export const change = (name: string): SpeedLimit => (name === "off" ? "off" : { bytes_per_second: Number(name) });
