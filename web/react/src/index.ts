/** Running processes in React: what they say, and the verbs to steer them. See README.md. */

export { MeshProvider, useMesh } from "./mesh.js";
export type { MeshProviderProps, MeshState } from "./mesh.js";
export { useProcess } from "./process.js";
export type { UseProcess, UseProcessOptions } from "./process.js";
export { useProcesses } from "./processes.js";
export type { ProcessesState, UseProcessesOptions } from "./processes.js";
export type { Ended, Gap, ProcessState } from "./following.js";
export type { StreamedText } from "./texts.js";
export type { Verbs } from "./verbs.js";
