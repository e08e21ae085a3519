// The language on screen, and everything that depends on it.
import * as format from "./format";
import { chooseLocale, plural, text, type Key, type Locale, type PluralKey, type Values } from "./texts";

let current = $state<Locale>(chooseLocale(null, navigator.languages));

/** Shows another language. `null`: the system's. */
export function useLanguage(chosen: string | null): void {
  const next = chooseLocale(chosen, navigator.languages);
  if (next !== current) current = next;
  document.documentElement.lang = next;
}

export const locale = (): Locale => current;
export const t = (key: Key, values?: Values): string => text(current, key, values);
export const tn = (base: PluralKey, count: number, values?: Values): string => plural(current, base, count, values);

export const size = (bytes: number): string => format.size(current, bytes);
export const rate = (bytesPerSecond: number): string => `${format.size(current, bytesPerSecond)}/s`;
export const percent = (part: number, whole: number): string => format.percent(current, part, whole);
export const number = (value: number): string => format.number(current, value);
export const duration = (seconds: number): string => format.duration(current, seconds);
export const clock = (at: number, now: number): string => format.clock(current, at, now);
export const ago = (at: number, now: number): string =>
  now - at < 60_000 ? t("ago_now") : format.ago(current, at, now);
export const day = (iso: string, style: "short" | "long"): string => format.day(current, iso, style);
