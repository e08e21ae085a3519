// The page on screen, kept in the address so that "back" and a second window work.
export const PAGES = ["now", "savings", "images", "setup", "settings"] as const;
export type Page = (typeof PAGES)[number];

/** The page an address names; an unknown one is the first page. */
export function pageOf(hash: string): Page {
  const name = hash.replace(/^#\/?/, "");
  return PAGES.find((page) => page === name) ?? "now";
}

let page = $state<Page>(pageOf(location.hash));
window.addEventListener("hashchange", () => (page = pageOf(location.hash)));

export const currentPage = (): Page => page;
