// @vitest-environment happy-dom
import { flushSync, mount, unmount } from "svelte";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import App from "../src/App.svelte";
import { fixture } from "../src/fixtures/fixture";
import type { Api } from "../src/lib/api";
import type { Command } from "../src/lib/contract";

let page: ReturnType<typeof mount> | undefined;
let asked: Command[] = [];

/** Shows the page on recorded replies and notes every command it sends. */
async function open(name: string, hash = "#/setup"): Promise<void> {
  const recorded = fixture(new URLSearchParams(`lang=en&fixture=${name}`));
  const api: Api = {
    call(command) {
      asked.push(structuredClone(command));
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

const all = (id: string, within: ParentNode = document): HTMLElement[] => [
  ...within.querySelectorAll<HTMLElement>(`[data-testid="${id}"]`),
];
function the(id: string, within: ParentNode = document): HTMLElement {
  const [found] = all(id, within);
  if (!found) throw new Error(`there is no ${id} on the page`);
  return found;
}
async function click(id: string, within: ParentNode = document): Promise<void> {
  the(id, within).click();
  await settle();
}
const sent = (call: Command["call"]): Command[] => asked.filter((command) => command.call === call);
const box = (registry: string, testid = "setup-registries-tick"): HTMLInputElement => {
  const found = all(testid).find((one) => one.dataset.registry === registry);
  if (!found) throw new Error(`${registry} is not in the list`);
  return found as HTMLInputElement;
};
async function tick(registry: string, testid?: string): Promise<void> {
  box(registry, testid).click();
  await settle();
}
const row = (client: string): HTMLElement => {
  const found = all("client").find((one) => one.dataset.client === client);
  if (!found) throw new Error(`${client} is not in the list`);
  return found;
};
const isOpen = (id: string): boolean => (the(id) as HTMLDetailsElement).open;
const nothingChanged = (): void => expect([...sent("docker_apply"), ...sent("client_apply"), ...sent("docker_leave")]).toEqual([]);

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

describe("the engine", () => {
  it("says when Docker last used Sampan, and keeps what is well folded", async () => {
    await open("busy");
    expect(the("setup-last-used").textContent).toMatch(/Docker last used Sampan at \d\d:\d\d \(4 minutes ago\)\./);
    expect(["setup-builders", "setup-others", "setup-evidence"].map(isOpen)).toEqual([false, false, false]);
    expect(the("setup-builders").textContent).toContain("docker build asks Sampan");
    expect(the("setup-others").textContent, "the one the context means is no other").toMatch(/^\s*2 other engines/);
  });

  it("opens the builders whose builds pass Sampan by, those first, with the reason", async () => {
    await open("passing");
    expect(isOpen("setup-builders")).toBe(true);
    const said = the("setup-builders").textContent ?? "";
    expect(said).toContain("2 builders of docker build do not ask Sampan");
    expect(said.indexOf("multiarch"), "what is wrong comes first").toBeLessThan(said.indexOf("default"));
    expect(said).toContain("which does not name Sampan as a mirror");
  });

  it("does not blame builders before Docker is set up", async () => {
    await open("first");
    expect(isOpen("setup-builders")).toBe(false);
    expect(all("setup-last-used"), "that it does not use Sampan is said already").toEqual([]);
  });
});

describe("the registries", () => {
  it("are ticked into the plan, which is shown anew before anybody consents", async () => {
    await open("registries");
    expect(all("setup-plan"), "nothing to change yet").toEqual([]);
    await tick("gcr.io");
    expect(sent("docker_plan")).toEqual([
      { call: "docker_plan", action: "enable", registries: ["ghcr.io", "quay.io", "gcr.io"], restart: false },
    ]);
    expect(the("setup-diff").textContent).toContain("/etc/docker/certs.d/gcr.io/hosts.toml");
    nothingChanged();
    await tick("quay.io");
    expect(the("setup-diff").textContent).toContain("/etc/docker/certs.d/quay.io/hosts.toml");
    await click("setup-consent");
    expect(sent("docker_apply")).toHaveLength(1);
    expect([box("gcr.io").checked, box("quay.io").checked, box("ghcr.io").checked]).toEqual([true, false, true]);
  });

  it("need no plan when they are ticked as they are", async () => {
    await open("registries");
    await tick("gcr.io");
    await tick("gcr.io");
    expect(all("setup-plan")).toEqual([]);
    await tick("ghcr.io");
    await click("setup-undo-cancel");
    expect([all("setup-plan").length, box("ghcr.io").checked], "cancelled is as it was").toEqual([0, true]);
    nothingChanged();
  });

  it("say why one cannot be changed, also to whoever hears the page", async () => {
    await open("registries");
    const why = (registry: string): string | null | undefined =>
      document.getElementById(box(registry).getAttribute("aria-describedby") ?? "")?.textContent?.trim();
    expect([box("docker.io").checked, box("docker.io").disabled]).toEqual([true, true]);
    expect(why("docker.io")).toBe("always");
    expect(why("registry.gitlab.com")).toBe(
      "/etc/docker/certs.d/registry.gitlab.com/hosts.toml was written by somebody else and stays as it is.",
    );
    expect(why("registry.example.com:5000")).toContain("Sampan's privileged helper does not know registry.example.com:5000");
    expect([box("registry.gitlab.com").disabled, box("gcr.io").disabled]).toEqual([true, false]);
  });

  it("are part of the first set-up too", async () => {
    await open("first");
    await tick("ghcr.io");
    expect(sent("docker_plan").at(-1)).toEqual({ call: "docker_plan", action: "enable", registries: ["ghcr.io"], restart: false });
    expect(the("setup-diff").textContent).toContain("certs.d/ghcr.io/hosts.toml");
    await tick("ghcr.io");
    expect(sent("docker_plan").at(-1), "as now").toEqual({ call: "docker_plan", action: "enable", registries: null, restart: false });
    expect(all("setup-plan"), "Docker Hub is still to be set up").toHaveLength(1);
  });

  it("go by a longer name where the engine asks mirrors for Docker Hub only", async () => {
    await open("hubonly");
    expect(all("setup-registries-tick").map((one) => one.dataset.registry)).toEqual(["docker.io"]);
    expect(the("setup-by-name").textContent).toContain("localhost:7267/ghcr.io/owner/name:tag");
    expect(all("copy-by-name").map((one) => one.textContent)).toContain("Copy\u00a0localhost:7267/quay.io/");
    expect(the("setup-engine").textContent, "said once").not.toContain("mirrors for Docker Hub only");
  });
});

describe("a plan that is still on its way", () => {
  it("is not shown to somebody who cancelled meanwhile", async () => {
    await open("registries");
    await tick("gcr.io");
    box("quay.io").click();
    flushSync();
    the("setup-undo-cancel").click();
    await settle();
    expect(sent("docker_plan")).toHaveLength(2);
    expect([all("setup-plan").length, box("gcr.io").checked, box("quay.io").checked]).toEqual([0, false, true]);
  });
});

describe("what a consent is for", () => {
  it("is the files, the password, and what becomes of running containers", async () => {
    await open("first");
    expect(the("setup-running").textContent?.trim()).toBe("2 keep running: web, db.");
    expect(the("setup-prompt").textContent).toContain("An administrator password is asked for once");
    expect(the("setup-commands").textContent).toContain("sudo systemctl reload docker");
  });

  it("leaves the commands to run when the prompt was refused", async () => {
    await open("refused");
    const commands = (): boolean => the("setup-commands").closest("details")?.open ?? false;
    expect(commands()).toBe(false);
    await click("setup-consent");
    expect(the("setup-error").dataset.code).toBe("not_permitted");
    expect(commands()).toBe(true);
  });
});

describe("a restart", () => {
  it("is offered where a reload would do, and has a consent of its own that names what stops", async () => {
    await open("first");
    expect(all("setup-restart-consent"), "nobody asked for it").toEqual([]);
    await click("setup-restart-instead");
    expect(sent("docker_plan").at(-1)).toMatchObject({ action: "enable", restart: true });
    expect(the("setup-restart-consent").closest("label")?.textContent).toContain("This stops 2 running containers: web, db.");
    expect((the("setup-consent") as HTMLButtonElement).disabled, "the box comes first").toBe(true);
    await click("setup-consent");
    nothingChanged();
    await click("setup-restart-consent");
    await click("setup-consent");
    expect(sent("docker_apply").at(-1)).toMatchObject({ restart: true });
  });

  it("is taken back without losing the change", async () => {
    await open("first");
    await click("setup-restart-instead");
    await click("setup-restart-instead");
    expect(sent("docker_plan").at(-1)).toMatchObject({ restart: false });
    await click("setup-consent");
    expect(sent("docker_apply").at(-1)).toMatchObject({ restart: false });
  });
});

describe("the way from the tray", () => {
  it("leads to the consent of taking it back, and changes nothing by itself", async () => {
    await open("busy", "#/setup-undo");
    await settle();
    expect(sent("docker_plan")).toEqual([{ call: "docker_plan", action: "disable", registries: null, restart: false }]);
    expect(the("setup-plan").dataset.action).toBe("disable");
    expect(document.activeElement?.id).toBe("step-change");
    expect(location.hash, "once").toBe("#/setup");
    nothingChanged();
    await click("setup-consent");
    expect(the("setup-result").dataset.action).toBe("disable");
  });
});

describe("a set-up that somebody else changed", () => {
  it("says what and since when, and restores by a plan of its own", async () => {
    await open("drift");
    expect(the("setup-drift").textContent).toMatch(/Someone changed Docker’s set-up \(noticed .*\d\d:\d\d\)/);
    expect(the("setup-drift").textContent).toContain("Sampan was taken out of /etc/docker/daemon.json.");
    expect(sent("docker_plan"), "a choice comes first").toEqual([]);
    await click("setup-restore");
    expect(sent("docker_plan")).toEqual([{ call: "docker_plan", action: "enable", registries: null, restart: false }]);
    nothingChanged();
    await click("setup-consent");
    expect(all("setup-drift")).toEqual([]);
    expect(the("setup-result").dataset.action).toBe("enable");
  });

  it("is left as it is, without a word more", async () => {
    await open("drift");
    await click("setup-leave");
    expect(sent("docker_leave")).toEqual([{ call: "docker_leave" }]);
    expect(all("setup-drift")).toEqual([]);
    expect(sent("docker_apply")).toEqual([]);
    expect(document.activeElement?.id, "the button that was pressed is gone").toBe("step-engine");
  });

  it("is a short line on the first page, which leads here", async () => {
    await open("drift", "#/now");
    expect(the("setup-changed").textContent).toContain("Someone changed Docker’s set-up.");
    expect(the("setup-changed-link").getAttribute("href")).toBe("#/setup");
    expect(all("setup-call"), "said once").toEqual([]);
  });

  it("is repaired the same way after an update of Docker", async () => {
    await open("repair");
    expect(the("setup-repair").textContent).toContain("both files belong together");
    expect(all("setup-leave"), "there is nobody's change to leave").toEqual([]);
    await click("setup-restore");
    expect(the("setup-diff").textContent).toContain("/etc/docker/certs.d/docker.io/hosts.toml");
    await click("setup-consent");
    expect(all("setup-repair")).toEqual([]);
  });
});

describe("a change that was cut short", () => {
  it("is named with its files, and finishing it is agreed to although no file changes", async () => {
    await open("cutshort");
    expect(the("setup-cut-short").textContent).toContain("/etc/docker/daemon.json");
    nothingChanged();
    await click("setup-finish");
    expect(sent("docker_plan").at(-1)).toMatchObject({ action: "enable", registries: null });
    expect(the("setup-settles").textContent).toContain("settled first");
    await click("setup-consent");
    expect(sent("docker_apply")).toHaveLength(1);
    expect(all("setup-cut-short")).toEqual([]);
  });

  it("can be taken back instead", async () => {
    await open("cutshort");
    await click("setup-take-back");
    expect(sent("docker_plan").at(-1)).toMatchObject({ action: "disable" });
  });
});

describe("other programs", () => {
  it("are those found here, each with its state; the rest is one line", async () => {
    await open("busy");
    expect(all("client").map((one) => [one.dataset.client, one.dataset.enabled])).toEqual([
      ["podman", "false"],
      ["buildkit", "true"],
      ["containerd", "false"],
      ["k3s", "false"],
    ]);
    expect(row("buildkit").textContent).toContain("Asks Sampan for docker.io, ghcr.io");
    expect(the("clients").textContent).toContain("Not found here: nerdctl (rootless); kind");
  });

  it("are set up by a plan with ticks and consent of its own", async () => {
    await open("busy");
    await click("client-set-up", row("podman"));
    expect(sent("client_plan")).toEqual([{ call: "client_plan", client: "podman", action: "enable", registries: null }]);
    expect(document.activeElement?.id).toBe("client-plan-podman");
    await tick("ghcr.io", "client-registries-tick");
    expect(sent("client_plan").at(-1)).toEqual({ call: "client_plan", client: "podman", action: "enable", registries: ["ghcr.io"] });
    expect(sent("client_plan"), "one question a tick").toHaveLength(2);
    expect(the("client-diff").textContent).toContain("127.0.0.1:7267/ghcr.io");
    expect(the("client-running").textContent?.trim()).toBe("None is stopped.");
    nothingChanged();
    await click("client-consent");
    expect(sent("client_apply")).toMatchObject([{ call: "client_apply" }]);
    expect(row("podman").dataset.enabled).toBe("true");
    expect(the("client-result").textContent).toContain("Wrote /home/lan/.config/containers");
    expect(sent("client_plan"), "what was set up needs no new plan").toHaveLength(2);
    await click("client-close");
    expect(all("client-plan")).toEqual([]);
  });

  it("are taken back by a plan of its own", async () => {
    await open("busy");
    await click("client-undo", row("buildkit"));
    expect(the("client-plan").dataset.action).toBe("disable");
    expect(all("client-registries"), "all of it goes").toEqual([]);
    await click("client-consent");
    expect(row("buildkit").dataset.enabled).toBe("false");
  });

  it("are shown with commands alone where Sampan does not write", async () => {
    await open("busy");
    expect(the("client-set-up", row("containerd")).textContent).toContain("Show how");
    await click("client-set-up", row("containerd"));
    expect(all("client-consent"), "there is nothing to agree to").toEqual([]);
    expect(the("client-commands").closest("details")?.open).toBe(true);
    expect(the("client-prompt").textContent).toContain("run the commands below");
    await click("client-undo-cancel");
    expect([all("client-plan").length, document.activeElement?.id]).toEqual([0, "client-containerd"]);
    expect(sent("clients"), "the commands may have been run meanwhile").toHaveLength(2);
  });
});
