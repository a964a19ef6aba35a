// What `send` costs beside the generated client, and what the shared stream gains. Ends with 1 when it is worse than
// promised: 10 % over the raw client with one caller, 1.5 times its throughput with 64.
import { devMesh } from "@claudemesh/sdk/testing";

const ROUNDS = 5;
const SENDS = Number(process.env["CLAUDEMESH_BENCH_SENDS"] || 1000);

await using dev = await devMesh();
const mesh = dev.client("alice");
const ways = {
  send: (text: string) => mesh.send("bob", text),
  raw: (text: string) => mesh.raw.messaging.send({ to: "bob", message: text }),
};

async function perSecond(send: (text: string) => Promise<unknown>, callers: number): Promise<number> {
  let next = 0;
  const began = performance.now();
  await Promise.all(
    Array.from({ length: callers }, async () => {
      while (next < SENDS) await send(`bench ${next++}`);
    }),
  );
  return (SENDS / (performance.now() - began)) * 1000;
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;
}

let failed = false;
for (const [callers, least] of [
  [1, 1 / 1.1],
  [64, 1.5],
] as const) {
  const figures = { send: [] as number[], raw: [] as number[] };
  // In turn, so that what else the host does meets both.
  for (let round = 0; round <= ROUNDS; round++) {
    for (const way of ["raw", "send"] as const) {
      const figure = await perSecond(ways[way], callers);
      // The first round warms up.
      if (round > 0) figures[way].push(figure);
    }
  }
  const [send, raw] = [median(figures.send), median(figures.raw)];
  const ratio = send / raw;
  failed ||= ratio < least;
  console.log(
    `${String(callers).padStart(2)} callers: send ${send.toFixed(0)}/s, raw client ${raw.toFixed(0)}/s, ratio ${ratio.toFixed(2)} (at least ${least.toFixed(2)})`,
  );
}
process.exitCode = failed ? 1 : 0;
