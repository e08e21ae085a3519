import { describe, expect, it } from "vitest";
import { ask, refusal, Refused, type Api } from "../src/lib/api";
import type { Reply } from "../src/lib/contract";

const answering = (reply: Reply): Api => ({ call: () => Promise.resolve(reply), watch: () => Promise.resolve() });

describe("asking", () => {
  it("gives the value of the reply that was expected", async () => {
    expect(await ask(answering({ reply: "images", value: [] }), { call: "images" }, "images")).toEqual([]);
    expect(await ask(answering({ reply: "done" }), { call: "resume" }, "done")).toBeUndefined();
  });

  it("throws the shell's own reason", async () => {
    const error = { code: "plan_outdated", message: "changed", next_step: "look" } as const;
    const asked = ask(answering({ reply: "error", value: error }), { call: "docker" }, "docker");
    await expect(asked).rejects.toSatisfy((thrown) => thrown instanceof Refused && thrown.error === error);
  });

  it("does not take one answer for another", async () => {
    const asked = ask(answering({ reply: "done" }), { call: "images" }, "images");
    await expect(asked, "an empty list would look like an empty cache").rejects.toThrow("expected images");
  });
});

describe("a refusal", () => {
  it("has a reason whatever was thrown", () => {
    expect(refusal("shell gone")).toEqual({ code: "internal", message: "shell gone", next_step: null });
    expect(refusal(new Error("broken")).message).toBe("broken");
  });
});
