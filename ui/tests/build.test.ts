import { build } from "vite";
import { describe, expect, it } from "vitest";

describe("the built page", async () => {
  const built = await build({ mode: "production", logLevel: "silent", build: { write: false } });
  const { output } = [built].flat()[0] as { output: { type: string; fileName: string; code?: string; source?: unknown; moduleIds?: string[] }[] };
  const modules = output.flatMap((file) => file.moduleIds ?? []);
  const script = output.map((file) => file.code ?? "").join("\n");
  const html = String(output.find((file) => file.fileName === "index.html")?.source);

  it("has no recorded replies in it", () => {
    expect(modules.length, "the modules are known at all").toBeGreaterThan(20);
    expect(modules.filter((id) => id.includes("/fixtures/")), "made-up numbers must not be reachable by an address").toEqual([]);
    expect(script).not.toContain("home-assistant");
  });

  it("loads nothing that cannot live with a frozen Object.prototype", () => {
    expect(modules.filter((id) => id.includes("/d3-color/")), "it throws when it loads in the shell's window").toEqual([]);
  });

  it("has nothing inline that the content security policy forbids", () => {
    expect(html).toContain('src="./assets/');
    expect(html, "no inline script").not.toMatch(/<script(?![^>]*\ssrc=)[^>]*>/);
    expect(html, "no inline style").not.toMatch(/<style|\sstyle=/);
    expect(script, "no style attribute in a template").not.toMatch(/<[a-z][^<>`]*\sstyle="/);
    expect(html, "relative addresses only").not.toMatch(/(?:src|href)="(?:\/|https?:)/);
  });
});
