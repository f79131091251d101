/** A chat with a running process, for the AI SDK. See README.md. */

export { loadMessages } from "./history.js";
export type { LoadOptions } from "./history.js";
export { processAt } from "./http.js";
export { ProcessChatTransport } from "./transport.js";
export type { ChatProcess, ChatTail, ProcessChatTransportOptions, Sending } from "./transport.js";
export type { Chunk, Question, TurnMetadata } from "./turn.js";
