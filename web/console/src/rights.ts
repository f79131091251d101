/** What a credential says that its holder may do. The server decides; this only says which buttons make sense. */

export interface Rights {
  readonly sender: string;
  /** milliseconds since 1970; null: never */
  readonly expires: number | null;
  may(right: "watch" | "send" | "control", address: string): boolean;
}

/** Everything, as far as is known: of a server that asks for no credentials. */
export function anyone(sender: string): Rights {
  return { sender, expires: null, may: () => true };
}

/** Read the rights of the one line that `natsproc grant` prints; null if it is none. */
export function rightsIn(line: string): Rights | null {
  try {
    const { jwt } = decode(line.slice("natsproc_".length));
    const { name, exp, nats } = decode(jwt.split(".")[1]);
    const patterns: string[][] = (nats?.pub?.allow ?? [">"]).map((pattern: string) => pattern.split("."));
    const may = (right: string, address: string): boolean => {
      const [namespace, id] = address.split("/");
      const names = { watch: ["history"], send: ["send", "inbox"], control: ["control"] }[right] ?? [];
      return patterns.some((tokens) => names.some((word) => covers(tokens, ["", namespace!, id!, word, name])));
    };
    return { sender: name, expires: exp ? exp * 1000 : null, may };
  } catch {
    return null;
  }
}

/** Whether a pattern of the server covers that subject, whatever the mesh's prefix. */
function covers(pattern: readonly string[], subject: readonly string[]): boolean {
  for (const [at, token] of pattern.entries()) {
    if (token === ">") return true;
    if (at > 0 && token !== "*" && token !== subject[at]) return false;
  }
  return pattern.length === subject.length;
}

function decode(text: string): any {
  const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
}
