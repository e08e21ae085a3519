// Quotas and age limits to choose from. Pure.
import type { AgeLimit, Quota } from "./contract";

const GB = 1_000_000_000;
const SIZES = [5 * GB, 10 * GB, 20 * GB, 50 * GB, 100 * GB, 200 * GB];
const DAYS = [30, 90, 180, 365];

/** What is offered while `current` is in force: a quota set elsewhere has an entry of its own, in its place. */
export function quotas(current: Quota): Quota[] {
  const sizes = typeof current === "object" && !SIZES.includes(current.bytes) ? [...SIZES, current.bytes] : SIZES;
  return ["auto", ...[...sizes].sort((one, other) => one - other).map((bytes) => ({ bytes })), "off"];
}

/** A quota as the name of an entry. */
export const quotaEntry = (quota: Quota): string => (typeof quota === "object" ? String(quota.bytes) : quota);

/** The quota that the entry of this name stands for. */
export const quotaChange = (name: string): Quota => (name === "auto" || name === "off" ? name : { bytes: Number(name) });

/** Age limits in days, `null` for none; one set elsewhere has an entry of its own. */
export function ages(current: number | null): (number | null)[] {
  const days = current !== null && !DAYS.includes(current) ? [...DAYS, current] : DAYS;
  return [null, ...[...days].sort((one, other) => one - other)];
}

/** Whether an age limit of `days` removes what `before` kept. */
export const isStricter = (days: number | null, before: number | null): boolean => days !== null && (before === null || days < before);

export const ageEntry = (days: number | null): string => (days === null ? "off" : String(days));

export const ageChange = (name: string): AgeLimit => (name === "off" ? "off" : { days: Number(name) });
