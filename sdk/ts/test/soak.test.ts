// Nothing is lost and nothing comes twice over ten ends of the sending daemon, and no caller sees one.

import assert from "node:assert/strict";
import { test } from "node:test";
import { devMesh } from "@claudemesh/sdk/testing";
import { nextOf } from "./support.js";

const MESSAGES = Number(process.env["CLAUDEMESH_SOAK_MESSAGES"] || 2000);
const CALLERS = 32;
const ENDS = 10;

test(`${MESSAGES} sends and their events over ${ENDS} ends of a daemon`, { timeout: 60_000 + MESSAGES * 30 }, async () => {
  await using dev = await devMesh();
  const { alice: sender, bob: receiver } = dev.members;
  const alice = sender.connect();
  const bob = receiver.connect();
  await using events = bob.events({ types: ["message"] });
  await nextOf(events, "caught_up");

  let next = 0;
  let sent = 0;
  const callers = Array.from({ length: CALLERS }, async () => {
    while (next < MESSAGES) {
      const text = `soak ${next++}`;
      await alice.send("bob", text);
      sent++;
    }
  });
  const trouble = (async () => {
    for (let end = 1; end <= ENDS; end++) {
      while (sent < (MESSAGES * end) / (ENDS + 1)) await new Promise((resolve) => setTimeout(resolve, 5));
      // In turn: the sender dies, the sender is restarted, the receiver dies.
      const member = end % 3 === 0 ? receiver : sender;
      if (end % 3 === 1) {
        await member.restart();
      } else {
        await member.kill();
        await member.start();
      }
    }
  })();
  const received: string[] = [];
  const reading = (async () => {
    while (received.length < MESSAGES) received.push((await nextOf(events, "message")).value.body);
  })();
  await Promise.all([...callers, trouble, reading]);

  assert.equal(new Set(received).size, MESSAGES);
  const stored: string[] = [];
  for await (const message of bob.inbox()) stored.push(message.body);
  assert.deepEqual(stored, received);
});
