/** The states of a process: a word, a shape and a tone for each, so that none is told by its colour alone. */

export type Tone = "good" | "attention" | "bad" | "quiet" | "hold";

export interface StateFace {
  readonly word: string;
  /** the name of a shape in shapes.tsx */
  readonly shape: string;
  readonly tone: Tone;
}

const FACES: Readonly<Record<string, StateFace>> = {
  running: { word: "running", shape: "disc", tone: "good" },
  waiting: { word: "waiting", shape: "question", tone: "attention" },
  paused: { word: "paused", shape: "bars", tone: "hold" },
  unreachable: { word: "unreachable", shape: "ring", tone: "bad" },
  completed: { word: "completed", shape: "check", tone: "quiet" },
  failed: { word: "failed", shape: "cross", tone: "bad" },
  interrupted: { word: "interrupted", shape: "square", tone: "quiet" },
  cancelled: { word: "cancelled", shape: "slash", tone: "quiet" },
  killed: { word: "killed", shape: "cross", tone: "bad" },
};

/** What a state looks like; one of a newer version is shown by its name. */
export function faceOf(state: string): StateFace {
  return FACES[state] ?? { word: state || "unknown", shape: "dot", tone: "quiet" };
}
