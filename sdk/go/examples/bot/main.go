// Bot answers everybody who mentions it.
package main

import (
	"context"
	"log"
	"os"
	"os/signal"
	"slices"

	claudemesh "github.com/claudemesh/claudemesh/sdk/go"
	pb "github.com/claudemesh/claudemesh/sdk/go/gen/claudemesh/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	mesh, err := claudemesh.Connect()
	if err != nil {
		return err
	}
	defer func() { _ = mesh.Close() }()
	self, err := whoAmI(ctx, mesh)
	if err != nil {
		return err
	}
	messages := claudemesh.EventFilter{Types: []pb.EventType{pb.EventType_EVENT_TYPE_MESSAGE}}
	for event, err := range mesh.Events(ctx, messages) {
		if err != nil {
			return err
		}
		message, ok := event.Value.(*pb.InboxMessage)
		// Automatic messages are not answered, so that two bots do not talk for ever.
		if !ok || !slices.Contains(message.GetMentions(), self) || message.GetProvenance().GetHops() > 0 {
			continue
		}
		// The id comes from the message, so that it is answered once, also when this
		// program is started again and sees it again.
		_, err = mesh.Send(ctx, message.GetSenderPubkey(), "You said: "+message.GetBody(),
			claudemesh.WithID("bot-"+message.GetId()), claudemesh.WithReplyTo(message.GetId()))
		if err != nil {
			log.Printf("no answer to %s: %v", message.GetSenderName(), err)
		}
	}
	return nil
}

func whoAmI(ctx context.Context, mesh *claudemesh.Mesh) (string, error) {
	peers, err := mesh.Peers(ctx, claudemesh.PeerFilter{IncludeOffline: true})
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(peers, (*pb.Peer).GetIsSelf)
	return peers[i].GetMemberId(), nil
}
