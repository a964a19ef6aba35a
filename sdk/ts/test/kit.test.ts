import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { ClaudemeshError } from "@claudemesh/sdk";
import { devMesh } from "@claudemesh/sdk/testing";
import { environment, eventually } from "./support.js";

test("members are cut off, stalled, added; the broker goes and comes back", async () => {
  await using dev = await devMesh({ members: ["ann", "ben"] });
  const ann = dev.client("ann");
  const linked = (connected: boolean) =>
    eventually(async () => ((await ann.health()).connected === connected ? true : undefined));
  await dev.members.ann.cut();
  await linked(false);
  await dev.members.ann.mend();
  await linked(true);
  await dev.stopBroker();
  await linked(false);
  const waiting = ann.send("ben", "over an outage", { wait: "delivered", timeoutMs: 30_000 });
  await dev.startBroker();
  await waiting;
  await dev.members.ben.stall();
  await dev.members.ben.mend();
  const carol = await dev.add("carol");
  const sent = await carol.connect("tcp").send("ann", "new here", { wait: "delivered", timeoutMs: 20_000 });
  assert.ok(sent.deliveredAt);
  await assert.rejects(dev.members.ann.start(), (error) => error instanceof ClaudemeshError && error.code === "already_running");
  await assert.rejects(dev.advanceClock(60), ClaudemeshError);
});

test("a mesh is gone when its scope is left, and when its program forgets it", async () => {
  let socket: string;
  {
    await using dev = await devMesh();
    socket = dev.members.alice.socket;
    assert.ok(existsSync(socket));
  }
  assert.ok(!existsSync(socket));

  const source =
    'import { devMesh } from "@claudemesh/sdk/testing"; const dev = await devMesh(); await dev.client("alice").health(); console.log(dev.dir);';
  const child = spawn(process.execPath, ["--input-type=module", "-e", source], {
    env: environment({ CLAUDEMESH_BIN: process.env["CLAUDEMESH_BIN"] }),
    cwd: fileURLToPath(new URL("../..", import.meta.url)),
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [[text], [code]] = (await Promise.all([once(child.stdout, "data"), once(child, "exit")])) as [[Buffer], [number]];
  assert.equal(code, 0);
  await eventually(async () => (existsSync(String(text).trim()) ? undefined : true));
});

test("what hinders the start is said", async () => {
  await assert.rejects(devMesh({ bin: "/nowhere/claudemesh" }), /nowhere.*CLAUDEMESH_BIN/);
  await assert.rejects(devMesh({ members: ["no name"] }), ClaudemeshError);
});
