// The trace context of an application that uses OpenTelemetry.

type Api = typeof import("@opentelemetry/api");

let api: Api | undefined;
const loaded = import("@opentelemetry/api").then(
  (module) => {
    api = module;
  },
  () => {
    // The package is an optional peer: without it there is no context to pass on.
  },
);

/** The current context as `traceparent` and `tracestate`; empty without OpenTelemetry. */
export async function traceContext(): Promise<Record<string, string>> {
  if (api === undefined) await loaded;
  const carrier: Record<string, string> = {};
  api?.propagation.inject(api.context.active(), carrier);
  return carrier;
}
