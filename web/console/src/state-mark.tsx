import { Shape } from "./shapes.tsx";
import { faceOf } from "./states.ts";

/** A state as shape and word; with `bare` the word is for screen readers and the tooltip only. */
export function StateMark({ state, bare = false }: { readonly state: string; readonly bare?: boolean }) {
  const { word, shape, tone } = faceOf(state);
  return (
    <span class={`state tone-${tone}`} title={bare ? word : undefined}>
      <Shape name={shape} label={bare ? word : undefined} />
      {!bare && <span>{word}</span>}
    </span>
  );
}
