import { describe, expect, it } from "vitest";
import { bounds, check, checks, days, entry, EVERYTHING, parted } from "../src/lib/freshness";
import { staleKeys } from "../src/lib/stale";
import { text } from "../src/lib/texts";
import { pulls } from "../src/fixtures/recorded";

const HOUR = 3600;

describe("how often tags are asked about", () => {
  it("is the same when an entry is read again", () => {
    for (const one of ["always", "on_request", "never", { every: 60 }, { every: 5 * HOUR }] as const)
      expect(check(entry(one)), entry(one)).toEqual(one);
    for (const wrong of ["", "0", "-5", "soon", "1.5"]) expect(check(wrong), wrong).toBe("always");
  });

  it("has an entry for what is in force, in its place", () => {
    expect(checks({ every: 2 * HOUR }).map(entry)).toEqual(["always", "300", "900", "3600", "7200", "21600", "86400", "on_request", "never"]);
    expect(checks({ every: 900 })).toHaveLength(8);
    expect(bounds(null)).toEqual([null, 86_400, 604_800, 2_592_000]);
    expect(bounds(90_000)).toEqual([null, 86_400, 90_000, 604_800, 2_592_000]);
    expect(days(90_000), "never shorter than it is").toBe(2);
  });

  it("is one rule for everything, and some by pattern", () => {
    const nginx = { pattern: "docker.io/library/nginx", check: "never", stale_max_seconds: null } as const;
    const acme = { pattern: "ghcr.io/acme/**", check: "always", stale_max_seconds: 5 } as const;
    expect(parted([acme, nginx])).toEqual({ all: { pattern: EVERYTHING, check: "always", stale_max_seconds: null }, some: [nginx, acme] });
    const all = { pattern: EVERYTHING, check: { every: 5 }, stale_max_seconds: null };
    expect(parted([nginx, all])).toEqual({ all, some: [nginx] });
  });
});

describe("a tag as last seen", () => {
  it("says why, for each reason another sentence, and for a pull of before the reasons too", () => {
    const [pull] = pulls(0);
    if (!pull) throw new Error("there is a recorded pull");
    expect(staleKeys({ ...pull, stale: false })).toBeNull();
    const reasons = ["outage", "rate_limit", "deadline", "upstream", "offline", "resting"] as const;
    const said = reasons.map((stale_reason) => staleKeys({ ...pull, stale: true, stale_reason }));
    for (const part of ["whole", "short"] as const)
      expect(new Set(said.map((keys) => keys && text("en", keys[part]))).size, part).toBe(reasons.length);
    expect(staleKeys({ ...pull, stale: true, stale_reason: null })).toEqual(said[0]);
  });
});
