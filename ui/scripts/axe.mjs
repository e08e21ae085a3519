// Runs axe over every page of the fixture build, in both themes and languages, under the shell's CSP and with the frozen
// Object.prototype of its window. Ends with 1 if there is any violation, any CSP report, or any error in the page.
//   CHROMIUM=<path>   the browser (default: Debian's)      SHOTS=<folder>   also keep a picture of each
//   ONLY=<start>      only scenes whose name begins so
import { createRequire } from "node:module";
import { mkdirSync, readFileSync } from "node:fs";
import { chromium } from "playwright-core";
import { preview } from "vite";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const shots = process.env.SHOTS;
const server = await preview({ mode: "fixture", build: { outDir: "node_modules/.fixture" }, preview: { port: 0, host: "127.0.0.1" } });
const address = server.resolvedUrls.local[0];
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

const dialog = async (page) => {
  await page.getByTestId("clear-all").click();
  await page.getByTestId("clear-confirm").waitFor();
};
const consented = async (page) => {
  await page.getByTestId("setup-consent").click();
  await page.getByTestId("setup-result").waitFor();
};
const ticked = (registry) => (page) => page.locator(`[data-testid=setup-registries-tick][data-registry="${registry}"]`).click();
const opened = (id) => (page) => page.getByTestId(id).locator("summary").first().click();
const client = (id, button) => async (page) => {
  await page.locator(`[data-client=${id}] [data-testid=${button}]`).click();
  await page.getByTestId("client-diff").waitFor();
};
const SCENES = [
  { name: "now", fixture: "busy", hash: "now" },
  { name: "now-limited", fixture: "busy&limit=1500000", hash: "now" },
  { name: "now-first", fixture: "first", hash: "now" },
  { name: "now-down", fixture: "down", hash: "now" },
  { name: "now-offline", fixture: "offline", hash: "now" },
  { name: "now-stale", fixture: "stale", hash: "now" },
  { name: "now-paused", fixture: "paused", hash: "now" },
  { name: "now-lost", fixture: "lost", hash: "now" },
  { name: "savings", fixture: "busy", hash: "savings" },
  { name: "savings-table", fixture: "busy", hash: "savings", act: (page) => page.getByTestId("savings-as-table").click() },
  { name: "savings-empty", fixture: "first", hash: "savings" },
  { name: "images", fixture: "busy", hash: "images", act: (page) => page.locator("tbody input").nth(1).click() },
  { name: "images-empty", fixture: "first", hash: "images" },
  { name: "images-clear", fixture: "busy", hash: "images", act: dialog },
  {
    name: "images-more",
    fixture: "busy",
    hash: "images",
    act: async (page) => {
      await page.locator("[data-name='docker.io/library/node:20'] [data-testid=image-open]").click();
      await page.getByTestId("image-more").locator("li").first().waitFor();
    },
  },
  {
    name: "images-tag",
    fixture: "busy",
    hash: "images",
    act: async (page) => {
      await page.locator("[data-name='docker.io/library/nginx:1.27'] [data-testid=image-open]").click();
      await page.getByTestId("tag-refresh").click();
      await page.getByTestId("tag-past").nth(2).waitFor();
    },
  },
  {
    name: "images-frozen",
    fixture: "busy",
    hash: "images",
    act: async (page) => {
      await page.locator("[data-name='docker.io/library/golang:1.25-bookworm'] [data-testid=image-open]").click();
      await page.locator("[data-name='docker.io/library/ubuntu:24.04'] [data-testid=image-open]").click();
      await page.getByTestId("tag-unfreeze").waitFor();
    },
  },
  {
    name: "images-offline",
    fixture: "full",
    hash: "images",
    act: async (page) => {
      await page.locator("[data-name='docker.io/library/node:20'] [data-testid=image-open]").click();
      await page.getByTestId("verify-offline").click();
      await page.getByTestId("offline-checks").waitFor();
    },
  },
  {
    name: "settings-quiet",
    fixture: "busy",
    hash: "settings",
    act: async (page) => {
      await page.getByTestId("quiet-on").click();
      await page.getByTestId("quiet-from").waitFor();
    },
  },
  {
    name: "images-removed",
    fixture: "busy",
    hash: "images",
    act: async (page) => {
      await page.getByTestId("image-remove").first().click();
      await page.getByTestId("clear-confirm").click();
      await page.getByTestId("clear-undo").waitFor();
    },
  },
  { name: "setup", fixture: "first", hash: "setup" },
  { name: "setup-restart", fixture: "restart", hash: "setup" },
  { name: "setup-nodocker", fixture: "nodocker", hash: "setup" },
  {
    name: "setup-done",
    fixture: "first",
    hash: "setup",
    act: async (page) => {
      await page.getByTestId("setup-consent").click();
      await page.getByTestId("setup-proof").waitFor();
    },
  },
  {
    name: "setup-outdated",
    fixture: "outdated",
    hash: "setup",
    act: async (page) => {
      await page.getByTestId("setup-consent").click();
      await page.getByTestId("setup-error").waitFor();
    },
  },
  {
    name: "setup-undo",
    fixture: "busy",
    hash: "setup",
    act: async (page) => {
      await page.getByTestId("setup-undo").click();
      await page.getByTestId("setup-consent").waitFor();
    },
  },
  {
    name: "setup-restart-asked",
    fixture: "hubonly",
    hash: "setup-undo",
    act: async (page) => {
      await page.getByTestId("setup-restart-instead").click();
      await page.getByTestId("setup-restart-consent").waitFor();
    },
  },
  { name: "setup-undo-asked", fixture: "busy", hash: "setup-undo", act: (page) => page.getByTestId("setup-consent").waitFor() },
  { name: "setup-enabled", fixture: "registries", hash: "setup" },
  { name: "setup-passing", fixture: "passing", hash: "setup" },
  { name: "setup-others", fixture: "busy", hash: "setup", act: opened("setup-others") },
  { name: "setup-evidence", fixture: "busy", hash: "setup", act: opened("setup-evidence") },
  { name: "setup-ticked", fixture: "registries", hash: "setup", act: ticked("gcr.io") },
  { name: "setup-hubonly", fixture: "hubonly", hash: "setup", act: opened("setup-by-name") },
  { name: "setup-drift", fixture: "drift", hash: "setup" },
  { name: "now-drift", fixture: "drift", hash: "now" },
  {
    name: "setup-restore",
    fixture: "drift",
    hash: "setup",
    act: async (page) => {
      await page.getByTestId("setup-restore").click();
      await page.getByTestId("setup-consent").waitFor();
    },
  },
  { name: "setup-cut-short", fixture: "cutshort", hash: "setup" },
  {
    name: "setup-cut-short-finish",
    fixture: "cutshort",
    hash: "setup",
    act: async (page) => {
      await page.getByTestId("setup-finish").click();
      await page.getByTestId("setup-consent").waitFor();
    },
  },
  { name: "setup-repair", fixture: "repair", hash: "setup" },
  { name: "now-repair", fixture: "repair", hash: "now" },
  {
    name: "setup-refused",
    fixture: "refused",
    hash: "setup",
    act: async (page) => {
      await page.getByTestId("setup-consent").click();
      await page.getByTestId("setup-error").waitFor();
    },
  },
  { name: "setup-steps", fixture: "first", hash: "setup", act: async (page) => (await consented(page), await opened("setup-result")(page)) },
  { name: "client-plan", fixture: "busy", hash: "setup", act: client("podman", "client-set-up") },
  { name: "client-commands", fixture: "busy", hash: "setup", act: client("containerd", "client-set-up") },
  { name: "client-undo", fixture: "busy", hash: "setup", act: client("buildkit", "client-undo") },
  {
    name: "client-done",
    fixture: "busy",
    hash: "setup",
    act: async (page) => {
      await client("podman", "client-set-up")(page);
      await page.getByTestId("client-consent").click();
      await page.getByTestId("client-result").waitFor();
    },
  },
  {
    name: "upstreams",
    fixture: "busy",
    hash: "settings",
    act: async (page) => {
      await page.locator("[data-testid=upstream][data-state=dropped]").waitFor();
      await page.getByTestId("upstreams-alone").locator("summary").click();
    },
  },
  { name: "settings-scrubbing", fixture: "scrubbing", hash: "settings" },
  { name: "settings-fresh", fixture: "fresh", hash: "settings" },
  { name: "settings-offline", fixture: "offline", hash: "settings" },
  { name: "settings-down", fixture: "down", hash: "settings" },
  { name: "savings-stale", fixture: "stale", hash: "savings" },
  { name: "settings-limited", fixture: "busy&limit=1500000", hash: "settings" },
  {
    name: "settings",
    fixture: "busy",
    hash: "settings",
    act: async (page) => {
      await page.getByTestId("doctor").click();
      await page.getByTestId("doctor-checks").waitFor();
    },
  },
];

if (shots) mkdirSync(shots, { recursive: true });
let bad = 0;
let looked = 0;
for (const theme of ["light", "dark"]) {
  for (const lang of ["en", "vi"]) {
    for (const width of [900, 420]) {
      const context = await browser.newContext({ viewport: { width, height: 620 }, bypassCSP: false, reducedMotion: "reduce" });
      await context.addInitScript(() => Object.freeze(Object.prototype));
      for (const scene of SCENES.filter((one) => one.name.startsWith(process.env.ONLY ?? ""))) {
        const where = `${scene.name} ${theme} ${lang} ${width}`;
        const page = await context.newPage();
        const complain = (what) => {
          bad += 1;
          console.error(`${where}: ${what}`);
        };
        page.on("pageerror", (error) => complain(error.message));
        page.on("console", (message) => {
          if (message.type() === "error") complain(message.text());
        });
        await page.goto(`${address}?fixture=${scene.fixture}&lang=${lang}&theme=${theme}#/${scene.hash}`);
        await page.locator("body[data-ready=true]").waitFor({ timeout: 10_000 });
        await page.waitForTimeout(150);
        await scene.act?.(page);
        await page.waitForTimeout(50);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
        if (wide) complain("the page scrolls sideways");
        if (shots) {
          await page.screenshot({ path: `${shots}/${scene.name}-${theme}-${lang}-${width}.png` });
          await page.screenshot({ path: `${shots}/${scene.name}-${theme}-${lang}-${width}-full.png`, fullPage: true });
        }
        // An isolated evaluation: the page's CSP forbids a script element, and stays as it is for the page.
        await page.evaluate(axe);
        const result = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
        looked += 1;
        for (const violation of result.violations)
          complain(`${violation.id}: ${violation.help}\n    ${violation.nodes.slice(0, 4).map((node) => `${node.html.slice(0, 160)}\n      ${node.any.concat(node.all).map((check) => check.message).join("; ")}`).join("\n    ")}`);
        await page.close();
      }
      await context.close();
    }
  }
}
await browser.close();
await server.close();
console.log(`axe: ${looked} pages looked at, ${bad} complaints`);
process.exit(bad === 0 ? 0 : 1);
