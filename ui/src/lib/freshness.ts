// How often tags are asked about, as entries of a list. Pure.
import type { Freshness, FreshnessRule } from "./contract";

/** The pattern of everything, as the engine writes it. */
export const EVERYTHING = "*/**";

const DAY = 86_400;
const OFFERED: readonly Freshness[] = ["always", { every: 300 }, { every: 900 }, { every: 3600 }, { every: 21_600 }, { every: DAY }, "on_request", "never"];
const BOUNDS: readonly (number | null)[] = [null, DAY, 7 * DAY, 30 * DAY];

/** What an entry is told apart by: `always`, `900`, `on_request`, `never`. */
export const entry = (check: Freshness): string => (typeof check === "object" ? String(check.every) : check);

/** The same, read. */
export function check(entry: string): Freshness {
  if (entry === "on_request" || entry === "never") return entry;
  const every = Number(entry);
  return Number.isInteger(every) && every > 0 ? { every } : "always";
}

/** The entries to choose from; what is in force has one, wherever it was set. */
export function checks(now: Freshness): Freshness[] {
  if (OFFERED.some((one) => entry(one) === entry(now))) return [...OFFERED];
  const rank = (one: Freshness): number => (one === "always" ? 0 : typeof one === "object" ? one.every : Infinity);
  return [...OFFERED, now].sort((a, b) => (rank(a) === rank(b) ? 0 : rank(a) - rank(b)));
}

/** The bounds of age to choose from, in seconds, that in force among them; `null`: none. */
export function bounds(now: number | null): (number | null)[] {
  return BOUNDS.includes(now) ? [...BOUNDS] : [...BOUNDS, now].sort((a, b) => (a ?? 0) - (b ?? 0));
}

/** A bound in whole days, never less than it is. */
export const days = (seconds: number): number => Math.ceil(seconds / DAY);

/** What holds for everything, and the rules for some images, by pattern. */
export function parted(rules: readonly FreshnessRule[]): { all: FreshnessRule; some: FreshnessRule[] } {
  const all = rules.find((rule) => rule.pattern === EVERYTHING) ?? { pattern: EVERYTHING, check: "always", stale_max_seconds: null };
  const some = rules.filter((rule) => rule.pattern !== EVERYTHING);
  return { all, some: some.sort((a, b) => a.pattern.localeCompare(b.pattern)) };
}
