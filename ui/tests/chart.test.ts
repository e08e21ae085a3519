import { describe, expect, it } from "vitest";
import { labelled, layOut } from "../src/lib/chart";
import type { DayTotals } from "../src/lib/contract";

const one = (day: string, served: number, fetched: number): DayTotals => ({
  day,
  totals: { requests: 1, hits: 0, failures: 0, served_bytes: served, fetched_bytes: fetched, hit_bytes: 0, saved_bytes: served - fetched },
});

describe("the chart", () => {
  it("stacks both parts to what was served", () => {
    const { bars, zero } = layOut([one("2026-11-20", 1000, 250)], 100, 200);
    const link = bars.find((bar) => bar.part === "link");
    const cache = bars.find((bar) => bar.part === "cache");
    expect(link && link.y + link.height, "the link's part stands on zero").toBeCloseTo(zero);
    expect(cache && link && cache.y + cache.height - link.y, "the cache's part stands on it").toBeCloseTo(0);
    expect(cache && link && cache.height / link.height, "heights are in proportion").toBeCloseTo(3);
  });

  it("draws a day of loss below zero", () => {
    const { bars, zero } = layOut([one("2026-11-19", 1000, 0), one("2026-11-20", 100, 500)], 100, 200);
    const below = bars.find((bar) => bar.day === "2026-11-20" && bar.part === "cache");
    expect(below?.y, "negative savings are shown as such").toBeCloseTo(zero);
    expect(below && below.y + below.height).toBeLessThanOrEqual(200);
  });

  it("has a band but no bar for a day without requests", () => {
    const { bars, bands, grid } = layOut([one("2026-11-19", 0, 0), one("2026-11-20", 0, 0)], 100, 200);
    expect(bars).toEqual([]);
    expect(bands.map((band) => band.day)).toEqual(["2026-11-19", "2026-11-20"]);
    expect(grid.every((line) => Number.isFinite(line.y)), "nothing to divide by is no reason for NaN").toBe(true);
  });

  it("keeps every bar inside its band", () => {
    const days = Array.from({ length: 90 }, (_, index) => one(`day ${index}`, index * 10, index * 3));
    const { bars, bands } = layOut(days, 700, 200);
    for (const bar of bars) {
      const band = bands.find((candidate) => candidate.day === bar.day);
      expect(band && bar.x >= band.x && bar.x + bar.width <= band.x + band.width).toBe(true);
    }
  });

  it("labels today and a few others", () => {
    const days = Array.from({ length: 30 }, (_, index) => one(String(index), 1, 0));
    const labels = labelled(days, 8);
    expect(labels.at(-1), "today is what one looks for").toBe("29");
    expect(labels.length).toBeLessThanOrEqual(8);
    expect(labelled(days.slice(0, 3), 8)).toEqual(["0", "1", "2"]);
  });
});
