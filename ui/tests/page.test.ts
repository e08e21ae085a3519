// @vitest-environment happy-dom
import { flushSync, mount, unmount } from "svelte";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import App from "../src/App.svelte";
import { fixture } from "../src/fixtures/fixture";
import type { Api } from "../src/lib/api";
import type { Command, Snapshot, WatchMessage } from "../src/lib/contract";

const UNCHANGED = { language: null, theme: null, speed_limit: null, quota: null, max_age_days: null, verify: null, offline: null, freshness: null, quiet_hours: null, metered: null };
let page: ReturnType<typeof mount> | undefined;
let asked: Command[] = [];
let tell: (message: WatchMessage) => void = () => {};

/** Shows the page on recorded replies and notes every command it sends. */
async function open(query: string, hash: string): Promise<void> {
  const recorded = fixture(new URLSearchParams(`lang=en&${query}`));
  const api: Api = {
    call(command) {
      asked.push(structuredClone(command));
      return recorded.call(command);
    },
    watch(listener) {
      tell = listener;
      return recorded.watch(listener);
    },
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

const all = (id: string): HTMLElement[] => [...document.querySelectorAll<HTMLElement>(`[data-testid="${id}"]`)];
function the(id: string): HTMLElement {
  const [found] = all(id);
  if (!found) throw new Error(`there is no ${id} on the page`);
  return found;
}
async function click(id: string): Promise<void> {
  the(id).click();
  await settle();
}
const sent = (call: Command["call"]): Command[] => asked.filter((command) => command.call === call);

beforeEach(() => {
  asked = [];
  delete document.body.dataset.ready;
  vi.stubGlobal("matchMedia", () => ({ matches: false, addEventListener: () => {} }));
});
afterEach(async () => {
  if (page) await unmount(page);
  document.body.replaceChildren();
  vi.unstubAllGlobals();
});

describe("the first page", () => {
  it("is ready once the first snapshot is on screen, and shows its numbers", async () => {
    await open("fixture=busy", "#/now");
    expect(document.body.dataset.ready).toBe("true");
    expect(the("saved-today").textContent).toBe("3.3 GB");
    expect(the("hit-rate").textContent).toBe("84%");
    expect(the("cache-size").textContent).toBe("18.4 GB");
    expect(all("pull-card").length).toBe(5);
    expect(the("pull-text").textContent).toBe("411 MB of 1.1 GB, 5 min left, 2.3 MB/s");
    expect(the("pull-progress").getAttribute("aria-valuenow")).toBe("38");
  });

  it("says what a pull takes, and nothing where it takes nothing", async () => {
    await open("fixture=busy", "#/now");
    expect(all("pull-effort").map((line) => line.textContent)).toEqual(["8 connections · 2 breaks repaired · 3 asked again"]);
    const reply = await fixture(new URLSearchParams("fixture=busy&lang=en")).call({ call: "snapshot" });
    if (reply.reply !== "snapshot") throw new Error("a snapshot was asked for");
    const [pull] = reply.value.pulls;
    if (!pull) throw new Error("a busy Sampan has pulls");
    Object.assign(pull, { connections: 1, retries: 0, repaired: 1 });
    tell({ kind: "snapshot", value: { ...reply.value, sequence: 1000 } });
    await settle();
    expect(all("pull-effort").map((line) => line.textContent)).toEqual(["1 connection · 1 break repaired"]);
    pull.state = "complete";
    tell({ kind: "snapshot", value: structuredClone({ ...reply.value, sequence: 1001 }) });
    await settle();
    expect(all("pull-effort"), "what ended has its own line").toEqual([]);
  });

  it("says that the link is down instead of a speed of nothing", async () => {
    await open("fixture=busy", "#/now");
    expect(all("pull-waiting"), "a link that works needs no words").toEqual([]);
    const reply = await fixture(new URLSearchParams("fixture=busy&lang=en")).call({ call: "snapshot" });
    if (reply.reply !== "snapshot") throw new Error("a snapshot was asked for");
    const [pull] = reply.value.pulls;
    if (!pull) throw new Error("a busy Sampan has pulls");
    Object.assign(pull, { waiting: true, rate: 0, eta_seconds: null });
    tell({ kind: "snapshot", value: { ...reply.value, sequence: 1000 } });
    await settle();
    expect(all("pull-waiting").map((line) => line.textContent)).toEqual([
      "The link is down. Sampan goes on by itself when it is back.",
    ]);
    expect(the("pull-text").textContent).toBe("411 MB of 1.1 GB");
    pull.waiting = false;
    pull.rate = 2_300_000;
    tell({ kind: "snapshot", value: structuredClone({ ...reply.value, sequence: 1001 }) });
    await settle();
    expect(all("pull-waiting"), "it is back").toEqual([]);
    expect(the("pull-text").textContent).toBe("411 MB of 1.1 GB, 2.3 MB/s");
  });

  it("shows how many pulls are left and what spent them, and says when they are refused", async () => {
    await open("fixture=busy", "#/now");
    expect(the("allowance-left").textContent).toBe("37 of 100");
    expect(the("allowance-outlook").textContent).toMatch(/^At this pace you run out at .+\. More by .+\.$/);
    const spent = [...the("allowance").querySelectorAll("li")].map((line) => line.textContent?.trim());
    expect(spent).toEqual(["22 nginx", "17 postgres", "12 grafana/grafana", "12 others at 203.0.113.7"]);
    const reply = await fixture(new URLSearchParams("fixture=busy&lang=en")).call({ call: "snapshot" });
    if (reply.reply !== "snapshot") throw new Error("a snapshot was asked for");
    const [gauge] = reply.value.allowances;
    if (!gauge) throw new Error("the recorded Sampan has a gauge");
    Object.assign(gauge, { remaining: 0, is_low: true, forecast: null, rests_until: Date.now() + 60_000 });
    tell({ kind: "snapshot", value: { ...reply.value, sequence: 1000 } });
    await settle();
    expect(the("allowance-left").textContent).toBe("0 of 100");
    expect(the("allowance").textContent, "not by colour alone").toContain("▲");
    expect(the("allowance-outlook").textContent).toMatch(/^The registry refused a pull; .+ is kept for images/);
    expect(the("allowance").querySelector("[role=meter]")?.getAttribute("aria-valuenow")).toBe("0");
  });

  it("says what to try where there is nothing yet", async () => {
    await open("fixture=first", "#/now");
    expect(all("allowance"), "no gauge for a registry that told nothing").toEqual([]);
    expect(the("pulls-empty").textContent).toContain("docker pull alpine");
    expect(the("hit-rate").textContent, "no requests are no 0 %").toBe("–");
    expect(the("setup-call").textContent).toContain("Docker does not use Sampan yet");
  });

  it("freezes when the shell goes away, and goes on when it is back", async () => {
    await open("fixture=busy", "#/now");
    let last: Snapshot | undefined;
    const reply = await fixture(new URLSearchParams("fixture=idle&lang=en")).call({ call: "snapshot" });
    if (reply.reply === "snapshot") last = reply.value;
    tell({ kind: "lost" });
    await settle();
    expect(the("lost").textContent).toMatch(/Last seen \d\d:\d\d/);
    expect(document.querySelector("[inert]"), "stale numbers must not look alive").not.toBeNull();
    expect(the("header-state").dataset.state).toBe("off");
    if (last) tell({ kind: "snapshot", value: last });
    await settle();
    expect(all("lost")).toEqual([]);
    expect(the("header-state").dataset.state).toBe("serving");
  });
});

describe("set-up", () => {
  it("changes nothing until the consent button is pressed", async () => {
    await open("fixture=first", "#/setup");
    expect(the("setup-diff").textContent).toContain("registry-mirrors");
    expect(new Set(asked.map((command) => command.call)), "looking only").toEqual(
      new Set(["docker", "docker_plan", "engines", "clients"]),
    );
    await click("setup-consent");
    const plan = (sent("docker_apply")[0] as { plan: string } | undefined)?.plan;
    expect(sent("docker_apply")).toEqual([{ call: "docker_apply", plan, restart: false }]);
    expect(plan, "the very plan that was shown").toMatch(/^sha256:/);
    expect(the("setup-result").textContent).toContain("Docker is set up");
    expect(the("setup-proof").dataset.arrived).toBe("true");
  });

  it("marks each line of the difference with more than a colour", async () => {
    await open("fixture=first", "#/setup");
    const lines = [...the("setup-diff").querySelectorAll<HTMLElement>("[data-kind]")];
    expect(lines.length).toBeGreaterThan(5);
    const marks = { added: "+", removed: "-", same: " " } as Record<string, string>;
    for (const line of lines) expect(line.textContent?.[0]).toBe(marks[line.dataset.kind ?? ""]);
  });

  it("restarts only with its own consent, which names the containers", async () => {
    await open("fixture=restart", "#/setup");
    const button = the("setup-consent") as HTMLButtonElement;
    expect(button.disabled, "the second consent is missing").toBe(true);
    expect(the("setup-plan").textContent).toContain("web, db");
    await click("setup-restart-consent");
    expect(button.disabled).toBe(false);
    await click("setup-consent");
    expect(sent("docker_apply")).toMatchObject([{ restart: true }]);
  });

  it("shows the reason, the next step and a new plan when the plan is outdated", async () => {
    await open("fixture=outdated", "#/setup");
    await click("setup-consent");
    expect(the("setup-error").dataset.code).toBe("plan_outdated");
    expect(the("setup-error").textContent).toContain("Look at the new plan");
    await click("setup-replan");
    expect(all("setup-error")).toEqual([]);
    expect(sent("docker_plan").length).toBe(2);
  });

  it("shows the undo's own difference before undoing", async () => {
    await open("fixture=busy", "#/setup");
    expect(all("setup-plan"), "nothing to change while Docker uses Sampan").toEqual([]);
    await click("setup-undo");
    expect(the("setup-plan").dataset.action).toBe("disable");
    expect(sent("docker_apply")).toEqual([]);
    await click("setup-undo-cancel");
    expect(all("setup-plan")).toEqual([]);
    expect(sent("docker_apply")).toEqual([]);
  });
});

describe("one image", () => {
  const row = (name: string): HTMLElement => {
    const found = all("image-row").find((one) => one.dataset.name === name);
    if (!found) throw new Error(`${name} is not in the list`);
    return found;
  };
  const press = async (name: string, id: string): Promise<void> => {
    row(name).querySelector<HTMLElement>(`[data-testid="${id}"]`)?.click();
    await settle();
  };
  const NGINX = "docker.io/library/nginx:1.27";

  it("is pinned and unpinned, and says so to whoever cannot see it", async () => {
    await open("fixture=busy", "#/images");
    const pin = (): string | null | undefined => row(NGINX).querySelector('[data-testid="image-pin"]')?.getAttribute("aria-pressed");
    expect(pin()).toBe("false");
    await press(NGINX, "image-pin");
    expect(sent("pin")).toEqual([{ call: "pin", name: NGINX, pinned: true }]);
    expect([pin(), row(NGINX).textContent?.includes("pinned")]).toEqual(["true", true]);
    await press(NGINX, "image-pin");
    expect(pin()).toBe("false");
  });

  it("is removed after a preview that says what it costs to fetch again, and can be brought back", async () => {
    await open("fixture=busy", "#/images");
    await press(NGINX, "image-remove");
    expect(the("clear-refetch").textContent).toContain("43 MB over the link, about 19 sec");
    expect(sent("clear")).toEqual([]);
    await click("clear-confirm");
    expect(sent("clear")).toEqual([{ call: "clear", selection: { kind: "images", names: [NGINX] }, immediate: false }]);
    expect(all("image-row").some((one) => one.dataset.name === NGINX)).toBe(false);
    await click("clear-undo");
    expect(sent("clear_undo")).toEqual([{ call: "clear_undo", id: 7 }]);
    expect(row(NGINX), "it is back").toBeTruthy();
    expect(all("clear-undo")).toEqual([]);
  });

  it("shows where its tag pointed and what it is made of, when opened", async () => {
    await open("fixture=busy", "#/images");
    expect(sent("image_details"), "nothing is asked before").toEqual([]);
    await press("docker.io/library/node:20", "image-open");
    expect(the("image-more").textContent).toContain("Answered from the cache 57 times. It cost 1.1 GB over the link.");
    expect(the("image-more").textContent).toContain("Where 20 pointed");
    expect(the("image-more").textContent).toContain("shared with 3 other images");
  });
});

describe("the cache's limits", () => {
  it("are shown with what fills them, and changed at once", async () => {
    await open("fixture=busy", "#/settings");
    expect(the("cache-meter").textContent).toContain("18.9 GB of 50 GB");
    await choose("quota-select", "20000000000");
    await choose("age-select", "90");
    await choose("verify-select", "always");
    expect(sent("configure")).toEqual([
      { call: "configure", change: { ...UNCHANGED, quota: { bytes: 20_000_000_000 } } },
      { call: "configure", change: { ...UNCHANGED, max_age_days: { days: 90 } } },
      { call: "configure", change: { ...UNCHANGED, verify: "always" } },
    ]);
  });

  const choose = async (id: string, value: string): Promise<void> => {
    const select = the(id) as HTMLSelectElement;
    select.value = value;
    select.dispatchEvent(new Event("change", { bubbles: true }));
    await settle();
  };
  const soon = (): (string | null)[] => [the("quota-soon").textContent, the("age-soon").textContent];

  it("name the free space that is left alone where it is why nothing is kept", async () => {
    await open("fixture=full", "#/now");
    expect(the("not-keeping").textContent).toContain("Sampan leaves 10.7 GB alone");
  });

  it("say what goes by a change before it goes, and say nothing where nothing does", async () => {
    await open("fixture=busy", "#/settings");
    await choose("quota-select", "20000000000");
    await choose("age-select", "off");
    expect(soon(), "there is room, and no limit").toEqual(["", ""]);
    await choose("quota-select", "5000000000");
    expect(soon()).toEqual(["In 10 seconds the images not used for the longest go, until 5 GB or less are left.", ""]);
    await choose("quota-select", "50000000000");
    await choose("age-select", "90");
    expect(soon()).toEqual(["", "In 10 seconds the images not used for 90 days go. Of a time in which Sampan does not run, 3 days at most count."]);
    await choose("age-select", "365");
    expect(soon()[1], "longer than the one before, but nothing went by that").toContain("365 days");
    await choose("age-select", "off");
    expect(soon()).toEqual(["", ""]);
  });

  const withCache = async (change: Partial<Snapshot["cache"]>): Promise<void> => {
    const reply = await fixture(new URLSearchParams("fixture=busy&lang=en")).call({ call: "snapshot" });
    if (reply.reply !== "snapshot") throw new Error("a snapshot was asked for");
    tell({ kind: "snapshot", value: { ...reply.value, sequence: 1000, last_used: 1, cache: { ...reply.value.cache, ...change } } });
    await settle();
  };

  it("are measured by nothing where the disk does not tell", async () => {
    await open("fixture=busy", "#/settings");
    await withCache({ quota_bytes: null, free_bytes: null });
    expect(the("cache-meter").textContent).toMatch(/^\s*18.9 GB/);
    expect(the("cache-meter").querySelector('[role="meter"]')).toBeNull();
    expect(the("cache-meter").textContent).not.toContain("free");
  });

  it("let a check by hand begin while the slow one goes on", async () => {
    await open("fixture=busy", "#/settings");
    await withCache({ scrub: { done_bytes: 1, total_bytes: 100, damaged: 0, background: true } });
    expect(the("scrub-state").textContent).toContain("Checking slowly");
    expect(the("scrub").textContent).toBe("Check everything now");
    await click("scrub");
    expect(sent("scrub")).toEqual([{ call: "scrub", start: true }]);
  });

  it("are listed anew when the list changes and the cache takes as much as before", async () => {
    await open("fixture=busy", "#/images");
    await withCache({ listed: 0 });
    const asks = sent("images").length;
    await withCache({ listed: 1 });
    expect(sent("images").length).toBe(asks + 1);
    await withCache({ listed: 1 });
    expect(sent("images").length).toBe(asks + 1);
  });

  it("tell how a check goes, and stop it", async () => {
    await open("fixture=scrubbing", "#/settings");
    expect(the("scrub-state").textContent).toContain("39% of 18.4 GB");
    expect(the("scrub-state").textContent).toContain("2 damaged blobs found");
    await click("scrub");
    expect(sent("scrub")).toEqual([{ call: "scrub", start: false }]);
  });
});

describe("clearing", () => {
  it("shows what goes first, and clears exactly that on confirmation", async () => {
    await open("fixture=busy", "#/images");
    await click("clear-all");
    expect(the("clear-preview").textContent).toContain("10 images go, 18.4 GB are really freed");
    expect(sent("clear")).toEqual([]);
    await click("clear-confirm");
    expect(sent("clear")).toEqual([{ call: "clear", selection: { kind: "all" }, immediate: false }]);
    expect(the("cleared").textContent).toContain("18.4 GB freed");
    expect(all("images-empty").length).toBe(1);
  });

  it("does nothing when it is cancelled", async () => {
    await open("fixture=busy", "#/images");
    await click("clear-unused");
    expect(sent("clear_preview")).toEqual([{ call: "clear_preview", selection: { kind: "unused_for", days: 30 } }]);
    await click("clear-cancel");
    expect(all("clear-dialog")).toEqual([]);
    expect(sent("clear")).toEqual([]);
  });

  it("names the selected images whole", async () => {
    await open("fixture=busy", "#/images");
    the("image-row").querySelector("input")?.click();
    await settle();
    await click("clear-selected");
    expect(sent("clear_preview")).toEqual([
      { call: "clear_preview", selection: { kind: "images", names: ["docker.io/library/node:20"] } },
    ]);
  });
});

describe("settings", () => {
  it("change the language and the theme at once", async () => {
    await open("fixture=busy", "#/settings");
    const choose = async (id: string, value: string): Promise<void> => {
      const select = the(id) as HTMLSelectElement;
      select.value = value;
      select.dispatchEvent(new Event("change", { bubbles: true }));
      await settle();
    };
    await choose("lang-select", "vi");
    expect(the("nav-savings").textContent).toBe("Tiết kiệm");
    expect(document.documentElement.lang).toBe("vi");
    await choose("theme-select", "dark");
    expect(document.documentElement.dataset.theme).toBe("dark");
    expect(sent("configure")).toEqual([
      { call: "configure", change: { ...UNCHANGED, language: "vi" } },
      { call: "configure", change: { ...UNCHANGED, theme: "dark" } },
    ]);
  });

  it("show who is asked for a registry, name a liar, and change both", async () => {
    await open("fixture=busy", "#/settings");
    const states = () => [...document.querySelectorAll("[data-testid=upstream]")].map((one) => one.getAttribute("data-state"));
    expect(states().slice(0, 4)).toEqual(["good", "good", "resting", "dropped"]);
    expect(the("upstream-lie").textContent).toContain("docker.io/library/node");
    expect(the("upstreams").textContent).toContain("94% of the bytes (702 MB)");
    the("upstream-restore").click();
    await settle();
    expect(states()[3]).toBe("good");
    the("upstream-trust").click();
    await settle();
    const form = the("upstream-add") as HTMLFormElement;
    const url = form.querySelector<HTMLInputElement>("#upstream-url");
    if (!url) throw new Error("no field for the address");
    url.value = "https://another.example";
    url.dispatchEvent(new Event("input", { bubbles: true }));
    form.dispatchEvent(new SubmitEvent("submit", { bubbles: true, cancelable: true }));
    await settle();
    expect(sent("upstream_change")).toEqual([
      { call: "upstream_change", change: "restore", registry: "docker.io", url: "https://cache.example.net" },
      { call: "upstream_change", change: "trust", registry: "docker.io", url: "https://mirror.gcr.io" },
      { call: "upstream_change", change: "add", registry: "docker.io", url: "https://another.example" },
    ]);
    expect(states()).toContain("unknown");
  });

  it("set and lift the speed limit, and the header says that there is one", async () => {
    await open("fixture=busy", "#/settings");
    const select = the("limit-select") as HTMLSelectElement;
    const choose = async (value: string): Promise<void> => {
      select.value = value;
      select.dispatchEvent(new Event("change", { bubbles: true }));
      await settle();
    };
    expect(select.selectedOptions[0]?.textContent).toBe("Unlimited");
    expect(all("header-limited"), "no limit needs no word").toEqual([]);
    await choose("1000000");
    expect(the("header-limited").textContent).toContain("Limited to 1 MB/s");
    await choose("off");
    expect(all("header-limited")).toEqual([]);
    expect(sent("configure")).toEqual([
      { call: "configure", change: { ...UNCHANGED, speed_limit: { bytes_per_second: 1_000_000 } } },
      { call: "configure", change: { ...UNCHANGED, speed_limit: "off" } },
    ]);
  });

  it("show a limit that was set elsewhere as it is, until another is chosen", async () => {
    await open("fixture=busy&limit=1500000", "#/settings");
    const select = the("limit-select") as HTMLSelectElement;
    const labels = (): (string | null)[] => [...select.options].map((option) => option.textContent);
    expect(select.selectedOptions[0]?.textContent).toBe("1.5 MB/s");
    expect(labels()).toEqual(["Unlimited", "250 kB/s", "1 MB/s", "1.5 MB/s", "5 MB/s"]);
    select.value = "250000";
    select.dispatchEvent(new Event("change", { bubbles: true }));
    await settle();
    expect(select.selectedOptions[0]?.textContent).toBe("250 kB/s");
    expect(labels()).toEqual(["Unlimited", "250 kB/s", "1 MB/s", "5 MB/s"]);
  });
});
