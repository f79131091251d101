/** Pages for the tests, by what stands behind `#`: the README's example, or a process with a count of what it costs. */

import { MeshProvider, useMesh, useProcess } from "@natsproc/react";
import { Profiler, StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";

import { App } from "../example";

const credentials = async (): Promise<string> => (await fetch("/grant")).text();
const seen = { commits: 0, tails: 0 };
Object.assign(globalThis, { seen });

function Counted() {
  const [shown, show] = useState(true);
  return (
    <MeshProvider credentials={credentials}>
      <button onClick={() => show(!shown)}>{shown ? "hide" : "show"}</button>
      <Subscriptions />
      {shown && (
        <Profiler id="one" onRender={() => void seen.commits++}>
          <One />
        </Profiler>
      )}
    </MeshProvider>
  );
}

function One() {
  const { events, caughtUp, connected, error, ended, text } = useProcess("build", { limit: 100 });
  const offsets = events.map(({ offset }) => offset);
  const told = { first: offsets[0], last: offsets.at(-1), count: offsets.length, caughtUp, connected, text, ended: ended?.status, error: error?.name };
  return <pre>{JSON.stringify(told)}</pre>;
}

/** Tells the test how many tails are begun, and where. */
function Subscriptions() {
  const { mesh } = useMesh();
  if (!mesh || "counted" in mesh) return null;
  const process = mesh.process.bind(mesh);
  Object.assign(mesh, {
    counted: true,
    process: (id: string) => {
      const handle = process(id);
      const tail = handle.tail.bind(handle);
      handle.tail = (options) => {
        seen.tails++;
        Object.assign(globalThis, { after: options?.after });
        return tail(options);
      };
      return handle;
    },
  });
  return null;
}

createRoot(document.querySelector("main")!).render(<StrictMode>{location.hash === "#counted" ? <Counted /> : <App credentials={credentials} />}</StrictMode>);
