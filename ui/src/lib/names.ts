// Image names as people type them, and as the contract wants them.
import type { Image } from "./contract";
import type { Key } from "./texts";

/** `docker.io/library/nginx` → `nginx`, `docker.io/grafana/grafana` → `grafana/grafana`; others whole. */
export function familiar(image: string): string {
  return image.replace(/^docker\.io\/library\//, "").replace(/^docker\.io\//, "");
}

/** `sha256:` and twelve digits, as Docker shortens them. */
export function shortDigest(digest: string): string {
  return digest.slice(0, "sha256:".length + 12);
}

/** A familiar name with what was asked for: `nginx:1.27`, `nginx@sha256:0123456789ab`. */
export function withReference(image: string, reference: string): string {
  const digest = reference.startsWith("sha256:");
  return `${familiar(image)}${digest ? `@${shortDigest(reference)}` : `:${reference}`}`;
}

/** The whole name a [`ClearSelection`] takes: unique in the cache. */
export function selectionName(image: Image): string {
  return image.tag === null ? `${image.image}@${image.digest}` : `${image.image}:${image.tag}`;
}

/** The name shown for a cached image. */
export function imageTitle(image: Image): string {
  return withReference(image.image, image.tag ?? image.digest);
}

/** What a part of an image is, by its media type. */
export function partKind(mediaType: string | null): Key {
  if (mediaType === null) return "part.unknown";
  if (/manifest\.list|image\.index/.test(mediaType)) return "part.index";
  if (/manifest/.test(mediaType)) return "part.manifest";
  if (/config|container\.image/.test(mediaType)) return "part.config";
  return /layer|rootfs/.test(mediaType) ? "part.layer" : "part.unknown";
}

export type SortBy = "name" | "size" | "own" | "hits" | "used";

/** Images whose name, tag or digest contains every word of `search`, in order. Pure. */
export function listImages(images: readonly Image[], search: string, sort: SortBy, ascending: boolean): Image[] {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = images.filter((image) => {
    const name = `${selectionName(image)} ${image.digest} ${image.platforms.join(" ")}`.toLowerCase();
    return words.every((word) => name.includes(word));
  });
  const order = (a: Image, b: Image): number => {
    if (sort === "size") return a.size_bytes - b.size_bytes;
    if (sort === "own") return a.own_bytes - b.own_bytes;
    if (sort === "hits") return a.hits - b.hits;
    if (sort === "used") return a.last_used - b.last_used;
    return imageTitle(a).localeCompare(imageTitle(b));
  };
  // Equal ones keep one order, so that a row does not jump while numbers change.
  return found.sort((a, b) => (ascending ? order(a, b) : order(b, a)) || selectionName(a).localeCompare(selectionName(b)));
}
