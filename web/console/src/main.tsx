import { render } from "preact";

import { App } from "./app.tsx";
import { onKey } from "./keyboard.ts";
import { readAddress } from "./route.ts";
import { begin, remembered } from "./session.ts";
import "./theme.ts";
import "./styles/tokens.css";
import "./styles/parts.css";
import "./styles/fleet.css";
import "./styles/process.css";

function arrive(): void {
  const access = readAddress();
  if (access) void begin(access);
}

const access = readAddress() ?? remembered();
if (access) void begin(access);
addEventListener("popstate", arrive);
addEventListener("hashchange", arrive);
document.addEventListener("keydown", onKey);
render(<App />, document.getElementById("app")!);
