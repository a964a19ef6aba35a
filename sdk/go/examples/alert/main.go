// Alert asks a person a question and waits for the answer, which it prints.
//
//	alert bob 'The disk of db1 is full. Grow it?'
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	claudemesh "github.com/claudemesh/claudemesh/sdk/go"
	pb "github.com/claudemesh/claudemesh/sdk/go/gen/claudemesh/v1"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	answer, err := ask(ctx, os.Args[1], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer)
}

func ask(ctx context.Context, person, question string) (string, error) {
	mesh, err := claudemesh.Connect()
	if err != nil {
		return "", err
	}
	defer func() { _ = mesh.Close() }()
	asked := ""
	answers := claudemesh.EventFilter{Types: []pb.EventType{pb.EventType_EVENT_TYPE_MESSAGE}, Sender: person}
	for event, err := range mesh.Events(ctx, answers) {
		if err != nil {
			return "", err
		}
		switch value := event.Value.(type) {
		case *pb.CaughtUp:
			if asked != "" {
				continue
			}
			// Asked when the answer cannot be missed any more.
			sent, err := mesh.Send(ctx, person, question, claudemesh.WithPriority(claudemesh.PriorityNow))
			if err != nil {
				return "", err
			}
			asked = sent.GetClientMessageId()
		case *pb.InboxMessage:
			if value.GetReplyToId() == asked {
				return value.GetBody(), nil
			}
		}
	}
	return "", errors.New("the client was closed")
}
