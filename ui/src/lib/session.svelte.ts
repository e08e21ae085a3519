// The last state the shell told, and whether it still tells.
import { getContext, setContext } from "svelte";
import { ask, refusal, type Api } from "./api";
import type { ApiError, Command, Reply, SettingsChange, Snapshot } from "./contract";
import { useLanguage } from "./i18n.svelte";

const TICK_MILLIS = 1000;
const UNCHANGED: SettingsChange = { language: null, theme: null, speed_limit: null, quota: null, max_age_days: null, verify: null, offline: null, freshness: null, quiet_hours: null, metered: null };

export class Session {
  /** `null` until the first one arrives. */
  snapshot = $state.raw<Snapshot | null>(null);
  /** The shell went away; `snapshot` is what it last said. */
  lost = $state(false);
  /** When the last snapshot was taken, for "last seen". */
  lastSeen = $state(0);
  /** Now, by the second, for "3 minutes ago". Stands still while the shell is away. */
  now = $state(Date.now());
  /** Why watching could not even start. */
  failed = $state<ApiError | null>(null);

  constructor(readonly api: Api) {}

  /** Starts listening. Called once. */
  async start(): Promise<void> {
    setInterval(() => {
      if (!this.lost) this.now = Date.now();
    }, TICK_MILLIS);
    try {
      await this.api.watch((message) => {
        if (message.kind === "lost") {
          this.lost = true;
          return;
        }
        this.lost = false;
        this.now = Date.now();
        this.snapshot = message.value;
        this.lastSeen = message.value.at;
        useLanguage(message.value.settings.language);
      });
    } catch (thrown) {
      this.failed = refusal(thrown);
    }
  }

  ask<N extends Reply["reply"]>(command: Command, expected: N): ReturnType<typeof ask<N>> {
    return ask(this.api, command, expected);
  }

  /** Changes a setting; the next snapshot shows it. */
  async configure(change: Partial<SettingsChange>): Promise<void> {
    await this.ask({ call: "configure", change: { ...UNCHANGED, ...change } }, "done");
  }
}

const KEY = Symbol("session");
export const provideSession = (session: Session): void => void setContext(KEY, session);
export const useSession = (): Session => getContext<Session>(KEY);
