// natsproc grant page --can watch,send,control --on build, and give it what that prints: NATSPROC_GRANT=natsproc_… node example.mjs build
import { connect } from "natsproc";

// in a page: credentials: async () => (await fetch("/grant")).text()
const mesh = await connect({ credentials: async () => process.env.NATSPROC_GRANT });
const handle = mesh.process(process.argv[2]);
let stopping;

for await (const item of handle.tail({ compact: true })) {
  if (item.kind === "event") console.log(item.offset, item.type, item.data);
  if (item.type === "caught_up") stopping = stop();
  if (item.type === "ended") console.log(`ended: ${item.data.status}`);
}
await stopping;
await mesh.close();

async function stop() {
  console.log("is answered", await handle.request("how far?", { timeout: 5 }));
  const receipt = await handle.interrupt({ reason: "seen enough" });
  console.log("interrupt", receipt.status);
}
