import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { type DevMesh, devMesh } from "@claudemesh/sdk/testing";
import { exit, nextOf, run } from "./support.js";

let dev: DevMesh<"alice" | "bob">;
before(async () => {
  dev = await devMesh();
});
after(() => dev.close());

function start(program: string, args: string[]) {
  return run(program, args, { CLAUDEMESH_DAEMON_SOCK: dev.members.bob.socket });
}

test("worker.ts reports progress, works again on retry and ends on stop", async () => {
  const alice = dev.client("alice");
  await using events = alice.events({ types: ["message"], sender: "bob" });
  await nextOf(events, "caught_up");
  const worker = start("examples/worker.js", ["alice"]);
  for (const answer of ["retry", "stop"]) {
    for (const step of [1, 2, 3]) assert.equal((await nextOf(events, "message")).value.meta?.["step"], step);
    assert.match((await nextOf(events, "message")).value.body, /all done/);
    await alice.send("bob", answer);
  }
  assert.equal(await exit(worker), 0);
});

test("bot.ts answers mentions, in a topic and directly, and nothing else", async () => {
  const alice = dev.client("alice");
  await alice.topics.create("talk");
  await using events = alice.events({ types: ["message"], sender: "bob" });
  await nextOf(events, "caught_up");
  const bot = start("examples/bot.js", ["talk"]);
  try {
    if (bot.stdout) await once(bot.stdout, "data");
    await alice.post("talk", "not for the bot");
    await alice.post("talk", "hello", { mentions: ["bob"], id: "asked" });
    const answer = (await nextOf(events, "message")).value;
    assert.deepEqual([answer.body, answer.topic, answer.replyToId], ["you said: hello", "talk", "asked"]);
    await alice.send("bob", "you there?", { mentions: ["bob"] });
    assert.equal((await nextOf(events, "message")).value.body, "you said: you there?");
  } finally {
    bot.kill();
    await once(bot, "exit");
  }
});

test("alert.ts waits for the answer to its own message, and ends when none comes", async () => {
  const alice = dev.client("alice");
  await using events = alice.events({ types: ["message"], sender: "bob" });
  await nextOf(events, "caught_up");
  for (const [text, code] of [
    ["yes", 0],
    ["no", 1],
  ] as const) {
    const alert = start("examples/alert.js", ["alice", "disk full", "20"]);
    const asked = (await nextOf(events, "message")).value;
    assert.equal(asked.body, "disk full");
    await alice.send("bob", "unrelated");
    await alice.send("bob", text, { replyTo: asked.id });
    assert.equal(await exit(alert), code);
  }
  assert.equal(await exit(start("examples/alert.js", ["alice", "anybody?", "0.5"])), 2);
});
