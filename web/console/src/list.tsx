/** A long list of which only what is in sight is drawn; rows have the height that they turn out to have. */

import { elementScroll, observeElementOffset, observeElementRect, Virtualizer } from "@tanstack/virtual-core";
import type { Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useCallback, useEffect, useLayoutEffect, useReducer, useRef } from "preact/hooks";

import type { Row } from "./fold.ts";

const NEAR = 3000; // pixels from an end of the window at which it is read on
const END = 24; // pixels from the end that count as there
const INTENT = 1500; // milliseconds after which a scroll is nobody's any more, but that of what grows or is let go
const GESTURES = ["wheel", "touchmove", "keydown", "pointerdown", "pointerup"] as const;

/** Rows to scroll through, which are read on as somebody comes near an end. */
export interface Scrolled {
  readonly rows: Signal<readonly Row[]>;
  readonly following: Signal<boolean>;
  follow(yes: boolean): void;
  more(): void;
  earlier(): Promise<void>;
}

interface Props {
  readonly timeline: Scrolled;
  readonly scroller: { current: HTMLDivElement | null };
  readonly children: (row: Row, before: Row | undefined) => ComponentChildren;
}

function guess(row: Row | undefined): number {
  if (row?.kind === "line") return 20;
  return row?.kind === "text" ? 30 + Math.ceil(row.text.length / 90) * 23 : 26;
}

export function LongList({ timeline, scroller, children }: Props) {
  const rows = timeline.rows.value;
  const following = timeline.following.value;
  const [, redraw] = useReducer((count: number) => count + 1, 0);
  const virtual = useRef<Virtualizer<HTMLDivElement, HTMLDivElement> | null>(null);
  const options = {
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: (index: number) => guess(rows[index]),
    getItemKey: (index: number) => rows[index]?.key ?? index,
    observeElementRect,
    observeElementOffset,
    scrollToFn: elementScroll,
    onChange: () => redraw(0),
    overscan: 12,
    anchorTo: "end" as const,
    scrollEndThreshold: END,
    paddingStart: 12,
    paddingEnd: 16,
  };
  const list = (virtual.current ??= new Virtualizer<HTMLDivElement, HTMLDivElement>(options));
  list.setOptions(options);

  useLayoutEffect(() => list._didMount(), []);
  if (list.itemSizeCache.size > 4 * rows.length + 4000) {
    // heights of rows that were let go
    const there = new Set(rows.map((row) => row.key));
    for (const key of list.itemSizeCache.keys()) if (!there.has(key as string)) list.itemSizeCache.delete(key);
  }

  const top = useRef(0); // where it stood when we last looked
  const touched = useRef(0); // when somebody last did what may scroll
  useLayoutEffect(() => {
    list._willUpdate();
    const element = scroller.current;
    if (element && following && element.scrollHeight - element.clientHeight - element.scrollTop > 1) list.scrollToEnd();
  });

  const look = useCallback(() => {
    const element = scroller.current;
    if (!element) return;
    const { scrollTop, scrollHeight, clientHeight } = element;
    const left = scrollHeight - clientHeight - scrollTop;
    const up = scrollTop < top.current - 1;
    top.current = scrollTop;
    if (left <= 2 || (!up && left <= END)) timeline.follow(true);
    else if (up && performance.now() - touched.current < INTENT) timeline.follow(false);
    if (!timeline.following.value && left < NEAR) timeline.more();
    if (scrollTop < NEAR) void timeline.earlier();
  }, [timeline]);
  useEffect(() => {
    const touch = (): void => void (touched.current = performance.now());
    const element = scroller.current!;
    // before the list hears of it, which would draw the end again
    element.addEventListener("scroll", look, { passive: true, capture: true });
    for (const gesture of GESTURES) document.addEventListener(gesture, touch, { passive: true, capture: true });
    return () => {
      element.removeEventListener("scroll", look, { capture: true });
      for (const gesture of GESTURES) document.removeEventListener(gesture, touch, { capture: true });
    };
  }, [look]);
  useEffect(look, [rows]); // a short window is read on without anybody scrolling

  const items = list.getVirtualItems();
  return (
    <div class="long" style={{ height: `${list.getTotalSize()}px` }}>
      <div class="sight" role="list" style={{ transform: `translateY(${items[0]?.start ?? 0}px)` }}>
        {items.map(({ key, index }) => {
          const row = rows[index];
          return (
            row && (
              <div key={key} role="listitem" data-index={index} data-first={row.first} data-last={row.last} ref={list.measureElement}>
                {children(row, rows[index - 1])}
              </div>
            )
          );
        })}
      </div>
    </div>
  );
}
