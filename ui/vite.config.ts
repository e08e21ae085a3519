import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

// The shell sends this policy with the real page; preview sends it too, so that a violation shows up without the shell.
const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src ipc: http://ipc.localhost";

export default defineConfig(({ mode }) => ({
  base: "./",
  plugins: [svelte()],
  build: {
    outDir: mode === "fixture" ? "node_modules/.fixture" : "dist",
    emptyOutDir: true,
    modulePreload: { polyfill: false },
  },
  // The icon of the page lives beside this folder.
  server: { host: "127.0.0.1", fs: { allow: [".."] } },
  preview: { host: "127.0.0.1", headers: { "Content-Security-Policy": policy } },
  // Vitest would take Svelte's server build otherwise, which draws nothing.
  resolve: process.env["VITEST"] ? { conditions: ["browser"] } : {},
  test: { include: ["tests/**/*.test.ts"], env: { TZ: "Asia/Ho_Chi_Minh" } },
}));
