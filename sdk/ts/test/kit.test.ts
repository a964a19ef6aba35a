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

test("a kit that is closed says so, and a member that does not exist is told", async () => {
  const dev = await devMesh();
  const { alice } = dev.members;
  assert.throws(() => dev.client("zed" as "alice"), /no member "zed"; there are alice, bob/);
  assert.throws(() => dev.client("toString" as "alice"), /no member "toString"; there are alice, bob/);
  const client = dev.client("alice");
  await dev.close();
  await dev.close();
  const uses: [string, () => unknown][] = [
    ["dev.client", () => dev.client("bob")],
    ["dev.add", () => dev.add("carol")],
    ["dev.stopBroker", () => dev.stopBroker()],
    ["dev.startBroker", () => dev.startBroker()],
    ["dev.advanceClock", () => dev.advanceClock(1)],
    ["alice.connect", () => alice.connect()],
    ["alice.kill", () => alice.kill()],
    ["alice.restart", () => alice.restart()],
    ["send", () => client.send("bob", "x")],
    ["post", () => client.post("ops", "x")],
    ["sendMany", async () => (await client.sendMany([{ to: "bob", text: "x" }])).map(({ error }) => Promise.reject(error))[0]],
    ["getSend", () => client.getSend("x")],
    ["inbox", () => client.inbox().next()],
    ["events", () => client.events().next()],
    ["peers", () => client.peers()],
    ["profile", () => client.profile({})],
    ["topics.list", () => client.topics.list()],
    ["topics.create", () => client.topics.create("ops")],
    ["topics.subscribe", () => client.topics.subscribe("ops")],
    ["topics.unsubscribe", () => client.topics.unsubscribe("ops")],
    ["health", () => client.health()],
    ["version", () => client.version()],
    ["waitReady", () => client.waitReady()],
    ["raw", () => client.raw.control.getVersion({})],
  ];
  for (const [name, use] of uses) {
    await assert.rejects(
      async () => use(),
      (error) => error instanceof ClaudemeshError && error.code === "client_closed",
      name,
    );
  }
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
  await assert.rejects(devMesh({ members: "alice" as never }), /`members`: must be an array/);
  await assert.rejects(devMesh({ member: ["alice"] } as never), /`member`: .*did you mean `members`/);
});
