import { fileURLToPath } from "node:url";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

export default {
  input: here("src/natsproc-tail.ts"),
  platform: "browser",
  resolve: {
    alias: {
      natsproc: here("../client/src/index.ts"),
      "@nats-io/nats-core": here("node_modules/@nats-io/nats-core/lib/mod.js"),
    },
    extensionAlias: { ".js": [".ts", ".js"] },
  },
  output: {
    file: here("../../natsproc/assets/natsproc-tail.js"),
    format: "esm",
    minify: true,
  },
};
