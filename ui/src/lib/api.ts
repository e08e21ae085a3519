// The only way to the shell: one command that asks, one channel that tells. Never touches the page.
import { Channel, invoke } from "@tauri-apps/api/core";
import type { ApiError, Command, Reply, WatchMessage } from "./contract";

/** The shell as the page sees it: the real one, or recorded replies. */
export interface Api {
  /** Answers one command. Rejects only when the shell cannot be reached at all. */
  call(command: Command): Promise<Reply>;
  /** Calls `listener` for each message (`lost`: the shell went away; snapshots come when it is back) from now on, for as long as the page lives. */
  watch(listener: (message: WatchMessage) => void): Promise<void>;
}

export const tauri: Api = {
  call: (command) => invoke<Reply>("call", { command }),
  async watch(listener) {
    const channel = new Channel<WatchMessage>();
    channel.onmessage = listener;
    await invoke("watch", { channel });
  },
};

/** A command that failed, with the closed reason the page translates. */
export class Refused extends Error {
  constructor(readonly error: ApiError) {
    super(error.message);
  }
}

/** What went wrong, as an [`ApiError`], whatever was thrown. */
export function refusal(thrown: unknown): ApiError {
  if (thrown instanceof Refused) return thrown.error;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return { code: "internal", message, next_step: null };
}

type ReplyName = Reply["reply"];
type ValueOf<N extends ReplyName> = Extract<Reply, { reply: N }> extends { value: infer V } ? V : undefined;

/**
 * Asks and takes the one kind of answer the command has.
 * @throws Refused when the shell answers with an error, or with something else than `expected`.
 */
export async function ask<N extends ReplyName>(api: Api, command: Command, expected: N): Promise<ValueOf<N>> {
  const reply = await api.call(command);
  if (reply.reply === expected) return ("value" in reply ? reply.value : undefined) as ValueOf<N>;
  if (reply.reply === "error") throw new Refused(reply.value);
  throw new Refused({ code: "internal", message: `expected ${expected}, got ${reply.reply}`, next_step: null });
}
