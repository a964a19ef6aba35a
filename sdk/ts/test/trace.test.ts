// What the daemon is told of an application's trace, seen from its side.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http2";
import { join } from "node:path";
import { test } from "node:test";
import { ControlService, connect, MessagingService } from "@claudemesh/sdk";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { context, propagation, TraceFlags, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { temporary } from "./support.js";

test("a call carries the current context in its metadata, a send in its message", async () => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
  const seen: (string | null | undefined)[] = [];
  const streams: (string | null)[] = [];
  const server = createServer(
    connectNodeAdapter({
      routes(router) {
        router.service(ControlService, {
          getVersion: () => ({ ipcApi: "v1", ipcFeatures: ["send", "topic"] }),
          getHealth(_, { requestHeader }) {
            seen.push(requestHeader.get("traceparent"));
            return {};
          },
        });
        router.service(MessagingService, {
          async *sendStream(requests, { requestHeader }) {
            streams.push(requestHeader.get("traceparent"));
            for await (const { index, send, traceContext } of requests) {
              seen.push(traceContext["traceparent"]);
              yield { index, result: { case: "response" as const, value: { clientMessageId: send?.clientMessageId ?? "" } } };
            }
          },
        });
      },
    }),
  );
  await using tmp = await temporary();
  await once(server.listen(join(tmp.path, "sock")), "listening");
  const mesh = connect({ socket: join(tmp.path, "sock") });
  const within = <T>(spanId: string, work: () => Promise<T>) =>
    context.with(
      trace.setSpanContext(context.active(), {
        traceId: "0af7651916cd43dd8448eb211c80319c",
        spanId,
        traceFlags: TraceFlags.SAMPLED,
      }),
      work,
    );
  try {
    await within("b7ad6b7169203331", () => mesh.health());
    await Promise.all([
      within("1111111111111111", () => mesh.send("bob", "x")),
      within("2222222222222222", () => mesh.send("bob", "y")),
    ]);
    await mesh.send("bob", "without");
    const parent = (spanId: string) => `00-0af7651916cd43dd8448eb211c80319c-${spanId}-01`;
    assert.deepEqual(seen, [parent("b7ad6b7169203331"), parent("1111111111111111"), parent("2222222222222222"), undefined]);
    assert.deepEqual(streams, [null]);
  } finally {
    await mesh.close();
    server.close();
  }
});
