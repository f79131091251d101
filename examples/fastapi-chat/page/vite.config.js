import { defineConfig } from "vite";

export default defineConfig({
  base: "./",
  build: { target: "es2022", outDir: "../static", emptyOutDir: true, modulePreload: { polyfill: false } },
});
