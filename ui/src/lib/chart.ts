// The mathematics of the savings chart: days in, rectangles out. No page, no language.
//
// Only modules without `d3-color` are used: it assigns `constructor` on a plain object when it loads, which throws in
// the window, where the shell freezes `Object.prototype`. `scaleLinear` would bring it in; one division replaces it.
import { nice, ticks } from "d3-array";
import { scaleBand } from "d3-scale";
import { stack, stackOffsetDiverging } from "d3-shape";
import type { DayTotals } from "./contract";

export type Part = "cache" | "link";
export type Bar = { day: string; part: Part; x: number; y: number; width: number; height: number };
export type Chart = {
  bars: Bar[];
  /** The band of each day, gaps included, for pointing at. */
  bands: { day: string; x: number; width: number }[];
  grid: { bytes: number; y: number }[];
  /** Where zero is. */
  zero: number;
};

const PARTS: readonly Part[] = ["link", "cache"];

/**
 * Bars of one height per day: what crossed the link below, what came from the cache on top, together what Docker was given.
 * A day on which more was fetched than served has its missing part under the zero line.
 */
export function layOut(days: readonly DayTotals[], width: number, height: number): Chart {
  const value = (entry: DayTotals, part: Part): number =>
    part === "cache" ? entry.totals.saved_bytes : entry.totals.fetched_bytes;
  const series = stack<unknown, DayTotals, Part>().keys(PARTS).value(value).offset(stackOffsetDiverging)([...days]);
  const ends = series.flatMap((one) => one.flatMap((point) => [point[0], point[1]]));
  const [low, high] = nice(Math.min(0, ...ends), Math.max(1, ...ends), 4);
  const y = (bytes: number): number => height - ((bytes - low) / (high - low)) * height;
  const x = scaleBand<string>()
    .domain(days.map((entry) => entry.day))
    .range([0, width])
    .paddingInner(days.length > 40 ? 0.15 : 0.3)
    .paddingOuter(0.1);
  const bars = series.flatMap((one) =>
    one.flatMap((point): Bar[] => {
      const top = y(Math.max(point[0], point[1]));
      const bottom = y(Math.min(point[0], point[1]));
      if (bottom - top <= 0) return [];
      const day = point.data.day;
      return [{ day, part: one.key, x: x(day) ?? 0, y: top, width: x.bandwidth(), height: bottom - top }];
    }),
  );
  const bands = days.map((entry) => ({
    day: entry.day,
    x: (x(entry.day) ?? 0) - (x.step() - x.bandwidth()) / 2,
    width: x.step(),
  }));
  return { bars, bands, grid: ticks(low, high, 4).map((bytes) => ({ bytes, y: y(bytes) })), zero: y(0) };
}

/** Which days get a label: the last always, others evenly, at most `most`. */
export function labelled(days: readonly DayTotals[], most: number): string[] {
  const step = Math.max(1, Math.ceil(days.length / most));
  return days.filter((_, index) => (days.length - 1 - index) % step === 0).map((entry) => entry.day);
}
