// @vitest-environment happy-dom
import { flushSync, mount, unmount } from "svelte";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import App from "../src/App.svelte";
import { fixture } from "../src/fixtures/fixture";
import type { Api } from "../src/lib/api";
import type { Command } from "../src/lib/contract";

const UNCHANGED = { language: null, theme: null, speed_limit: null, quota: null, max_age_days: null, verify: null, offline: null, freshness: null, quiet_hours: null, metered: null };
let page: ReturnType<typeof mount> | undefined;
let asked: Command[] = [];
let refuse: Command["call"] | undefined;

/** Shows the page on recorded replies and notes every command it sends. */
async function open(name: string, hash: string): Promise<void> {
  const recorded = fixture(new URLSearchParams(`lang=en&fixture=${name}`));
  const api: Api = {
    call(command) {
      asked.push(structuredClone(command));
      if (command.call === refuse) return Promise.resolve({ reply: "error", value: { code: "invalid_request", message: "no", next_step: null } });
      return recorded.call(command);
    },
    watch: (listener) => recorded.watch(listener),
  };
  location.hash = hash;
  window.dispatchEvent(new Event("hashchange"));
  page = mount(App, { target: document.body, props: { api } });
  await settle();
}

async function settle(): Promise<void> {
  for (let round = 0; round < 8; round += 1) {
    flushSync();
    await Promise.resolve();
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
}

const all = (id: string, within: ParentNode = document): HTMLElement[] => [...within.querySelectorAll<HTMLElement>(`[data-testid="${id}"]`)];
function the(id: string, within: ParentNode = document): HTMLElement {
  const [found] = all(id, within);
  if (!found) throw new Error(`there is no ${id} on the page`);
  return found;
}
async function click(id: string, within: ParentNode = document): Promise<void> {
  the(id, within).click();
  await settle();
}
const last = (call: Command["call"]): Command | undefined => asked.filter((command) => command.call === call).at(-1);
const words = (id: string, within: ParentNode = document): string => (the(id, within).textContent ?? "").replace(/\s+/g, " ").trim();
const row = (name: string): HTMLElement => {
  const found = all("image-row").find((one) => one.dataset.name === name);
  if (!found) throw new Error(`${name} is not listed`);
  return found;
};
async function choose(element: Element | null, value: string): Promise<void> {
  const select = element as HTMLSelectElement;
  select.value = value;
  select.dispatchEvent(new Event("change", { bubbles: true }));
  await settle();
}

beforeEach(() => {
  asked = [];
  refuse = undefined;
});
afterEach(async () => {
  if (page) await unmount(page);
  page = undefined;
  document.body.replaceChildren();
  vi.restoreAllMocks();
});

describe("offline", () => {
  it("is switched on Now, said there while it holds, and switched off from its banner", async () => {
    await open("busy", "#/now");
    expect(all("offline")).toEqual([]);
    await click("go-offline");
    expect(last("configure")).toEqual({ call: "configure", change: { ...UNCHANGED, offline: true } });
    expect(words("offline")).toContain("no registry is asked");
    expect(words("header-offline"), "on every page").toBe("Offline");
    expect(all("go-offline"), "it is said once what can be done").toEqual([]);
    await click("go-online");
    expect(last("configure")).toEqual({ call: "configure", change: { ...UNCHANGED, offline: false } });
    expect(all("offline")).toEqual([]);
  });

  it("is a switch in Settings, too", async () => {
    await open("busy", "#/settings");
    await click("offline-switch");
    expect(last("configure")).toEqual({ call: "configure", change: { ...UNCHANGED, offline: true } });
    expect((the("offline-switch") as HTMLInputElement).checked).toBe(true);
  });

  it("hides that a registry did not answer: nobody asks it", async () => {
    await open("down", "#/now");
    expect(words("upstream-down")).toContain("docker.io does not answer");
    expect(words("upstream-resting")).toMatch(/left alone for 2\d sec more; the first pull after that asks it again/);
    await click("go-offline");
    expect(all("upstream-down")).toEqual([]);
  });
});

describe("a tag's history", () => {
  const NGINX = "docker.io/library/nginx:1.27";

  it("says when it moved, and gives the reference of an earlier digest", async () => {
    const copied = vi.fn<(text: string) => Promise<void>>(() => Promise.resolve());
    vi.spyOn(navigator, "clipboard", "get").mockReturnValue({ writeText: copied } as unknown as Clipboard);
    await open("busy", "#/images");
    await click("image-open", row(NGINX));
    expect(words("tag-said")).toBe("1.27 last moved yesterday.");
    const earlier = all("tag-past")[1];
    if (!earlier) throw new Error("there is an earlier one");
    await click("tag-copy", earlier);
    expect(copied.mock.calls).toEqual([[`nginx@${earlier.dataset.digest ?? ""}`]]);
  });

  it("is frozen where it is, or where it was, and let go", async () => {
    await open("busy", "#/images");
    await click("image-open", row(NGINX));
    await click("tag-freeze");
    expect(last("freeze")).toEqual({ call: "freeze", name: NGINX, frozen: true });
    expect(words("tag-said")).toContain("1.27 is frozen");
    expect(row(NGINX).textContent).toContain("frozen");
    const earlier = the("tag-freeze-here").closest("li")?.dataset.digest ?? "";
    await click("tag-freeze-here");
    expect(last("freeze")).toEqual({ call: "freeze", name: `${NGINX}@${earlier}`, frozen: true });
    await click("tag-unfreeze");
    expect(last("freeze")).toEqual({ call: "freeze", name: NGINX, frozen: false });
  });

  it("is asked about now, and the answer is said", async () => {
    await open("busy", "#/images");
    await click("image-open", row(NGINX));
    await click("tag-refresh");
    expect(last("refresh")).toEqual({ call: "refresh", name: NGINX });
    expect(words("tag-answer")).toContain("1.27 moved");
    expect(all("tag-past"), "and where it pointed stays").toHaveLength(3);
    refuse = "refresh";
    await click("tag-refresh");
    expect(words("tag-answer")).toBe("");
    expect(all("problem").length + document.querySelectorAll("[role=alert]").length).toBeGreaterThan(0);
  });
});

describe("freshness", () => {
  it("of everything is one choice, and none where it is what would hold anyway", async () => {
    await open("busy", "#/settings");
    await choose(the("fresh-all"), "900");
    const set = { pattern: "*/**", check: { every: 900 }, stale_max_seconds: null };
    expect(last("configure")).toEqual({ call: "configure", change: { ...UNCHANGED, freshness: { set } } });
    await choose(the("fresh-stale"), "604800");
    expect(last("configure")).toMatchObject({ change: { freshness: { set: { ...set, stale_max_seconds: 604_800 } } } });
    await choose(the("fresh-stale"), "");
    await choose(the("fresh-all"), "always");
    expect(last("configure")).toEqual({ call: "configure", change: { ...UNCHANGED, freshness: { unset: "*/**" } } });
  });

  it("of some images is a list that is added to, changed and removed from", async () => {
    await open("busy", "#/settings");
    expect(all("fresh-rule")).toEqual([]);
    const pattern = the("fresh-pattern") as HTMLInputElement;
    const write = async (text: string): Promise<void> => {
      pattern.value = text;
      pattern.dispatchEvent(new Event("input", { bubbles: true }));
      await settle();
    };
    await write(" docker.io/library/* ");
    await choose(the("fresh-check"), "never");
    await click("fresh-add");
    const set = { pattern: "docker.io/library/*", check: "never", stale_max_seconds: null };
    expect(last("configure")).toEqual({ call: "configure", change: { ...UNCHANGED, freshness: { set } } });
    expect(pattern.value, "ready for the next").toBe("");
    await choose(the("fresh-rule").querySelector("select"), "on_request");
    expect(last("configure")).toMatchObject({ change: { freshness: { set: { ...set, check: "on_request" } } } });
    refuse = "configure";
    await write("a b");
    await click("fresh-add");
    expect(pattern.value, "what was refused stays, to be mended").toBe("a b");
    refuse = undefined;
    await click("fresh-remove");
    expect(last("configure")).toEqual({ call: "configure", change: { ...UNCHANGED, freshness: { unset: "docker.io/library/*" } } });
    expect(all("fresh-rule")).toEqual([]);
  });
});
