// Numbers, sizes and times as people read them, by Intl. Sizes are SI: 1 MB is 1 000 000 bytes, as Docker counts.
const UNITS = ["B", "kB", "MB", "GB", "TB"] as const;
const INTL_UNITS = { kB: "kilobyte", MB: "megabyte", GB: "gigabyte", TB: "terabyte" } as const;
const cached = new Map<string, Intl.NumberFormat>();

function numbers(locale: string, options: Intl.NumberFormatOptions): Intl.NumberFormat {
  const key = locale + JSON.stringify(options);
  const found = cached.get(key) ?? new Intl.NumberFormat(locale, options);
  cached.set(key, found);
  return found;
}

export function number(locale: string, value: number): string {
  return numbers(locale, {}).format(value);
}

/** Bytes with three digits at most: `512 B`, `4.2 kB`, `412 MB`, `1.1 GB`; may be negative. */
export function size(locale: string, bytes: number): string {
  let value = Math.abs(bytes);
  let index = 0;
  // 999.5 would be written as 1,000 of its unit.
  while (value >= 999.5 && index < UNITS.length - 1) {
    value /= 1000;
    index += 1;
  }
  const unit = UNITS[index] ?? "B";
  const signed = bytes < 0 ? -value : value;
  if (unit === "B") return `${numbers(locale, { maximumFractionDigits: 0 }).format(signed)} B`;
  return numbers(locale, {
    style: "unit",
    unit: INTL_UNITS[unit],
    unitDisplay: "short",
    maximumFractionDigits: value < 100 ? 1 : 0,
  }).format(signed);
}

/** A share without decimals. Never 100 % before it is whole, never 0 % once something is there; `–` of nothing. */
export function percent(locale: string, part: number, whole: number): string {
  if (whole <= 0) return "–";
  let share = part / whole;
  if (part < whole) share = Math.min(share, 0.99);
  if (part > 0) share = Math.max(share, 0.01);
  return numbers(locale, { style: "percent", maximumFractionDigits: 0 }).format(share);
}

/** Seconds, rounded the way one says it: `42 sec`, `3 min`, `1 hr 20 min`. */
export function duration(locale: string, seconds: number): string {
  const unit = (name: "second" | "minute" | "hour", value: number): string =>
    numbers(locale, { style: "unit", unit: name, unitDisplay: "short" }).format(value);
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return unit("second", whole);
  const minutes = Math.round(whole / 60);
  if (minutes < 60) return unit("minute", minutes);
  const hours = Math.floor(minutes / 60);
  const rest = minutes % 60;
  return rest === 0 ? unit("hour", hours) : `${unit("hour", hours)} ${unit("minute", rest)}`;
}

/** The time of day; with the date where that is another day than `now`. */
export function clock(locale: string, at: number, now: number): string {
  const sameDay = new Date(at).toDateString() === new Date(now).toDateString();
  const time = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" } as const;
  if (sameDay) return new Intl.DateTimeFormat(locale, time).format(at);
  const date = new Intl.DateTimeFormat(locale, { day: "numeric", month: "short" }).format(at);
  return `${date}, ${new Intl.DateTimeFormat(locale, time).format(at)}`;
}

/** From a minute on: `3 minutes ago`, `yesterday`. "Just now" is the caller's. */
export function ago(locale: string, at: number, now: number): string {
  const relative = new Intl.RelativeTimeFormat(locale, { numeric: "auto" });
  const minutes = Math.max(0, Math.round((now - at) / 60_000));
  if (minutes < 60) return relative.format(-minutes, "minute");
  const hours = Math.round(minutes / 60);
  if (hours < 24) return relative.format(-hours, "hour");
  return relative.format(-Math.round(hours / 24), "day");
}

/** A local day `2026-11-20` as `20 Nov` or `Friday 20 November`. Noon keeps it on that day in every zone. */
export function day(locale: string, iso: string, style: "short" | "long"): string {
  const options: Intl.DateTimeFormatOptions =
    style === "short" ? { day: "numeric", month: "short" } : { weekday: "long", day: "numeric", month: "long" };
  return new Intl.DateTimeFormat(locale, options).format(new Date(`${iso}T12:00:00`));
}
