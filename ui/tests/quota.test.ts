import { describe, expect, it } from "vitest";
import { ageChange, ageEntry, ages, isStricter, quotaChange, quotaEntry, quotas } from "../src/lib/quota";

describe("quotas and age limits", () => {
  it("offer what is in force, in its place", () => {
    expect(quotas("auto").map(quotaEntry)).toEqual([
      "auto",
      ...[5, 10, 20, 50, 100, 200].map((size) => `${size}000000000`),
      "off",
    ]);
    expect(quotas({ bytes: 15_000_000_000 }).map(quotaEntry)[3]).toBe("15000000000");
    expect(quotas({ bytes: 10_000_000_000 }).length, "no entry twice").toBe(8);
    expect(ages(7).map(ageEntry)).toEqual(["off", "7", "30", "90", "180", "365"]);
    expect(ages(90).length).toBe(5);
  });

  it("are stricter when they remove what was kept", () => {
    expect([isStricter(30, null), isStricter(30, 90)]).toEqual([true, true]);
    expect([isStricter(null, 30), isStricter(90, 30), isStricter(30, 30)]).toEqual([false, false, false]);
  });

  it("come back from their entries as they went in", () => {
    for (const quota of quotas({ bytes: 123_456_789 })) expect(quotaChange(quotaEntry(quota))).toEqual(quota);
    expect(ages(null).map(ageEntry).map(ageChange)).toEqual(["off", { days: 30 }, { days: 90 }, { days: 180 }, { days: 365 }]);
  });
});
