import { Chat, useChat } from "@ai-sdk/react";
import { loadMessages, ProcessChatTransport } from "@natsproc/ai-sdk";
import type { ChatProcess, Question } from "@natsproc/ai-sdk";
import type { UIMessage } from "ai";
import { useState } from "react";

type Message = UIMessage<unknown, { question: Question }>;

/** With `mesh.process("agent")`, or `processAt("/proc/agent")`. The chat is outside of components: who leaves them and comes back finds it going on. */
export async function chatWith(process: ChatProcess, id: string): Promise<Chat<Message>> {
  return new Chat<Message>({ id, messages: await loadMessages(process), transport: new ProcessChatTransport({ process }) });
}

export function Conversation({ chat, process }: { chat: Chat<Message>; process: ChatProcess }) {
  const { messages, sendMessage, status, stop, error } = useChat({ chat, resume: true });
  const [text, setText] = useState("");
  return (
    <>
      {messages.map((message) => (
        <article key={message.id} className={message.role}>
          {message.parts.map((part, index) => {
            if (part.type === "text") return <p key={index}>{part.text}</p>;
            if (part.type === "dynamic-tool") return <p key={index}>{`${part.toolName}: ${JSON.stringify(part.output)}`}</p>;
            if (part.type === "data-question") return <Asked key={index} {...part.data} process={process} />;
            return null;
          })}
        </article>
      ))}
      <p>{status}</p>
      {error && <p role="alert">{error.message}</p>}
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void sendMessage({ text });
          setText("");
        }}
      >
        <input value={text} onChange={(event) => setText(event.target.value)} disabled={status !== "ready"} />
      </form>
      <button disabled={status === "ready"} onClick={stop}>Stop</button>
    </>
  );
}

function Asked({ ask, question, choices = ["yes", "no"], open, answer, by, process }: Question & { process: ChatProcess }) {
  if (!open) return <p>{`${question} ${answer}, says ${by}`}</p>;
  return (
    <p>
      {question}{" "}
      {choices.map((choice) => (
        <button key={String(choice)} onClick={() => process.answer(choice, { ask })}>{String(choice)}</button>
      ))}
    </p>
  );
}
