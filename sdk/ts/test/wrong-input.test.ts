// Every call with values that it cannot take, as JavaScript lets one give them: a typed error that names the argument.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ClaudemeshError, connect, type Mesh } from "@claudemesh/sdk";
import { type DevMesh, devMesh } from "@claudemesh/sdk/testing";

let dev: DevMesh<"alice" | "bob">;
let alice: Mesh;
before(async () => {
  dev = await devMesh();
  alice = dev.client("alice");
});
after(() => dev.close());

type Wrong = Record<string, unknown[]>;

const LONG = "x".repeat(20_000);
const NO_STRING = [null, 5, true, [], {}, new Uint8Array(1), Symbol("s"), "half \ud83c"];
const NO_FLAG = [null, 0, 1, "yes", []];
const NO_LIST = [null, 5, "message", {}, [5], [null], [undefined]];
const CALL: Wrong = {
  timeoutMs: [null, 0, -1, Number.NaN, Number.NEGATIVE_INFINITY, "5", 5n, []],
  signal: [null, 5, {}, new AbortController(), "abort"],
};
const NO_META = [null, 5, "x", [], [1], new Date(), new Map(), { a: undefined }, { a: new Date() }, { a: () => 1 }, { a: 5n }];
const MESSAGE: Wrong = {
  id: [LONG, "a b", "\0", ...NO_STRING],
  priority: [null, "", "urgent", 5, []],
  meta: [...NO_META, { a: Number.NaN }, { a: "\ud800" }, { a: LONG }],
  replyTo: [LONG, "a b", ...NO_STRING],
  mentions: [...NO_LIST, Array.from({ length: 1000 }, () => "x")],
  allowUnencrypted: NO_FLAG,
};
const NAME: Wrong = { name: [undefined, "", LONG, "A b", ...NO_STRING] };

/** The names of a call's arguments, how it is made with them and its options, and the wrong ones by name. */
interface Row {
  call: (values: Record<string, unknown>, options: unknown) => unknown;
  right?: Record<string, unknown>;
  arguments?: Wrong;
  options: Wrong;
}

// biome-ignore lint/suspicious/noExplicitAny: nothing here has the type that the compiler wants.
const any = (value: unknown) => value as any;
const first = async (iteration: { next(): Promise<unknown> }) => iteration.next();

const rows: Record<string, Row> = {
  send: {
    call: ({ to, text }, options) => alice.send(any(to), any(text), any(options)),
    right: { to: "bob", text: "hi" },
    arguments: { to: [undefined, "", LONG, ...NO_STRING], text: [undefined, "", "a\0b", ...NO_STRING] },
    options: { ...CALL, ...MESSAGE, wait: [null, "", "read", 5] },
  },
  post: {
    call: ({ topic, text }, options) => alice.post(any(topic), any(text), any(options)),
    right: { topic: "ops", text: "hi" },
    arguments: { topic: [undefined, "", "#", ...NO_STRING], text: [undefined, "", "a\0b", ...NO_STRING] },
    options: { ...CALL, ...MESSAGE, wait: [null, "", "delivered", 5] },
  },
  sendMany: {
    call: ({ messages }, options) => alice.sendMany(any(messages), any(options)),
    right: { messages: [] },
    arguments: { messages: [undefined, null, 5, "x", {}, ["x"], [null], [undefined], [5]] },
    options: CALL,
  },
  getSend: {
    call: ({ id }, options) => alice.getSend(any(id), any(options)),
    right: { id: "x" },
    arguments: { id: [undefined, "", LONG, "a b", ...NO_STRING] },
    options: CALL,
  },
  inbox: {
    call: (_, options) => first(alice.inbox(any(options))),
    options: {
      ...CALL,
      since: [null, "2h", 5, {}, new Date("never"), { seconds: 5, nanos: 0 }, { seconds: 5n }],
      topic: NO_STRING,
      sender: [LONG, "\0", ...NO_STRING],
      after: [LONG, "\0", ...NO_STRING],
      limit: [null, -1, 1.5, Number.NaN, Infinity, "5", 5n],
      newestFirst: NO_FLAG,
    },
  },
  events: {
    call: async (_, options) => first(alice.events(any(options))),
    options: {
      signal: CALL["signal"] ?? [],
      after: NO_STRING,
      fromStart: NO_FLAG,
      types: [...NO_LIST, [""], ["nonsense"]],
      topic: NO_STRING,
      sender: [LONG, "\0", ...NO_STRING],
    },
  },
  peers: {
    call: (_, options) => alice.peers(any(options)),
    options: { ...CALL, includeOffline: NO_FLAG, roles: [...NO_LIST, [""], ["king"]] },
  },
  profile: {
    call: ({ summary, status, visible }, options) => alice.profile(any({ summary, status, visible }), any(options)),
    arguments: { summary: [LONG, "\0", ...NO_STRING], status: [null, "", "busy", 5], visible: NO_FLAG },
    options: CALL,
  },
  "topics.list": { call: (_, options) => alice.topics.list(any(options)), options: { ...CALL, subscribedOnly: NO_FLAG } },
  "topics.create": {
    call: ({ name }, options) => alice.topics.create(any(name), any(options)),
    right: { name: "ops" },
    arguments: NAME,
    options: { ...CALL, description: [LONG, "\0", ...NO_STRING] },
  },
  "topics.subscribe": {
    call: ({ name }, options) => alice.topics.subscribe(any(name), any(options)),
    right: { name: "ops" },
    arguments: NAME,
    options: CALL,
  },
  "topics.unsubscribe": {
    call: ({ name }, options) => alice.topics.unsubscribe(any(name), any(options)),
    right: { name: "ops" },
    arguments: NAME,
    options: CALL,
  },
  health: { call: (_, options) => alice.health(any(options)), options: CALL },
  version: { call: (_, options) => alice.version(any(options)), options: CALL },
  waitReady: { call: (_, options) => alice.waitReady(any(options)), options: { ...CALL, connected: NO_FLAG } },
};

// What the daemon calls some arguments.
const FIELDS: Record<string, string> = { text: "message", id: "client_message_id", replyTo: "reply_to_id", name: "topic" };

async function refused(about: string, name: string, use: () => unknown): Promise<void> {
  const error = await (async () => use())().then(
    () => assert.fail(`${about} was taken`),
    (error: unknown) => error,
  );
  assert.ok(error instanceof ClaudemeshError, `${about}: ${error}`);
  assert.ok(["invalid_argument", "idempotency_key_invalid"].includes(error.code), `${about}: ${error}`);
  const field = error.fieldViolations[0]?.field;
  assert.ok(field === name || field === FIELDS[name], `${about}: ${error} names ${field}`);
  if (/^(send|post) /.test(about)) assert.ok(error.clientMessageId, about);
}

for (const [name, { call, right = {}, arguments: given = {}, options }] of Object.entries(rows)) {
  test(`${name} refuses wrong values by name`, async () => {
    const show = (value: unknown) =>
      typeof value === "symbol"
        ? "a symbol"
        : String(JSON.stringify(value, (_, v) => (typeof v === "bigint" ? `${v}n` : v))).slice(0, 30);
    for (const [argument, values] of Object.entries(given)) {
      for (const value of values)
        await refused(`${name} ${argument}=${show(value)}`, argument, () => call({ ...right, [argument]: value }, undefined));
    }
    for (const [option, values] of Object.entries(options)) {
      for (const value of values)
        await refused(`${name} {${option}: ${show(value)}}`, option, () => call(right, { [option]: value }));
    }
    for (const wrong of [null, 5, "x", []]) await refused(`${name} options=${show(wrong)}`, "options", () => call(right, wrong));
    for (const unknown of ["nonsense", "timeout", "__proto__x", LONG, Object.keys(options)[0]?.toUpperCase() ?? ""]) {
      await refused(`${name} {${unknown.slice(0, 20)}}`, unknown, () => call(right, { [unknown]: 1 }));
    }
  });
}

test("an unknown option names the nearest, or those there are", async () => {
  const said = async (use: () => Promise<unknown>) => use().then(String, String);
  assert.match(await said(() => alice.send("bob", "x", any({ reply_to: "y" }))), /`reply_to`.*did you mean `replyTo`\?/);
  assert.match(await said(() => alice.health(any({ timeout: 5 }))), /`timeout`.*did you mean `timeoutMs`\?/);
  assert.match(await said(() => alice.peers(any({ nonsense: 5 }))), /`nonsense`.*there are .*`includeOffline`, `roles`/);
  assert.match(await said(() => alice.profile(any({ sumary: "x" }))), /`sumary`.*did you mean `summary`\?/);
});

test("a wrong message of many fails alone", async () => {
  const wrong = [{ to: "bob", text: 5 }, { text: "hi" }, { to: "bob", text: "hi", id: 5 }, { to: "bob", text: "hi", meta: [1] }];
  const unknown = { to: "bob", text: "hi", wait: "accepted" };
  const results = await alice.sendMany(any([...wrong, unknown, { to: "bob", text: "fine" }]));
  const fields = results.map(({ error }) => error?.fieldViolations[0]?.field);
  assert.deepEqual(fields, ["text", "to", "id", "meta", "wait", undefined]);
  for (const { id, error } of results) assert.ok(error === undefined || error.clientMessageId === id);
});

test("huge numbers are as good as none, and what is undefined is not given", async () => {
  for (const timeoutMs of [Infinity, Number.MAX_VALUE, 2 ** 31]) assert.equal((await alice.health({ timeoutMs })).mesh, "dev");
  assert.equal((await alice.inbox({ limit: Number.MAX_SAFE_INTEGER, since: undefined }).next()).done, true);
  assert.ok(await alice.send("bob", "x", { id: undefined, meta: undefined, signal: undefined }));
  assert.ok((await alice.send("bob", "x", { id: "" })).clientMessageId);
});

test("a wrong place is refused", async () => {
  const wrong: [string, unknown][] = [
    ["options", null],
    ["sokcet", { sokcet: "x" }],
    ["socket", { socket: 5 }],
    ["socket", { socket: "a\0b" }],
    ["address", { address: 5, token: "x" }],
    ["address", { address: "nowhere", token: "x" }],
    ["address", { address: "127.0.0.1:99999", token: "x" }],
    ["token", { address: "127.0.0.1:1", token: "ä" }],
    ["token", { address: "127.0.0.1:1", token: 5 }],
    ["tokenFile", { address: "127.0.0.1:1", tokenFile: 5 }],
    ["tokenFile", { address: "127.0.0.1:1", tokenFile: "a\0b" }],
    ["mesh", { mesh: 5 }],
    ["mesh", { mesh: "../elsewhere" }],
    ["mesh", { mesh: LONG }],
  ];
  for (const [field, options] of wrong) await refused(`connect ${field}`, field, () => connect(any(options)).health());
});
