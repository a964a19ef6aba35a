// The kit in vitest; the other tests use it in node:test.
import { devMesh } from "@claudemesh/sdk/testing";
import { expect, test } from "vitest";

test("a message between two members", async () => {
  await using dev = await devMesh({ members: ["alice", "bob"] });
  const sent = await dev.client("alice").send("bob", "hi", { wait: "delivered" });
  expect(sent.recipient?.memberId).toBe(dev.members.bob.memberId);
});
