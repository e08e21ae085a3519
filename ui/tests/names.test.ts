import { describe, expect, it } from "vitest";
import { images } from "../src/fixtures/recorded";
import { familiar, imageTitle, listImages, selectionName, withReference } from "../src/lib/names";

const held = images(Date.UTC(2026, 10, 20));

describe("a name", () => {
  it.each([
    ["docker.io/library/nginx", "nginx"],
    ["docker.io/grafana/grafana", "grafana/grafana"],
    ["ghcr.io/docker.io/library", "ghcr.io/docker.io/library"],
  ])("of %s is typed as %s", (image, expected) => {
    expect(familiar(image)).toBe(expected);
  });

  it("takes a tag by a colon, a digest by an at sign", () => {
    expect(withReference("docker.io/library/nginx", "1.27")).toBe("nginx:1.27");
    expect(withReference("docker.io/library/nginx", `sha256:${"0a".repeat(32)}`)).toBe("nginx@sha256:0a0a0a0a0a0a");
  });

  it("for clearing is whole, so that nothing else goes", () => {
    const [tagged] = held;
    const untagged = held.find((image) => image.tag === null);
    expect(tagged && selectionName(tagged)).toBe("docker.io/library/node:20");
    expect(untagged && selectionName(untagged), "a shortened digest would not be one").toMatch(/@sha256:[0-9a-f]{64}$/);
    expect(new Set(held.map(selectionName)).size, "each image has its own").toBe(held.length);
  });
});

describe("the list", () => {
  it("finds by every word, in name, tag, digest and platform", () => {
    expect(listImages(held, "NODE alpine", "name", true).map(imageTitle)).toEqual(["node:20-alpine"]);
    expect(listImages(held, "arm64", "name", true).map(imageTitle)).toEqual(["ubuntu:24.04"]);
    expect(listImages(held, "no such thing", "name", true)).toEqual([]);
  });

  it("sorts both ways and leaves what it was given alone", () => {
    const before = [...held];
    const sizes = listImages(held, "", "size", false).map((image) => image.size_bytes);
    expect(sizes).toEqual([...sizes].sort((a, b) => b - a));
    const used = listImages(held, "", "used", true).map((image) => image.last_used);
    expect(used).toEqual([...used].sort((a, b) => a - b));
    expect(held).toEqual(before);
  });
});
