// The client against real daemons.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  CancelledError,
  ClaudemeshError,
  ClientClosedError,
  connect,
  DaemonNotRunningError,
  DeadlineExceededError,
  InvalidArgumentError,
  type Mesh,
  PayloadTooLargeError,
  SendStatus,
  UnauthenticatedError,
  UnknownPeerError,
} from "@claudemesh/sdk";
import { type DevMesh, devMesh } from "@claudemesh/sdk/testing";
import { environment, eventually, nextOf, temporary } from "./support.js";

let dev: DevMesh<"alice" | "bob">;
let alice: Mesh;
let bob: Mesh;
before(async () => {
  dev = await devMesh();
  alice = dev.client("alice");
  bob = dev.client("bob");
});
after(() => dev.close());

async function failure(promise: Promise<unknown>): Promise<ClaudemeshError> {
  const error = await promise.then(
    () => assert.fail("it did not fail"),
    (error: unknown) => error,
  );
  assert.ok(error instanceof ClaudemeshError, String(error));
  return error;
}

async function inbox(mesh: Mesh, options: Parameters<Mesh["inbox"]>[0] = {}): Promise<string[]> {
  const texts: string[] = [];
  for await (const message of mesh.inbox(options)) texts.push(message.body);
  return texts;
}

test("a message with all that it can hold arrives as it was sent", async () => {
  await using events = bob.events({ types: ["message"] });
  await nextOf(events, "caught_up");
  const meta = { job: 7, tags: ["a", null, true], nested: { x: 1.5 } };
  const sent = await alice.send("bob", "grüße 🌍", { id: "first", priority: "now", meta, mentions: ["bob"], wait: "delivered" });
  assert.equal(sent.clientMessageId, "first");
  assert.equal(sent.status, SendStatus.DELIVERED);
  assert.ok(sent.deliveredAt);
  const { value: message, eventId, time } = await nextOf(events, "message");
  assert.equal(message.body, "grüße 🌍");
  assert.deepEqual(message.meta, meta);
  assert.deepEqual(message.mentions, [dev.members.bob.memberId]);
  assert.equal(message.senderPubkey, dev.members.alice.pubkey);
  assert.equal(typeof time?.seconds, "bigint");
  assert.equal(message.eventId, eventId);

  const again = await alice.send("bob", "grüße 🌍", { id: "first", priority: "now", meta, mentions: ["bob"] });
  assert.equal(again.duplicate, true);
  assert.equal((await alice.getSend("first")).status, SendStatus.DELIVERED);

  await bob.send("alice", "thanks", { replyTo: message.id, wait: "delivered" });
  for await (const reply of alice.inbox({ sender: "bob", newestFirst: true, limit: 1 })) assert.equal(reply.replyToId, "first");
});

test("the inbox is read over pages, in either order, up to a limit", async () => {
  const texts = Array.from({ length: 1200 }, (_, i) => `page ${i}`);
  const results = await alice.sendMany(texts.map((text) => ({ to: "bob", text })));
  assert.ok(results.every((result) => result.response?.clientMessageId === result.id));
  await eventually(async () => ((await inbox(bob)).filter((text) => text.startsWith("page")).length === 1200 ? true : undefined));
  assert.deepEqual(
    (await inbox(bob)).filter((text) => text.startsWith("page")),
    texts,
  );
  assert.deepEqual(await inbox(bob, { limit: 1100, newestFirst: true }), texts.toReversed().slice(0, 1100));
  assert.deepEqual(await inbox(bob, { limit: 0 }), []);
});

test("topics, peers, profile, health and version", async () => {
  const topic = await alice.topics.create("ops", { description: "what runs" });
  assert.equal(topic.name, "ops");
  assert.equal((await failure(alice.topics.create("ops"))).code, "topic_exists");
  assert.equal((await bob.topics.subscribe("#ops")).subscribed, true);
  const post = await alice.post("ops", "deploying", { wait: "accepted" });
  assert.ok(post.status >= SendStatus.ACCEPTED);
  await eventually(async () => ((await inbox(bob, { topic: "ops" })).includes("deploying") ? true : undefined));
  assert.deepEqual(
    (await bob.topics.list({ subscribedOnly: true })).map(({ name }) => name),
    ["ops"],
  );
  assert.equal(await bob.topics.unsubscribe("ops"), true);
  assert.equal(await bob.topics.unsubscribe("ops"), false);

  assert.deepEqual(
    (await alice.peers({ includeOffline: true })).map((peer) => peer.displayName),
    ["alice", "bob"],
  );
  assert.deepEqual(
    (({ summary, visible }) => ({ summary, visible }))(await alice.profile({ summary: "tests", status: "working" })),
    {
      summary: "tests",
      visible: true,
    },
  );
  const health = await alice.waitReady({ connected: true });
  assert.equal(health.memberPubkey, dev.members.alice.pubkey);
  assert.equal((await alice.version()).ipcApi, "v1");
  assert.equal((await alice.raw.control.getVersion({})).ipcApi, "v1");
});

test("what is wrong is a typed error with the id of the send", async () => {
  const unknown = await failure(alice.send("bobb", "x", { id: "to-nobody" }));
  assert.ok(unknown instanceof UnknownPeerError);
  assert.equal(unknown.clientMessageId, "to-nobody");
  assert.deepEqual(
    unknown.candidates.map(({ name }) => name),
    ["bob"],
  );
  assert.equal(unknown.url, "https://github.com/claudemesh/claudemesh/blob/main/docs/errors/unknown_peer.md");
  const code: "unknown_peer" = unknown.code;
  assert.equal(code, "unknown_peer");

  for (const size of [1024 * 1024 + 1, 6_000_000]) {
    assert.ok((await failure(alice.send("bob", "x".repeat(size)))) instanceof PayloadTooLargeError);
  }
  const wrong: [string, () => Promise<unknown>][] = [
    ["text", () => alice.send("bob", "half \ud83c")],
    ["meta", () => alice.send("bob", "x", { meta: { when: new Date() as never } })],
    ["wait", () => alice.post("ops", "x", { wait: "delivered" as never })],
  ];
  for (const [field, call] of wrong) {
    const error = await failure(call());
    assert.ok(error instanceof InvalidArgumentError);
    assert.equal(error.fieldViolations[0]?.field, field);
  }
  // None of it has disturbed the stream that all sends share.
  await alice.send("bob", "still fine");
});

test("without a daemon the first call says so at once", async () => {
  await using tmp = await temporary();
  await using mesh = connect({ socket: join(tmp.path, "sock") });
  const began = performance.now();
  for (const call of [mesh.send("bob", "x"), mesh.health(), mesh.events().next()]) {
    const error = await failure(call);
    assert.ok(error instanceof DaemonNotRunningError);
    assert.match(error.message, /^no daemon answers at .*sock; start it with `claudemesh daemon up`$/);
    assert.match(String(error.cause), /ENOENT/);
  }
  assert.ok(performance.now() - began < 1000);
  const late = await failure(mesh.waitReady({ timeoutMs: 300 }));
  assert.equal(late.code, "daemon_not_running");
  assert.equal((await failure(connect({ socket: `/tmp/${"x".repeat(120)}` }).health())).code, "socket_path_too_long");
});

test("a mesh that this host has not joined has no daemon", async () => {
  const child = spawn(
    process.execPath,
    [
      "--input-type=module",
      "-e",
      'import { connect } from "@claudemesh/sdk"; await connect({ mesh: "other" }).health().catch((e) => console.log(e.code));',
    ],
    {
      env: environment({ CLAUDEMESH_HOME: dev.members.alice.home }),
      cwd: fileURLToPath(new URL("../..", import.meta.url)),
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  const [text] = (await once(child.stdout, "data")) as [Buffer];
  assert.equal(String(text).trim(), "daemon_not_running");
});

test("a peer that accepts and says nothing is waited for until the deadline, and no longer", async () => {
  await using tmp = await temporary();
  const path = join(tmp.path, "sock");
  const server = createServer(() => {}).listen(path);
  await once(server, "listening");
  await using mesh = connect({ socket: path });
  const began = performance.now();
  for (const call of [
    mesh.send("bob", "x", { timeoutMs: 400 }),
    mesh.health({ timeoutMs: 400 }),
    mesh.waitReady({ timeoutMs: 400 }),
  ]) {
    assert.ok((await failure(call)) instanceof DeadlineExceededError);
  }
  assert.ok(performance.now() - began < 2000);
  server.close();
});

test("the caller's signal and close end what waits", async () => {
  await dev.members.bob.pause();
  const mesh = dev.members.bob.connect();
  try {
    const controller = new AbortController();
    const calls = [
      mesh.send("alice", "x", { signal: controller.signal, id: "given-up" }),
      mesh.health({ signal: controller.signal }),
    ];
    const failures = Promise.all(calls.map(failure));
    controller.abort(new Error("enough"));
    for (const error of await failures) {
      assert.ok(error instanceof CancelledError);
      assert.equal((error.cause as Error).message, "enough");
    }
    assert.equal((await failure(mesh.send("alice", "x", { signal: AbortSignal.abort() }))).code, "cancelled");

    const events = mesh.events();
    const waiting = events.next();
    const left = [failure(mesh.send("alice", "x")), failure(mesh.health())];
    await mesh.close();
    for (const error of await Promise.all(left)) assert.ok(error instanceof ClientClosedError);
    assert.deepEqual(await waiting, { done: true, value: undefined });
    assert.equal((await failure(mesh.health())).code, "client_closed");
    assert.equal((await failure(mesh.send("alice", "x"))).code, "client_closed");
  } finally {
    await dev.members.bob.resume();
  }
});

test("break, close and a signal end the events, also while they wait", async () => {
  const events = bob.events({ types: ["peer_join"] });
  await nextOf(events, "caught_up");
  const waiting = events.next();
  await events.close();
  assert.equal((await waiting).done, true);
  for await (const event of bob.events()) {
    assert.equal(event.kind, "caught_up");
    break;
  }
  const controller = new AbortController();
  const ended = nextOf(bob.events({ signal: controller.signal }), "gap").catch((error: unknown) => String(error));
  controller.abort();
  assert.match(String(await ended), /ended before gap/);
});

test("over TCP the token is read again when it is refused", async () => {
  await using tmp = await temporary();
  const tokenFile = join(tmp.path, "token");
  const { address, tokenFile: real } = dev.members.alice;
  await writeFile(tokenFile, "0".repeat(64));
  await using mesh = connect({ address, tokenFile });
  const refused = await failure(mesh.health());
  assert.ok(refused instanceof UnauthenticatedError);
  await writeFile(tokenFile, await readFile(real));
  await mesh.send("bob", "over TCP");
  await using missing = connect({ address, tokenFile: join(tmp.path, "none") });
  assert.match((await failure(missing.health())).message, /none/);
});

test("sends wait for a daemon that was killed, and those that it had are not doubled", async () => {
  // A client whose very first connection fails does not wait.
  await alice.health();
  const before = (await inbox(bob)).length;
  const sends = Array.from({ length: 50 }, (_, i) => alice.send("bob", `killed ${i}`));
  await dev.members.alice.kill();
  sends.push(...Array.from({ length: 50 }, (_, i) => alice.send("bob", `killed ${50 + i}`)));
  await dev.members.alice.start();
  await Promise.all(sends);
  const texts = await eventually(async () => {
    const all = (await inbox(bob)).slice(before).filter((text) => text.startsWith("killed"));
    return all.length >= 100 ? all : undefined;
  });
  assert.deepEqual(new Set(texts).size, 100);
  assert.equal(texts.length, 100);
});

test("a daemon that stays away ends a call at its deadline with daemon_not_running", async () => {
  await dev.members.alice.stop();
  try {
    const calls = [alice.send("bob", "x", { timeoutMs: 500 }), alice.health({ timeoutMs: 500 })];
    for (const error of await Promise.all(calls.map(failure))) assert.ok(error instanceof DaemonNotRunningError, error.code);
  } finally {
    await dev.members.alice.start();
  }
  await alice.send("bob", "back", { wait: "delivered" });
});

test("events go on after restarts, with a caught_up for each connection", async () => {
  await using events = bob.events({ types: ["message"] });
  await nextOf(events, "caught_up");
  for (const [index, round] of (["restart", "kill"] as const).entries()) {
    await alice.send("bob", `before ${round}`, { wait: "delivered" });
    assert.equal((await nextOf(events, "message")).value.body, `before ${round}`);
    if (round === "kill") {
      await dev.members.bob.kill();
      await alice.send("bob", `during ${index}`);
      await dev.members.bob.start();
    } else {
      await dev.members.bob.restart();
      await alice.send("bob", `during ${index}`);
    }
    const kinds = [await events.next(), await events.next()].map(({ value }) => value?.kind);
    assert.deepEqual(kinds.sort(), ["caught_up", "message"]);
  }
});

test("a wait that is not fulfilled in time leaves the message queued", async () => {
  await dev.members.bob.stop();
  try {
    const error = await failure(alice.send("bob", "later", { id: "later", wait: "delivered", timeoutMs: 700 }));
    assert.equal(error.code, "wait_timeout");
    assert.equal(error.clientMessageId, "later");
  } finally {
    await dev.members.bob.start();
  }
  await eventually(async () => ((await alice.getSend("later")).status === SendStatus.DELIVERED ? true : undefined));
});

test("a process whose work is done ends by itself, whatever it left open", async () => {
  await mkdir(dev.dir, { recursive: true });
  const programs: Record<string, string> = {
    "an idle stream of sends": 'await mesh.send("bob", "x");',
    "an iteration that was left": "for await (const event of mesh.events({ fromStart: true })) break;",
    "a call after a send": 'await mesh.send("bob", "x"); await mesh.health();',
    nothing: "",
  };
  for (const [what, program] of Object.entries(programs)) {
    const source = `import { connect } from "@claudemesh/sdk"; const mesh = connect(); ${program} console.log("done");`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", source], {
      env: environment({ CLAUDEMESH_DAEMON_SOCK: dev.members.alice.socket }),
      cwd: fileURLToPath(new URL("../..", import.meta.url)),
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [text] = (await once(child.stdout, "data")) as [Buffer];
    assert.equal(String(text).trim(), "done", what);
    const began = performance.now();
    const [code] = (await once(child, "exit")) as [number];
    assert.equal(code, 0, what);
    assert.ok(performance.now() - began < 1000, `${what}: ${performance.now() - began} ms`);
  }
});
