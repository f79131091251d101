import { StrictMode, useEffect, useRef, useState, type FormEvent } from "react";
import { createRoot } from "react-dom/client";

import { newId, post, useEvents } from "./events.ts";
import { fold, nothing } from "./fold.ts";

/** The conversation of this page, which its address names, so that a reload comes back to it. */
function Page() {
  const [id, setId] = useState("");
  const [problem, setProblem] = useState("");
  useEffect(() => {
    location.hash ||= newId().split("-")[0]!;
    post(`chats/${location.hash.slice(1)}`).then(({ said }) => setId(said.id), (error) => setProblem(String(error)));
  }, []);
  return id ? <Conversation process={`proc/${id}`} /> : <p role="status">{problem || "…"}</p>;
}

interface Sent {
  readonly id: string;
  readonly text: string;
}

function Conversation({ process }: { process: string }) {
  const [chat, stream] = useEvents(`${process}/events?compact=1`, fold, nothing);
  const [waiting, setWaiting] = useState<readonly Sent[]>([]);
  const [when, setWhen] = useState("idle");
  const [last, setLast] = useState("");

  const tell = (error: unknown) => setLast(String(error));

  async function send(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = event.currentTarget;
    const text = String(new FormData(form).get("text")).trim();
    if (!text) return;
    form.reset();
    const id = newId(); // by which the log says that it was taken
    setWaiting((all) => [...all, { id, text }]);
    const { replica } = await post(`${process}/send`, { id, data: { text }, when });
    setLast(`sent through replica ${replica}`);
  }

  async function command(verb: string, body: object) {
    const { said, replica } = await post(`${process}/${verb}`, body);
    const { status, why } = said.receipt ?? said;
    setLast(`${verb} through replica ${replica}: ${status.replace("_", " ")} ${why}`);
  }

  const end = useRef<HTMLLIElement>(null);
  useEffect(() => void end.current?.scrollIntoView(), [chat]);

  const taken = new Set(chat.said.map(({ key }) => key));
  return (
    <main>
      <header>
        <h1>A chat on two replicas</h1>
        <p role="status">
          {chat.replica && `the agent runs in replica ${chat.replica}`}
          {chat.trouble && ` · ${chat.trouble}`}
          {stream !== "open" && ` · ${stream}`}
          {last && ` · ${last}`}
        </p>
      </header>
      <ol aria-live="polite">
        {chat.said.map(({ key, by, pieces }) => (
          <li key={key} className={by}>
            {pieces.map(({ text }) => text).join("")}
          </li>
        ))}
        {chat.asks.map(({ ask, question, choices = [] }) => (
          <li key={ask} className="question">
            {question}{" "}
            {choices.map((value) => (
              <button key={value} onClick={() => command("answer", { ask, value }).catch(tell)}>
                {value}
              </button>
            ))}
          </li>
        ))}
        {waiting.filter(({ id }) => !taken.has(id)).map(({ id, text }) => (
          <li key={id} className="user waiting">
            {text}
          </li>
        ))}
        <li ref={end} />
      </ol>
      <form onSubmit={(event) => send(event).catch(tell)}>
        <input name="text" placeholder="count to 100 · note: buy milk · what have I said?" autoComplete="off" autoFocus />
        {chat.turn > 0 && (
          <select value={when} onChange={(event) => setWhen(event.target.value)} title="when it lands">
            <option value="idle">after this answer</option>
            <option value="next">within this answer</option>
            <option value="now">instead of this answer</option>
          </select>
        )}
        <button>Send</button>
        {chat.turn > 0 && (
          <button type="button" onClick={() => command("interrupt", { turn: chat.turn }).catch(tell)}>
            Stop
          </button>
        )}
      </form>
    </main>
  );
}

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <Page />
  </StrictMode>,
);
