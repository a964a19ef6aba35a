"""A worker that reports progress to a member and does its work again when told `retry`.

python worker.py alice --steps 5
"""

import argparse
import time

import claudemesh


def work(mesh: claudemesh.Mesh, owner: str, steps: int) -> str:
    """Does the steps and reports each; gives the id of the last report."""
    report = ""
    for step in range(1, steps + 1):
        mesh.profile(summary=f"step {step} of {steps}", status="working")
        time.sleep(0.1)  # here is the work
        sent = mesh.send(owner, f"step {step} of {steps} is done", priority="low", meta={"step": step, "steps": steps})
        report = sent.client_message_id
    mesh.profile(summary="", status="idle")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("owner", help="the member who is told, and may say retry")
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    with claudemesh.connect() as mesh:
        mesh.wait_ready(timeout=30)
        # Opened before the work, so that no answer is missed.
        with mesh.events(types=["message"], sender=options.owner) as events:
            report = work(mesh, options.owner, options.steps)
            print(f"done; {options.owner} may say retry", flush=True)
            for event in events:
                if event.kind == "message" and event.value.body.strip() == "retry":
                    print("again", flush=True)
                    mesh.send(options.owner, "again", reply_to=event.value.client_message_id)
                    report = work(mesh, options.owner, options.steps)
                elif event.kind == "message" and event.value.reply_to_id == report:
                    print(f"{options.owner} says: {event.value.body}", flush=True)
                    return


if __name__ == "__main__":
    main()
