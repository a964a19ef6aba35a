// A worker: works in steps, reports each to a member, and does it all again when that member answers "retry".
//
//     node worker.js <member>
import { connect } from "@claudemesh/sdk";

const boss = process.argv[2] ?? "boss";
const steps = ["fetch", "build", "test"];

await using mesh = connect();
// Followed from here on, so that no answer is missed while it works.
const events = mesh.events({ types: ["message"], sender: boss });
let working = false;

for await (const event of events) {
  if (event.kind === "caught_up" && !working) {
    working = true;
    await work();
  } else if (event.kind === "message") {
    if (event.value.body === "retry") await work();
    if (event.value.body === "stop") break;
  }
}

async function work(): Promise<void> {
  for (const [index, step] of steps.entries()) {
    await mesh.send(boss, `${step} is done`, { priority: "low", meta: { step: index + 1, of: steps.length } });
  }
  await mesh.send(boss, "all done; answer retry or stop");
}
