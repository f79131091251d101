import { fileURLToPath } from "node:url";

import { defineConfig } from "vite";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  base: "./",
  resolve: {
    alias: {
      natsproc: here("../client/src/index.ts"),
      "@nats-io/nats-core": here("node_modules/@nats-io/nats-core"),
    },
  },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    target: "es2022",
    outDir: here("../../natsproc/assets/console"),
    emptyOutDir: true,
    assetsInlineLimit: 0, // the page's policy allows no code or style but from its own host
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});
