import { describe, expect, it } from "vitest";
import { Announcer, bytesBySource, savedBytes, seconds, share, together } from "../src/lib/pulls";
import { pulls, snapshot } from "../src/fixtures/recorded";

const now = Date.UTC(2026, 10, 20);
const [active, unknown, complete] = pulls(now);
if (!active || !unknown || !complete) throw new Error("the recorded pulls are missing");

describe("a pull", () => {
  it("counts each byte under the source of its layer", () => {
    const sums = bytesBySource(active);
    expect(sums.disk + sums.joined + sums.upstream + sums.waiting, "the parts add up").toBe(active.done_bytes);
    expect(sums.waiting).toBe(0);
  });

  it("has no share while its size is unknown", () => {
    expect(share(unknown), "a guess would jump backwards later").toBeNull();
    expect(share(complete)).toBe(1);
    expect(share({ ...complete, size_bytes: 0 }), "an empty image is done").toBe(1);
    expect(share({ ...complete, size_bytes: 1 }), "never beyond whole").toBe(1);
  });

  it("never claims to have saved less than nothing", () => {
    expect(savedBytes({ ...active, done_bytes: 5, fetched_bytes: 9 })).toBe(0);
    expect(savedBytes({ ...active, done_bytes: 9, fetched_bytes: 5 })).toBe(4);
  });

  it("took the time between its first and last byte", () => {
    expect(seconds(complete)).toBe(9);
    expect(seconds({ ...complete, ended: null })).toBe(0);
  });
});

describe("all pulls together", () => {
  it("have no size while one of them has none", () => {
    const state = { ...snapshot(now), pulls: [active, unknown, complete] };
    expect(together(state)).toEqual({ count: 2, done: active.done_bytes + unknown.done_bytes, size: null });
    expect(together({ ...state, pulls: [active, complete] }).size, "ended ones do not count").toBe(active.size_bytes);
  });
});

describe("the announcer", () => {
  it("speaks at most each ten seconds, and only when there is news", () => {
    const announcer = new Announcer(10_000);
    expect(announcer.say("one", 0)).toBe("one");
    expect(announcer.say("two", 9_999), "too soon").toBeNull();
    expect(announcer.say("two", 10_000)).toBe("two");
    expect(announcer.say("two", 60_000), "said already").toBeNull();
  });
});
