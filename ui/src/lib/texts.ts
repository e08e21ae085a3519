// Sentences by key. Pure: which language is shown is decided in i18n.svelte.ts.
import en from "../../i18n/en.json";
import vi from "../../i18n/vi.json";

export type Locale = "en" | "vi";
export type Key = keyof typeof en;
/** Keys that exist as `<base>.one` and `<base>.other`. */
export type PluralKey = Key extends infer K ? (K extends `${infer Base}.other` ? Base : never) : never;
export type Values = Record<string, string | number>;

const TEXTS: Record<Locale, Record<Key, string>> = { en, vi };

/** The sentence of a key with `%{name}` replaced. A name without a value stays visible, so that it is noticed. */
export function text(locale: Locale, key: Key, values: Values = {}): string {
  return TEXTS[locale][key].replace(/%\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}

/** The sentence for a number of things; `%{count}` is the number, written the way of the locale. */
export function plural(locale: Locale, base: PluralKey, count: number, values: Values = {}): string {
  const form = new Intl.PluralRules(locale).select(count) === "one" ? "one" : "other";
  return text(locale, `${base}.${form}`, { count: new Intl.NumberFormat(locale).format(count), ...values });
}

/** The language to show: the one chosen, else the system's first that there is, else English. */
export function chooseLocale(chosen: string | null, system: readonly string[]): Locale {
  const wanted = chosen ? [chosen] : system;
  for (const tag of wanted) {
    const language = tag.toLowerCase().split("-")[0];
    if (language === "en" || language === "vi") return language;
  }
  return "en";
}
