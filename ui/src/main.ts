import { mount } from "svelte";
import App from "./App.svelte";
import "./app.css";
import { tauri, type Api } from "./lib/api";

async function api(): Promise<Api> {
  // Replaced by a constant when building: recorded replies are not even in the real page.
  if (import.meta.env.MODE !== "fixture") return tauri;
  const { fixture } = await import("./fixtures/fixture");
  return fixture(new URLSearchParams(location.search));
}

const target = document.getElementById("app");
if (target) mount(App, { target, props: { api: await api() } });
