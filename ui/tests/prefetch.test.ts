import { describe, expect, it } from "vitest";
import type { Prefetch, PrefetchJob } from "../src/lib/contract";
import { clockOf, hoursOf, items, minutesOf, stateKey, title } from "../src/lib/prefetch";

const job = (part: Partial<PrefetchJob>): PrefetchJob => ({
  id: 1, name: "docker.io/library/nginx:1.27", platform: "linux/amd64", pin: false, now: false, kept: false,
  state: "waiting", size_bytes: null, held_bytes: 0, fetched_bytes: 0, added: 0, ended: null, again_at: null,
  problem: null, moved: false, ...part,
});
const queue = (waits: Prefetch["waits"]): Prefetch => ({ paused: false, waits, opens: null, jobs: [], kept: [] });

describe("what is fetched ahead", () => {
  it("is written one after the other, in any way people do, each once", () => {
    expect(items(" nginx:1, redis\npostgres:16  nginx:1\n", "").map((item) => item.name)).toEqual(["nginx:1", "redis", "postgres:16"]);
    expect(items("nginx", "all")).toEqual([{ name: "nginx", platform: "all" }]);
    expect(items("  \n", "")).toEqual([]);
  });

  it("is called as people call it", () => {
    expect(title("docker.io/library/nginx:1.27")).toBe("nginx:1.27");
    expect(title("docker.io/bitnami/redis:7")).toBe("bitnami/redis:7");
    expect(title(`ghcr.io/a/b@sha256:${"a".repeat(64)}`)).toBe("ghcr.io/a/b@sha256:aaaaaaaaaaaa");
  });

  it("says what it waits for, and a person in a hurry waits for a pause only", () => {
    expect(stateKey(job({}), queue(null))).toBe("prefetch.waiting");
    expect(stateKey(job({}), queue("quiet_hours"))).toBe("prefetch.waits_hours");
    expect(stateKey(job({ now: true }), queue("quiet_hours"))).toBe("prefetch.waiting");
    expect(stateKey(job({ now: true }), queue("paused"))).toBe("prefetch.waits_paused");
    expect(stateKey(job({ again_at: 5 }), queue("metered"))).toBe("prefetch.again");
    expect(stateKey(job({ state: "running", size_bytes: 1 }), queue(null))).toBe("prefetch.running");
    expect(stateKey(job({ state: "done", moved: true }), queue(null))).toBe("prefetch.moved");
  });

  it("has quiet hours between two different times", () => {
    expect(clockOf(22 * 60 + 5)).toBe("22:05");
    expect(minutesOf("06:30")).toBe(390);
    expect(minutesOf("24:00")).toBeNull();
    expect(hoursOf("22:00", "06:00")).toEqual({ from: 1320, to: 360 });
    expect(hoursOf("22:00", "22:00")).toBeNull();
    expect(hoursOf("", "06:00")).toBeNull();
  });
});
