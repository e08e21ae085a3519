import { describe, expect, it } from "vitest";
import { ago, clock, day, duration, percent, size } from "../src/lib/format";

describe("a size", () => {
  it.each([
    [0, "0 B"],
    [999, "999 B"],
    [1000, "1 kB"],
    [4_210, "4.2 kB"],
    [412_000_000, "412 MB"],
    [999_400_000, "999 MB"],
    [999_600_000, "1 GB"],
    [1_104_000_000, "1.1 GB"],
    [18_432_000_000_000, "18.4 TB"],
    [-2_700_000_000, "-2.7 GB"],
  ])("of %d bytes is %s", (bytes, expected) => {
    expect(size("en", bytes), "SI units, as Docker counts").toBe(expected);
  });

  it("has the decimal comma in Vietnamese", () => {
    expect(size("vi", 1_104_000_000)).toBe("1,1 GB");
  });
});

describe("a share", () => {
  it.each([
    [0, 0, "–"],
    [0, 10, "0%"],
    [1, 1000, "1%"],
    [9999, 10_000, "99%"],
    [10, 10, "100%"],
  ])("of %d in %d is %s", (part, whole, expected) => {
    expect(percent("en", part, whole), "100 % only when whole, 0 % only when nothing").toBe(expected);
  });
});

describe("a duration", () => {
  it.each([
    [0, "0 sec"],
    [42.4, "42 sec"],
    [59.6, "1 min"],
    [185, "3 min"],
    [3600, "1 hr"],
    [4800, "1 hr 20 min"],
  ])("of %d s is %s", (seconds, expected) => {
    expect(duration("en", seconds)).toBe(expected);
  });

  it("is in Vietnamese words", () => {
    expect(duration("vi", 185)).toBe("3 phút");
  });
});

describe("a moment", () => {
  const noon = new Date(2026, 10, 20, 12, 0).getTime();

  it("of today is the time of day", () => {
    expect(clock("en", new Date(2026, 10, 20, 14, 2).getTime(), noon)).toBe("14:02");
  });

  it("of another day has the date", () => {
    expect(clock("en", new Date(2026, 10, 19, 9, 5).getTime(), noon)).toBe("Nov 19, 09:05");
  });

  it("is told relative to now", () => {
    expect(ago("en", noon - 3 * 60_000, noon)).toBe("3 minutes ago");
    expect(ago("vi", noon - 3 * 86_400_000, noon)).toBe("3 ngày trước");
    expect(ago("en", noon + 60_000, noon), "a clock that went backwards is not the future").toBe("this minute");
  });

  it("keeps a local day on its day", () => {
    expect(day("en", "2026-11-20", "short")).toBe("Nov 20");
    expect(day("vi", "2026-11-20", "long")).toContain("20 tháng 11");
  });
});
