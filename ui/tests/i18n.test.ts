import { describe, expect, it } from "vitest";
import en from "../i18n/en.json";
import vi from "../i18n/vi.json";
import { chooseLocale, plural, text, type Key } from "../src/lib/texts";

const sources = Object.entries(
  import.meta.glob<string>("../src/**/*.{ts,svelte}", { query: "?raw", import: "default", eager: true }),
).filter(([path]) => !path.includes("/fixtures/"));
const code = sources.map(([, source]) => source).join("\n");

const placeholders = (sentence: string): string[] => [...sentence.matchAll(/%\{(\w+)\}/g)].map((found) => found[1] ?? "").sort();
/** Rust shows these; the page need not. */
const forRust = /^(tray|notify|error)\./;

describe("the two languages", () => {
  it("have the same keys in the same order", () => {
    expect(Object.keys(vi), "a key in one language only would show as nothing in the other").toEqual(Object.keys(en));
  });

  it.each(Object.keys(en) as Key[])("say the same about %s", (key) => {
    expect(en[key].trim(), "an empty sentence says nothing").not.toBe("");
    expect(vi[key].trim(), "an empty sentence says nothing").not.toBe("");
    expect(placeholders(vi[key]), "a lost placeholder loses a fact").toEqual(placeholders(en[key]));
    expect(en[key] + vi[key], "only %{name} is a placeholder; other braces are a slip").not.toMatch(/(^|[^%])\{|%(?!\{)\w/);
  });

  it.each((Object.keys(en) as Key[]).filter((key) => !forRust.test(key)))("use %s somewhere", (key) => {
    const base = key.replace(/\.(one|other)$/, "");
    const used = [key, base].some((name) => code.includes(`"${name}"`));
    expect(used, "an unused sentence is translated for nobody").toBe(true);
  });

  it("have both forms of each plural", () => {
    for (const key of Object.keys(en)) {
      const other = key.replace(/\.one$/, ".other");
      expect(en, `${key} without ${other}`).toHaveProperty([other]);
    }
  });
});

describe("what Rust shows", () => {
  it.each([
    "tray.state.serving", "tray.state.working", "tray.state.paused", "tray.state.attention", "tray.state.off",
    "tray.saved_today", "tray.pull_line", "tray.open", "tray.pause", "tray.pause_15min", "tray.pause_1h",
    "tray.pause_tomorrow", "tray.resume", "tray.limit", "tray.unlimited", "tray.quit", "tray.docker_setup",
    "notify.disk_full.title", "notify.disk_full.body", "notify.quota_full.title", "notify.quota_full.body", "notify.upstream_down.title", "notify.upstream_down.body",
    "notify.port_taken.title", "notify.port_taken.body", "notify.store_failed.title", "notify.store_failed.body",
  ])("has %s", (key) => {
    expect(en).toHaveProperty([key]);
  });

  it("names the values it is given", () => {
    expect(placeholders(en["tray.saved_today"])).toEqual(["size"]);
    expect(placeholders(en["tray.pull_line"])).toEqual(["image", "percent"]);
    expect(placeholders(en["notify.upstream_down.title"])).toEqual(["registry"]);
  });
});

describe("a sentence", () => {
  it("takes its values", () => {
    expect(text("en", "now.upstream_down", { registry: "docker.io" })).toBe("docker.io does not answer.");
  });

  it("shows a value that was forgotten, so that it is noticed", () => {
    expect(text("en", "now.upstream_down")).toContain("%{registry}");
  });

  it("counts the way of its language", () => {
    expect(plural("en", "images.selected", 1)).toBe("1 image selected");
    expect(plural("en", "images.selected", 1200)).toBe("1,200 images selected");
    expect(plural("vi", "images.selected", 1200), "Vietnamese groups with a point").toBe("Đã chọn 1.200 image");
  });
});

describe("the language shown", () => {
  it.each([
    ["vi", ["en-US"], "vi"],
    ["en", ["vi-VN"], "en"],
    [null, ["vi-VN", "en"], "vi"],
    [null, ["fr-FR", "vi"], "vi"],
    [null, ["fr-FR"], "en"],
    [null, [], "en"],
    ["xx", ["vi"], "en"],
  ] as const)("for the choice %s on a system of %j is %s", (chosen, system, expected) => {
    expect(chooseLocale(chosen, system)).toBe(expected);
  });
});
