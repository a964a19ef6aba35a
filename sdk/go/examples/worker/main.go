// Worker does a job, reports its progress to a member, and does the job again
// when that member writes "retry".
//
//	worker bob
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	claudemesh "github.com/claudemesh/claudemesh/sdk/go"
	pb "github.com/claudemesh/claudemesh/sdk/go/gen/claudemesh/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1]); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, boss string) error {
	mesh, err := claudemesh.Connect()
	if err != nil {
		return err
	}
	defer func() { _ = mesh.Close() }()
	orders := claudemesh.EventFilter{Types: []pb.EventType{pb.EventType_EVENT_TYPE_MESSAGE}, Sender: boss}
	first := true
	for event, err := range mesh.Events(ctx, orders) {
		if err != nil {
			return err
		}
		switch order := event.Value.(type) {
		case *pb.CaughtUp:
			// From here on no order is missed, so the job can begin.
			if first {
				first = false
				err = work(ctx, mesh, boss)
			}
		case *pb.InboxMessage:
			// Orders are taken from a key that the owner of the mesh let in.
			if order.GetBody() == "retry" && order.GetProvenance().GetCertified() {
				err = work(ctx, mesh, boss)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func work(ctx context.Context, mesh *claudemesh.Mesh, boss string) error {
	for percent := 0; percent <= 100; percent += 50 {
		progress := map[string]any{"percent": percent}
		_, err := mesh.Send(ctx, boss, fmt.Sprintf("%d %% done", percent), claudemesh.WithMeta(progress), claudemesh.WithPriority(claudemesh.PriorityLow))
		if err != nil {
			return err
		}
	}
	return nil
}
