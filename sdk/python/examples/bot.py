"""A bot for asyncio: answers whoever mentions it in a topic, until it is interrupted.

python bot.py ops
"""

import argparse
import asyncio

from claudemesh import aio, errors


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topic")
    options = parser.parse_args()
    async with aio.connect() as mesh:
        await mesh.wait_ready(timeout=30, connected=True)
        try:
            await mesh.topics.create(options.topic)
        except errors.TopicExists:
            await mesh.topics.subscribe(options.topic)
        me = next(peer.member_id for peer in await mesh.peers() if peer.is_self)
        async with mesh.events(types=["message"], topic=options.topic) as events:
            async for event in events:
                if event.kind == "caught_up":
                    print("listening", flush=True)
                elif event.kind == "message" and me in event.value.mentions:
                    message = event.value
                    # An id that belongs to the message: a bot that was killed before it
                    # took note of the answer does not answer twice.
                    await mesh.post(
                        options.topic,
                        f"{message.sender_name}, you said: {message.body}",
                        id=f"answer-{message.id}",
                        mentions=[message.sender_pubkey],
                        reply_to=message.id,
                    )
                    print(f"answered {message.sender_name}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
