// What is wrong with a private image, in the person's language.
import type { PrivateProblem, WhyPrivate } from "./contract";
import { t } from "./i18n.svelte";
import type { Key } from "./texts";

const WHY: Record<WhyPrivate, Key> = {
  not_allowed: "private.why.not_allowed",
  no_access: "private.why.no_access",
  shared: "private.why.shared",
  unasked: "private.why.unasked",
  no_login: "private.why.no_login",
  config_unreadable: "private.why.config_unreadable",
  helper_missing: "private.why.helper_missing",
  helper_failed: "private.why.helper_failed",
  helper_slow: "private.why.helper_slow",
  helper_output: "private.why.helper_output",
  login_unusable: "private.why.login_unusable",
  login_refused: "private.why.login_refused",
  other_realm: "private.why.other_realm",
  plain_http: "private.why.plain_http",
  other_server: "private.why.other_server",
  no_keyring: "private.why.no_keyring",
  withdrawn: "private.why.withdrawn",
};

/** Why it is not answered, as a sentence. */
export function privateProblem(problem: PrivateProblem): string {
  return t(WHY[problem.why], { about: problem.about ?? "" });
}
