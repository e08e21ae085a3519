// Why a tag was answered as last seen, in words.
import type { Pull, StaleReason } from "./contract";
import type { Key } from "./texts";

const WHOLE: Record<StaleReason, Key> = {
  outage: "stale.outage",
  rate_limit: "stale.rate_limit",
  deadline: "stale.deadline",
  upstream: "stale.upstream",
  offline: "stale.offline",
  resting: "stale.resting",
};
const SHORT: Record<StaleReason, Key> = {
  outage: "receipt.stale.outage",
  rate_limit: "receipt.stale.rate_limit",
  deadline: "receipt.stale.deadline",
  upstream: "receipt.stale.upstream",
  offline: "receipt.stale.offline",
  resting: "receipt.stale.resting",
};

/** The sentence for a pull's card, and the words for its receipt; `null` where the registry was asked. Older pulls have no reason. */
export function staleKeys(pull: Pull): { whole: Key; short: Key } | null {
  if (!pull.stale) return null;
  const why = pull.stale_reason ?? "outage";
  return { whole: WHOLE[why], short: SHORT[why] };
}
