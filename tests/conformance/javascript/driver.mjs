// Drives client.mjs for the contract suite: JSON lines in, JSON lines out. See ../README.md, "Drivers".

import readline from "node:readline";
import { Denied, SeatClient } from "./client.mjs";

const report = (event, fields = {}) => process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
const [grants, cancels] = [new Map(), new Map()];
let client;

const actions = {
  start({ nodes, holder = "conformance", project, ttl = 30 }) {
    // No script is about a node that takes long to let in; on a machine that is busy any may.
    client = new SeatClient({ nodes, holder, project, ttl, attempt: 20 });
    report("ready");
  },

  async acquire({ id, pool, ...terms }) {
    const cancel = new AbortController();
    cancels.set(id, cancel);
    try {
      const grant = await client.acquire(pool, {
        ...terms,
        signal: cancel.signal,
        onQueued: (position) => report("queued", { id, position }),
        onLost: () => report("lost", { id }),
      });
      grants.set(id, grant);
      const { seats, fence, token } = grant;
      report("granted", { id, pool, seats, fence, token });
    } catch (error) {
      if (cancel.signal.aborted) report("cancelled", { id });
      else if (error instanceof Denied) report("denied", { id, reason: error.reason, message: error.message });
      else report("failed", { id, message: error.message });
    }
  },

  cancel({ id }) {
    cancels.get(id).abort();
  },

  async release({ id }) {
    await client.release(grants.get(id));
    report("released", { id });
  },

  state({ id }) {
    report("state", { id, state: client.isHeld(grants.get(id)) ? "safe" : "lost" });
  },

  async close() {
    await client.close();
    report("closed");
  },
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { do: what, ...order } = JSON.parse(line);
  actions[what](order);
}
await client?.close();
process.exit(0);
