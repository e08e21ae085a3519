// What the Set-up page decides: which registries are ticked, which sentences are said. Pure.
import type { Docker, DockerBuilder, DockerPlan, DockerRegistry } from "./contract";

/** Docker Hub's name in image names; it is always set up. */
export const HUB = "docker.io";

/** One registry to tick, or why it cannot be. */
export interface Tick {
  registry: string;
  checked: boolean;
  /** Whether it stays as it is. */
  fixed: boolean;
  /** `hub`: it always is. `foreign`: `path` is somebody else's. `locked`: Sampan cannot write `path`. */
  why: "hub" | "foreign" | "locked" | null;
  path: string | null;
  /** The engine side's own words for `locked`. */
  note: string | null;
}

/** Which registries are chosen besides Docker Hub; `null`: those that are set up now. */
export type Chosen = readonly string[] | null;

/** What is set up now, besides Docker Hub. */
const now = (registries: readonly DockerRegistry[]): string[] =>
  registries.filter((one) => one.registry !== HUB && one.active && !one.foreign).map((one) => one.registry);

/** The registries to show, each as chosen. */
export function ticks(registries: readonly DockerRegistry[], chosen: Chosen): Tick[] {
  const wanted = chosen ?? now(registries);
  return registries.map(({ registry, path, foreign, changeable, note }) => ({
    registry,
    checked: registry === HUB || wanted.includes(registry),
    fixed: registry === HUB || !changeable,
    why: registry === HUB ? "hub" : foreign ? "foreign" : changeable ? null : "locked",
    path,
    note,
  }));
}

/** The choice after one registry was ticked or unticked. What cannot be changed stays in it: what a plan does not name is taken out. */
export function tick(registries: readonly DockerRegistry[], chosen: Chosen, registry: string, on: boolean): Chosen {
  const before = now(registries);
  const rest = (chosen ?? before).filter((name) => name !== registry);
  const wanted = on ? [...rest, registry] : rest;
  const order = registries.map((one) => one.registry);
  wanted.sort((one, other) => order.indexOf(one) - order.indexOf(other));
  return wanted.length === before.length && wanted.every((name) => before.includes(name)) ? null : wanted;
}

/** A client's registries in the shape of an engine's: those Sampan serves, and those the client asks it for. */
export function clientRegistries(served: readonly string[], active: readonly string[]): DockerRegistry[] {
  const names = [HUB, ...[...served, ...active].filter((name) => name !== HUB)];
  return [...new Set(names)].map((registry) => ({
    registry,
    active: active.includes(registry),
    path: null,
    foreign: false,
    changeable: registry !== HUB,
    note: null,
  }));
}

const BY_NAME = /\b(localhost:\d+)\/ghcr\.io\//;

/**
 * The host by whose name other registries' images go through Sampan, `localhost:7267`, where this engine's pulls need it:
 * the engine side decides that and says it in a note. `builds`: builds need it not.
 */
export function byName(docker: Docker): { host: string; builds: boolean } | null {
  const host = docker.notes.map((note) => BY_NAME.exec(note)?.[1]).find((found) => found !== undefined);
  return host === undefined ? null : { host, builds: docker.registries.length > 1 };
}

/** The engine's notes without what the page says in words of its own. */
export const remarks = (docker: Docker): string[] => docker.notes.filter((note) => !BY_NAME.test(note));

// As the engine side says them (sampan-docker/src/plan.rs). One that changes there is shown beside the page's own.
const SAID = [
  "Everything is as wanted already.",
  "Docker reads hosts.toml at each pull: nothing restarts.",
  "Docker reads its configuration again: no container stops.",
  "These files belong to root: run the commands to change them.",
  "A change of Docker's configuration was cut short: the privileged helper settles that first.",
];

/** A plan's notes without what the page says in words of its own. */
export const planNotes = (plan: DockerPlan): string[] => plan.notes.filter((note) => !SAID.includes(note) && !BY_NAME.test(note));

/** Whether there is anything to consent to. A reload alone is something. */
export const changes = (plan: DockerPlan): boolean => plan.files.length > 0 || plan.apply !== "nothing" || plan.settles;

/** Whether a plan's notes send a person to its commands. */
export const byHand = (plan: DockerPlan): boolean => plan.notes.some((note) => note.includes("commands below by hand"));

/** Builders whose builds do not ask Sampan first; the engine's order otherwise. */
export const builders = (docker: Docker): DockerBuilder[] => [
  ...docker.builders.filter((builder) => !builder.uses_mirror),
  ...docker.builders.filter((builder) => builder.uses_mirror),
];
