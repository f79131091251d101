/** Which processes of a fleet are shown, and in which order. */

export interface Member {
  /** `namespace/id` */
  readonly key: string;
  readonly namespace: string;
  readonly id: string;
  readonly kind: string;
  readonly node: string;
  readonly state: string;
  readonly started: string;
  readonly ended: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly parent: string;
  readonly title: string;
  readonly asks: readonly unknown[];
}

export const GROUPS = ["all", "waiting", "running", "paused", "unreachable", "ended"] as const;
export type Group = (typeof GROUPS)[number];

export interface Filter {
  readonly text: string;
  readonly group: Group;
  /** empty: any */
  readonly namespace: string;
  readonly kind: string;
}

export const EVERYTHING: Filter = { text: "", group: "all", namespace: "", kind: "" };

export function isIn(group: Group, member: Member): boolean {
  if (group === "all") return true;
  if (group === "ended") return member.ended !== "";
  if (group === "waiting") return isWaiting(member);
  return !member.ended && member.state === group;
}

/** Whether it waits for a person to answer. */
export function isWaiting(member: Member): boolean {
  return !member.ended && member.state !== "unreachable" && member.asks.length > 0;
}

/** The members that a filter leaves: those that wait for a person first, then what lives, the latest first. */
export function select<M extends Member>(members: Iterable<M>, { text, group, namespace, kind }: Filter): M[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [...members].filter(
    (member) =>
      isIn(group, member) &&
      (!namespace || member.namespace === namespace) &&
      (!kind || member.kind === kind) &&
      words.every((word) => haystack(member).includes(word)),
  );
  return found.sort(inOrder);
}

/** How many there are of each group. */
export function counts(members: Iterable<Member>): Record<Group, number> {
  const counted = Object.fromEntries(GROUPS.map((group) => [group, 0])) as Record<Group, number>;
  for (const member of members) for (const group of GROUPS) if (isIn(group, member)) counted[group]++;
  return counted;
}

function haystack({ key, kind, node, state, title, labels }: Member): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}=${value}`);
  return [key, kind, node, state, title, ...pairs].join("\n").toLowerCase();
}

function rank(member: Member): number {
  return isWaiting(member) ? 0 : member.ended ? 2 : 1;
}

function inOrder(a: Member, b: Member): number {
  if (rank(a) !== rank(b)) return rank(a) - rank(b);
  const [one, other] = rank(a) === 2 ? [a.ended, b.ended] : [a.started, b.started];
  return one === other ? (a.key < b.key ? -1 : 1) : one < other ? 1 : -1;
}

/** A member in its place among parents and children. */
export interface Branch<M extends Member> {
  readonly member: M;
  readonly depth: number;
  readonly children: number;
}

/** The same members with children behind their parents; whoever's parent is not among them stands for itself. */
export function asTree<M extends Member>(members: readonly M[]): Branch<M>[] {
  const byKey = new Map(members.map((member) => [member.key, member]));
  const children = new Map<string, M[]>();
  const roots: M[] = [];
  for (const member of members) {
    const parent = parentKey(member);
    if (parent && parent !== member.key && byKey.has(parent)) children.set(parent, [...(children.get(parent) ?? []), member]);
    else roots.push(member);
  }
  const branches: Branch<M>[] = [];
  const seen = new Set<string>();
  const put = (member: M, depth: number): void => {
    if (seen.has(member.key)) return;
    seen.add(member.key);
    const below = children.get(member.key) ?? [];
    branches.push({ member, depth, children: below.length });
    for (const child of below) put(child, depth + 1);
  };
  for (const root of roots) put(root, 0);
  for (const member of members) put(member, 0); // parents in a circle
  return branches;
}

/** The key of a member's parent; empty without one. */
export function parentKey({ parent, namespace }: Member): string {
  return !parent || parent.includes("/") ? parent : `${namespace}/${parent}`;
}
