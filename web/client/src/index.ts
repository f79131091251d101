/** Watch, question, interrupt and redirect running processes, straight over NATS. See README.md. */

export { connect, Mesh } from "./connect.js";
export type { ConnectOptions, ProcessInfo, Selection, WatchOptions } from "./connect.js";
export { Connection } from "./connection.js";
export type { Endpoint } from "./connection.js";
export * from "./errors.js";
export type { Item, Json, Notice, NoticeType, ProcessEvent, Receipt, Status } from "./messages.js";
export { Address } from "./names.js";
export { ProcessHandle } from "./process.js";
export type { CommandOptions, InterruptOptions } from "./process.js";
export type { ProcessRecord } from "./records.js";
export type { Change } from "./registry.js";
export { Sent } from "./sending.js";
export type { SendOptions, WaitOptions, When } from "./sending.js";
export { Tail } from "./tail.js";
export type { TailOptions } from "./tail.js";
