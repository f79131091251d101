import { fileURLToPath } from "node:url";

import { defineConfig } from "vite";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  root: here("."),
  base: "./",
  resolve: { alias: { "@natsproc/ai-sdk": here("../src/index.ts") }, dedupe: ["react"] },
  build: { target: "es2022", minify: false, emptyOutDir: true, modulePreload: { polyfill: false }, reportCompressedSize: false },
});
