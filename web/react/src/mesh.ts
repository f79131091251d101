/** The mesh that the components below a provider speak to. */

import { connect } from "natsproc";
import type { ConnectOptions, Mesh } from "natsproc";
import { createContext, createElement, useContext, useEffect, useRef, useState } from "react";
import type { ReactElement, ReactNode } from "react";

const AGAIN_MS = 2000;

export interface MeshState {
  /** null until there is one */
  readonly mesh: Mesh | null;
  /** whether there is a connection now; a lost one comes back by itself */
  readonly connected: boolean;
  /** why there is none */
  readonly error: Error | null;
}

/** A mesh that is open already, and stays its maker's to close; or what `connect` takes. */
export type MeshProviderProps = { readonly children?: ReactNode } & (
  | { readonly mesh: Mesh }
  | (ConnectOptions & { readonly mesh?: undefined })
);

const NONE: MeshState = { mesh: null, connected: false, error: null };
const Context = createContext<MeshState | null>(null);

/**
 * Connect, and give the mesh to the components below; the connection is closed when it is unmounted. A server that does
 * not answer is tried again. Another `servers`, `namespace`, `prefix`, `sender` or line of `credentials` connects anew,
 * another function does not: the one given last is asked when a credential is needed.
 */
export function MeshProvider({ children, ...props }: MeshProviderProps): ReactElement {
  const given = props.mesh;
  const latest = useRef<MeshProviderProps>(props);
  useEffect(() => {
    latest.current = props;
  });
  const [state, setState] = useState<MeshState>(NONE);
  const key = given ? "" : JSON.stringify(props, (_, value: unknown) => (typeof value === "function" ? "asked" : value));
  useEffect(() => {
    if (given) return follow(given, setState);
    let over = false;
    let leave = (): void => {};
    const open = async (): Promise<void> => {
      try {
        const mesh = await connect(optionsOf(latest));
        if (over) return void mesh.close();
        const forget = follow(mesh, setState);
        leave = () => {
          forget();
          void mesh.close();
        };
      } catch (error) {
        if (over) return;
        setState({ ...NONE, error: error as Error });
        if ((error as Error).name === "NoServer") timer = setTimeout(open, AGAIN_MS);
      }
    };
    let timer = setTimeout(open); // not at once: StrictMode unmounts and mounts again
    return () => {
      over = true;
      clearTimeout(timer);
      leave();
      setState(NONE);
    };
  }, [given, key]);
  return createElement(Context.Provider, { value: state }, children);
}

/** The mesh of the provider above. Throws: an Error where there is no provider. */
export function useMesh(): MeshState {
  const state = useContext(Context);
  if (!state) throw new Error("there is no <MeshProvider> above this component");
  return state;
}

function optionsOf(latest: { readonly current: MeshProviderProps }): ConnectOptions {
  const { children, mesh, ...options } = latest.current as ConnectOptions & { children?: ReactNode; mesh?: undefined };
  const { credentials } = options;
  if (typeof credentials !== "function") return options;
  return { ...options, credentials: () => (latest.current as { credentials: typeof credentials }).credentials() };
}

function follow(mesh: Mesh, setState: (state: MeshState) => void): () => void {
  const show = (): void => setState({ mesh, connected: mesh.connected, error: null });
  const forgets = [mesh.on("up", show), mesh.on("down", show)];
  show();
  return () => forgets.forEach((forget) => forget());
}
