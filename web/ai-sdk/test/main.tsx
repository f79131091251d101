/** Pages for the tests: the README's example, over HTTP behind `#http`, and behind `#inner` a chat that is its component's own. */

import { useChat } from "@ai-sdk/react";
import type { UIMessage } from "ai";
import { processAt, ProcessChatTransport } from "@natsproc/ai-sdk";
import { connect } from "natsproc";
import { StrictMode } from "react";
import type { ReactNode } from "react";
import { createRoot } from "react-dom/client";

import { chatWith, Conversation } from "../example";

const onMesh = async () => (await connect({ credentials: async () => (await fetch("/grant")).text() })).process("agent");
const process = location.hash === "#http" ? processAt("/proc/agent") : await onMesh();
const transport = new ProcessChatTransport({ process });

function Inner() {
  const { messages, status } = useChat({ id: "agent", transport, resume: true });
  const textOf = ({ parts }: UIMessage): string => parts.map((part) => (part.type === "text" ? part.text : "")).join("");
  return (
    <>
      {messages.map((message) => <article key={message.id} className={message.role}><p>{textOf(message)}</p></article>)}
      <p>{status}</p>
    </>
  );
}

const page = async (): Promise<ReactNode> => (location.hash === "#inner" ? <Inner /> : <Conversation chat={await chatWith(process, "agent")} process={process} />);
createRoot(document.querySelector("main")!).render(<StrictMode>{await page()}</StrictMode>);
