import { describe, expect, it } from "vitest";
import { docker } from "../src/fixtures/recorded-setup";
import type { DockerRegistry } from "../src/lib/contract";
import { byName, changes, clientRegistries, planNotes, remarks, tick, ticks } from "../src/lib/setup";

const one = (registry: string, active: boolean, part: Partial<DockerRegistry> = {}): DockerRegistry => ({
  registry,
  active,
  path: `/etc/docker/certs.d/${registry}/hosts.toml`,
  foreign: false,
  changeable: registry !== "docker.io",
  note: null,
  ...part,
});
const REGISTRIES = [
  one("docker.io", true),
  one("ghcr.io", true),
  one("quay.io", false),
  one("own.example", true, { changeable: false }),
  one("theirs.example", false, { changeable: false, foreign: true }),
];

describe("a choice of registries", () => {
  it("is what is set up until somebody ticks", () => {
    expect(ticks(REGISTRIES, null).map((row) => [row.registry, row.checked, row.fixed, row.why])).toEqual([
      ["docker.io", true, true, "hub"],
      ["ghcr.io", true, false, null],
      ["quay.io", false, false, null],
      ["own.example", true, true, "locked"],
      ["theirs.example", false, true, "foreign"],
    ]);
  });

  it("keeps what cannot be changed: a plan takes out what it does not name", () => {
    expect(tick(REGISTRIES, null, "quay.io", true)).toEqual(["ghcr.io", "quay.io", "own.example"]);
    expect(tick(REGISTRIES, null, "ghcr.io", false)).toEqual(["own.example"]);
  });

  it("is none at all once it is as it was", () => {
    const more = tick(REGISTRIES, null, "quay.io", true);
    expect(tick(REGISTRIES, more, "quay.io", false)).toBeNull();
    expect(tick(REGISTRIES, ["own.example"], "ghcr.io", true)).toBeNull();
  });

  it("never names Docker Hub, which always is", () => {
    expect(tick([one("docker.io", false), one("ghcr.io", false)], null, "ghcr.io", true)).toEqual(["ghcr.io"]);
  });

  it("has for a client what Sampan serves and what the client asks for, each once", () => {
    const registries = clientRegistries(["docker.io", "ghcr.io"], ["docker.io", "own.example"]);
    expect(registries.map((row) => [row.registry, row.active])).toEqual([
      ["docker.io", true],
      ["ghcr.io", false],
      ["own.example", true],
    ]);
  });
});

describe("what the engine says", () => {
  const classic = docker(0);
  it("tells the longer name, and is not said twice", () => {
    expect(byName(classic)).toEqual({ host: "localhost:7267", builds: true });
    expect(byName({ ...classic, registries: classic.registries.slice(0, 1) })).toEqual({ host: "localhost:7267", builds: false });
    expect(remarks({ ...classic, notes: [...classic.notes, "Something else."] })).toEqual(["Something else."]);
  });

  it("needs no longer name where it says nothing of one", () => {
    const desktop = "Docker Desktop asks mirrors for Docker Hub only: other registries are asked as ever.";
    expect(byName({ ...classic, notes: [desktop] })).toBeNull();
    expect(remarks({ ...classic, notes: [desktop] })).toEqual([desktop]);
  });

  const plan = { id: "a", action: "enable", files: [], apply: "nothing", stops: [], needs_elevation: false, settles: false, commands: [], notes: [] } as const;
  it("leaves a plan the notes that the page does not say itself", () => {
    const notes = ["Docker reads its configuration again: no container stops.", "http://127.0.0.1:9/ is another mirror on this machine; it stays, after Sampan."];
    expect(planNotes({ ...plan, files: [], stops: [], commands: [], notes })).toEqual(notes.slice(1));
  });

  it("is something to consent to when only a reload is left", () => {
    const empty = { ...plan, files: [], stops: [], commands: [], notes: [] };
    expect([changes(empty), changes({ ...empty, apply: "reload" })]).toEqual([false, true]);
  });
});
