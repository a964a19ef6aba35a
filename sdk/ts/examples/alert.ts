// An alert: tells a member and waits for its answer. Ends with 0 when it is "yes", with 1 when it is something else,
// with 2 when none came in time.
//
//     node alert.js <member> <text> [seconds]
import { connect } from "@claudemesh/sdk";

const [person = "oncall", text = "the disk is full; clean up?", seconds = "60"] = process.argv.slice(2);

await using mesh = connect();
const signal = AbortSignal.timeout(Number(seconds) * 1000);
let alert: string | undefined;
process.exitCode = 2;

for await (const event of mesh.events({ types: ["message"], sender: person, signal })) {
  // Only now, so that the answer cannot come before somebody listens.
  if (event.kind === "caught_up" && alert === undefined) {
    const sent = await mesh.send(person, text, { priority: "now", signal });
    alert = sent.clientMessageId;
  }
  if (event.kind === "message" && alert !== undefined && event.value.replyToId === alert) {
    console.log(`${person} says: ${event.value.body}`);
    process.exitCode = event.value.body.trim().toLowerCase() === "yes" ? 0 : 1;
    break;
  }
}
