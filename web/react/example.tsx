import { MeshProvider, useProcess, useProcesses } from "@natsproc/react";
import { useState } from "react";

/** Everything that runs, and one of them whole. */
export function App({ credentials }: { credentials: () => Promise<string> }) {
  const [id, choose] = useState("");
  return (
    <MeshProvider credentials={credentials}>
      <Running choose={choose} />
      {id && <One key={id} id={id} />}
    </MeshProvider>
  );
}

function Running({ choose }: { choose: (id: string) => void }) {
  const { processes, loading, error } = useProcesses();
  if (error) return <p role="alert">{error.message}</p>;
  if (loading) return <p>Looking …</p>;
  return (
    <ul>
      {processes.map(({ address, state }) => (
        <li key={address.key}>
          <button onClick={() => choose(String(address))}>{String(address)}</button> {state}
        </li>
      ))}
    </ul>
  );
}

function One({ id }: { id: string }) {
  const { state, text, events, asks, viewers, connected, ended, error, answer, interrupt } = useProcess(id, { n: 200 });
  const [said, say] = useState("");
  return (
    <article>
      <h1>
        {id} is {state || "not known yet"}, {connected ? "live" : "not connected"}, watched by {Object.keys(viewers).join(", ")}
      </h1>
      {error && <p role="alert">{error.message}</p>}
      <ol>
        {events.map(({ offset, type, data }) => type !== "token" && <li key={offset} value={offset}>{`${type} ${JSON.stringify(data)}`}</li>)}
      </ol>
      <output>{text}</output>
      {asks.map(({ ask, question, choices = ["yes", "no"] }) => (
        <p key={ask}>
          {question}{" "}
          {choices.map((choice) => (
            <button key={String(choice)} onClick={() => answer(choice, { ask })}>{String(choice)}</button>
          ))}
        </p>
      ))}
      <button disabled={!!ended} onClick={async () => say((await interrupt({ reason: "Stop was pressed" })).status)}>Stop</button> {said}
    </article>
  );
}
