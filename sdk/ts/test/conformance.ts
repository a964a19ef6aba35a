// The runner of sdk/conformance: JSON requests on stdin, what came of each on stdout.

import { createInterface } from "node:readline";
import { type DescMessage, type JsonObject, type JsonValue, type Message, toJson } from "@bufbuild/protobuf";
import { TimestampSchema, timestampFromDate } from "@bufbuild/protobuf/wkt";
import * as sdk from "@claudemesh/sdk";

// What the cases hold is given to the SDK unchecked, as JavaScript would.
// biome-ignore lint/suspicious/noExplicitAny: the cases decide what it is.
type Args = Record<string, any>;
interface Request {
  id: number;
  client?: string;
  op: string;
  args: Args;
}

const clients = new Map<string, sdk.Mesh>();
const streams = new Map<
  string,
  { events: () => sdk.EventStream; waiting: Promise<IteratorResult<sdk.Event, undefined>> | undefined }
>();
const calls = new Map<number, AbortController>();

const schemas = new Map<string, DescMessage>();
for (const value of Object.values(sdk)) {
  if (typeof value === "object" && "kind" in value && value.kind === "message") schemas.set(value.typeName, value);
}
const classes = Object.entries(sdk).filter(
  (entry): entry is [string, typeof sdk.ClaudemeshError] =>
    typeof entry[1] === "function" && entry[1].prototype instanceof sdk.ClaudemeshError,
);

function json(message: Message): JsonValue {
  const schema = schemas.get(message.$typeName);
  if (schema === undefined) throw new Error(`no schema of ${message.$typeName}`);
  return toJson(schema, message, { useProtoFieldName: true, alwaysEmitImplicit: true });
}

function errorJson(error: unknown): JsonObject {
  if (!(error instanceof sdk.ClaudemeshError)) {
    return { unexpected: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
  // `UnknownPeerError` stands for `unknown_peer`; classes of a gRPC status stand for no code.
  const leaf = classes.find(([, type]) => error.constructor === type)?.[0] ?? "";
  const type = leaf.startsWith("Grpc")
    ? ""
    : leaf
        .replace(/Error$/, "")
        .replace(/(?<!^)[A-Z]/g, "_$&")
        .toLowerCase();
  return {
    code: error.code,
    message: error.message,
    retryable: error.retryable,
    retry_after: error.retryAfterMs === undefined ? null : error.retryAfterMs / 1000,
    grpc_code: error.grpcCode,
    client_message_id: error.clientMessageId ?? "",
    metadata: error.metadata,
    candidates: error.candidates.map(json),
    field_violations: error.fieldViolations.map(json),
    url: error.url,
    // The code of the class, whose name may end in Error already.
    type: `${type}_error` === error.code ? error.code : type,
  };
}

function eventJson(event: sdk.Event): JsonObject {
  return {
    kind: event.kind,
    event_id: event.eventId,
    ...(event.time === undefined ? {} : { time: toJson(TimestampSchema, event.time) }),
    ...(event.value === undefined ? {} : { value: json(event.value) }),
  };
}

// Names that are missing are not given to the SDK at all.
const names: Record<string, string> = {
  reply_to: "replyTo",
  allow_unencrypted: "allowUnencrypted",
  newest_first: "newestFirst",
  from_start: "fromStart",
  include_offline: "includeOffline",
  subscribed_only: "subscribedOnly",
  token_file: "tokenFile",
};

function optionsOf(args: Args): Args {
  const options: Args = {};
  for (const [name, value] of Object.entries(args)) {
    if (name === "timeout") options["timeoutMs"] = Number(value) * 1000;
    else if (name === "since") options["since"] = timestampFromDate(new Date(String(value)));
    else options[names[name] ?? name] = value;
  }
  return options;
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

async function nextEvent(stream: string, seconds: number): Promise<JsonValue> {
  const open = streams.get(stream);
  if (open === undefined) throw new Error(`no stream ${stream}`);
  open.waiting ??= open.events().next();
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, seconds * 1000, undefined);
  });
  try {
    const result = await Promise.race([open.waiting, timeout]);
    if (result === undefined) return { timeout: true };
    open.waiting = undefined;
    return result.done === true ? { ended: true } : eventJson(result.value);
  } catch (error) {
    open.waiting = undefined;
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

async function run({ client: name, op, args }: Request, signal: AbortSignal): Promise<JsonValue> {
  const mesh = clients.get(name ?? "");
  if (op === "cancel") {
    calls.get(args["call"])?.abort();
    return {};
  }
  if (mesh === undefined) throw new Error(`no client ${name}`);
  // What is no option: arguments that stand on their own, and names that are for this runner.
  const { to: _to, topic, text: _text, name: _name, id, messages: _messages, ...rest } = optionsOf(args);
  const options: Args = { ...rest, signal };
  switch (op) {
    case "close":
      await mesh.close();
      return {};
    case "send":
      return json(await mesh.send(args["to"], args["text"], id === undefined ? options : { ...options, id }));
    case "post":
      return json(await mesh.post(args["topic"], args["text"], id === undefined ? options : { ...options, id }));
    case "send_many": {
      const results = await mesh.sendMany(args["messages"].map(optionsOf), options);
      return results.map((result) => ({
        id: result.id,
        ...(result.response === undefined ? { error: errorJson(result.error) } : { response: json(result.response) }),
      }));
    }
    case "get_send":
      return json(await mesh.getSend(args["id"], options));
    case "inbox":
      return (await collect(mesh.inbox(topic === undefined ? options : { ...options, topic }))).map(json);
    case "events.open": {
      // Its iteration goes on after this request.
      const { stream, ...filter } = optionsOf(args);
      try {
        const events = mesh.events(filter);
        streams.set(stream, { events: () => events, waiting: undefined });
      } catch (error) {
        // The suite looks for it at the first step of the iteration.
        const refuse = () => {
          throw error;
        };
        streams.set(stream, { events: refuse, waiting: undefined });
      }
      return {};
    }
    case "events.next":
      return nextEvent(args["stream"], args["timeout"] ?? 10);
    case "events.close":
      await streams.get(args["stream"])?.events().close();
      return {};
    case "peers":
      return (await mesh.peers(options)).map(json);
    case "profile": {
      const { summary, status, visible, ...others } = options;
      return json(await mesh.profile({ summary, status, visible }, others));
    }
    case "topics.list":
      return (await mesh.topics.list(options)).map(json);
    case "topics.create":
      return json(await mesh.topics.create(args["name"], options));
    case "topics.subscribe":
      return json(await mesh.topics.subscribe(args["name"], options));
    case "topics.unsubscribe":
      return { was_subscribed: await mesh.topics.unsubscribe(args["name"], options) };
    case "health":
      return json(await mesh.health(options));
    case "version":
      return json(await mesh.version(options));
    case "wait_ready":
      return json(await mesh.waitReady(options));
    case "raw":
      return json(await mesh.raw.control.getVersion({}));
    default:
      throw new Error(`unknown op ${op}`);
  }
}

function say(answer: JsonObject): void {
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

async function serve(request: Request): Promise<void> {
  const controller = new AbortController();
  calls.set(request.id, controller);
  try {
    say({ id: request.id, result: await run(request, controller.signal) });
  } catch (error) {
    say({ id: request.id, error: errorJson(error) });
  } finally {
    calls.delete(request.id);
  }
}

say({ ready: true, runner: "ts", version: "0.9.0" });
const lines = createInterface({ input: process.stdin, crlfDelay: Infinity });
lines.on("line", (line) => {
  const request = JSON.parse(line) as Request;
  if (request.op === "connect") {
    try {
      clients.set(request.client ?? "", sdk.connect(optionsOf(request.args)));
      say({ id: request.id, result: {} });
    } catch (error) {
      say({ id: request.id, error: errorJson(error) });
    }
    return;
  }
  void serve(request);
});
lines.on("close", () => process.exit(0));
