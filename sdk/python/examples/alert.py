"""An alert that wakes a person and waits for the answer.

    python alert.py alice 'the disk of db1 is full' --minutes 30

Ends with 0 when the answer is `ok`, with 1 for another answer, and with 3 when the
message did not arrive in time.
"""

import argparse
import sys

import claudemesh
from claudemesh import errors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("person")
    parser.add_argument("text")
    parser.add_argument("--minutes", type=float, default=30, help="how long the message may take to arrive")
    options = parser.parse_args()
    with claudemesh.connect() as mesh, mesh.events(types=["message"], sender=options.person) as events:
        # The place in the stream from which the answer is awaited.
        next(events)
        try:
            alert = mesh.send(
                options.person, options.text, priority="now", wait="delivered", timeout=options.minutes * 60
            )
        except errors.WaitTimeout as error:
            print(f"{options.person} has not got it yet, it stays queued as {error.client_message_id}")
            return 3
        print("delivered; waiting for an answer", flush=True)
        for event in events:
            if event.kind == "message" and event.value.reply_to_id == alert.client_message_id:
                print(f"{event.value.sender_name}: {event.value.body}")
                return 0 if event.value.body.strip().lower() == "ok" else 1
    return 1


if __name__ == "__main__":
    sys.exit(main())
