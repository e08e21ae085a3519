// The page on screen, kept in the address so that "back" and a second window work.
export const PAGES = ["now", "savings", "images", "setup", "settings"] as const;
export type Page = (typeof PAGES)[number];

/** The set-up page where taking Docker's set-up back is shown at once: the tray leads there. */
const UNDO = "setup-undo";

const nameIn = (hash: string): string => hash.replace(/^#\/?/, "");

/** The page an address names; an unknown one is the first page. */
export function pageOf(hash: string): Page {
  const name = nameIn(hash);
  if (name === UNDO) return "setup";
  return PAGES.find((page) => page === name) ?? "now";
}

let page = $state<Page>(pageOf(location.hash));
let undo = $state(nameIn(location.hash) === UNDO);
window.addEventListener("hashchange", () => {
  page = pageOf(location.hash);
  undo = nameIn(location.hash) === UNDO;
});

export const currentPage = (): Page => page;

/** Whether somebody came to take Docker's set-up back. */
export const undoAsked = (): boolean => undo;

/** Takes that wish out of the address: asking again begins again, and a page that is loaded anew asks nothing. */
export function undoTaken(): void {
  undo = false;
  history.replaceState(null, "", "#/setup");
}
