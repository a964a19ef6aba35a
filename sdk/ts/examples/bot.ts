// A bot: answers whoever mentions it, in the topic where that happened or directly.
//
//     node bot.js [topic...]
import { connect } from "@claudemesh/sdk";

await using mesh = connect();
const { memberPubkey } = await mesh.waitReady({ connected: true, timeoutMs: 30_000 });
const me = (await mesh.peers({ includeOffline: true })).find((peer) => peer.pubkey === memberPubkey);
if (me === undefined) throw new Error("this member is not in the list of peers");
for (const topic of process.argv.slice(2)) await mesh.topics.subscribe(topic);
console.log(`${me.displayName} answers mentions`);

for await (const event of mesh.events({ types: ["message"] })) {
  if (event.kind !== "message") continue;
  const message = event.value;
  // Two bots that mention each other would go on for ever; `hops` counts the automatic sends that led here.
  if (!message.mentions.includes(me.memberId) || message.provenance?.byHook || (message.provenance?.hops ?? 0) > 0) continue;
  const answer = `you said: ${message.body}`;
  const options = { replyTo: message.id, id: `answer-${message.id}` };
  if (message.topic !== "") await mesh.post(message.topic, answer, options);
  else await mesh.send(message.senderPubkey, answer, options);
}
