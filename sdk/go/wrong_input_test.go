package claudemesh_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	claudemesh "github.com/claudemesh/claudemesh/sdk/go"
	pb "github.com/claudemesh/claudemesh/sdk/go/gen/claudemesh/v1"
	"github.com/claudemesh/claudemesh/sdk/go/meshtest"
)

// first is the failure of the first step of an iteration.
func first[V any](items func(func(V, error) bool)) (failure error) {
	for _, err := range items {
		return err
	}
	return nil
}

func second[V any](_ V, err error) error { return err }

// Every call refuses values that it cannot take by a failure that names them.
// Where the daemon refuses, it names the field of its request.
func TestWrongValuesAreRefusedByName(t *testing.T) {
	alice, _ := meshtest.Pair(t)
	ctx := t.Context()
	long, bad := strings.Repeat("x", 20_000), "half \xed\xa0"
	var none context.Context
	send := func(options ...claudemesh.SendOption) error { return second(alice.Send(ctx, "bob", "hi", options...)) }
	post := func(options ...claudemesh.SendOption) error { return second(alice.Post(ctx, "ops", "hi", options...)) }
	inbox := func(filter claudemesh.InboxFilter) error { return first(alice.Inbox(ctx, filter)) }
	events := func(filter claudemesh.EventFilter) error { return first(alice.Events(ctx, filter)) }
	status := pb.PeerStatus(77)
	profile := func(summary string) error {
		return second(alice.Profile(ctx, claudemesh.Profile{Summary: &summary}))
	}
	many := func(message claudemesh.Message) error {
		return alice.SendMany(ctx, []claudemesh.Message{message})[0].Err
	}

	wrong := map[string][]error{
		"ctx": {
			second(alice.Send(none, "bob", "hi")), second(alice.Post(none, "ops", "hi")),
			alice.SendMany(none, []claudemesh.Message{{To: "bob", Text: "hi"}})[0].Err,
			second(alice.GetSend(none, "x")), first(alice.Inbox(none, claudemesh.InboxFilter{})),
			first(alice.Events(none, claudemesh.EventFilter{})), second(alice.Peers(none, claudemesh.PeerFilter{})),
			second(alice.Profile(none, claudemesh.Profile{})), second(alice.Topics.List(none, false)),
			second(alice.Topics.Create(none, "ops", "")), second(alice.Topics.Subscribe(none, "ops")),
			second(alice.Topics.Unsubscribe(none, "ops")), second(alice.Health(none)), second(alice.Version(none)),
			second(alice.WaitReady(none)),
		},
		"options": {send(nil), post(nil), second(alice.WaitReady(ctx, nil))},
		"to": {
			second(alice.Send(ctx, "", "hi")), second(alice.Send(ctx, long, "hi")), second(alice.Send(ctx, bad, "hi")),
			many(claudemesh.Message{Text: "hi"}), many(claudemesh.Message{To: bad, Text: "hi"}),
		},
		"text message": {
			second(alice.Send(ctx, "bob", "")), second(alice.Send(ctx, "bob", "a\x00b")), second(alice.Send(ctx, "bob", bad)),
			second(alice.Post(ctx, "ops", "")), second(alice.Post(ctx, "ops", "a\x00b")), second(alice.Post(ctx, "ops", bad)),
			many(claudemesh.Message{To: "bob"}), many(claudemesh.Message{To: "bob", Text: bad}),
		},
		"topic to": {second(alice.Post(ctx, "", "hi")), second(alice.Post(ctx, "#", "hi")), second(alice.Post(ctx, bad, "hi"))},
		"id client_message_id": {
			send(claudemesh.WithID(long)), send(claudemesh.WithID("a b")), send(claudemesh.WithID(bad)), post(claudemesh.WithID(long)),
			second(alice.GetSend(ctx, "")), second(alice.GetSend(ctx, long)), second(alice.GetSend(ctx, bad)),
		},
		"priority": {send(claudemesh.WithPriority(77)), send(claudemesh.WithPriority(-1)), post(claudemesh.WithPriority(math.MaxInt32))},
		"meta": {
			send(claudemesh.WithMeta(map[string]any{"a": math.NaN()})), send(claudemesh.WithMeta(map[string]any{"a": func() {}})),
			send(claudemesh.WithMeta(map[string]any{"a": make(chan int)})), post(claudemesh.WithMeta(map[string]any{"a": math.Inf(1)})),
			send(claudemesh.WithMeta(map[string]any{"a": long})),
		},
		"reply_to reply_to_id": {send(claudemesh.WithReplyTo(long)), send(claudemesh.WithReplyTo("a b")), post(claudemesh.WithReplyTo(bad))},
		"mentions": {
			send(claudemesh.WithMentions(bad)), post(claudemesh.WithMentions(bad)),
			send(claudemesh.WithMentions(strings.Split(strings.Repeat("x,", 100), ",")...)),
		},
		"wait": {post(claudemesh.WaitDelivered()), second(alice.Send(ctx, "#ops", "hi", claudemesh.WaitDelivered()))},
		"limit": {
			inbox(claudemesh.InboxFilter{Limit: -1}), inbox(claudemesh.InboxFilter{Limit: math.MinInt}),
		},
		"since": {inbox(claudemesh.InboxFilter{Since: time.Unix(1<<60, 0)})},
		"topic": {inbox(claudemesh.InboxFilter{Topic: bad}), events(claudemesh.EventFilter{Topic: bad})},
		"sender": {
			inbox(claudemesh.InboxFilter{Sender: bad}), inbox(claudemesh.InboxFilter{Sender: long}),
			events(claudemesh.EventFilter{Sender: bad}), events(claudemesh.EventFilter{Sender: "\x00"}),
		},
		"after":   {inbox(claudemesh.InboxFilter{After: bad}), inbox(claudemesh.InboxFilter{After: long}), events(claudemesh.EventFilter{After: bad})},
		"types":   {events(claudemesh.EventFilter{Types: []pb.EventType{77}}), events(claudemesh.EventFilter{Types: []pb.EventType{-1}})},
		"roles":   {second(alice.Peers(ctx, claudemesh.PeerFilter{Roles: []pb.PeerRole{77}}))},
		"status":  {second(alice.Profile(ctx, claudemesh.Profile{Status: &status}))},
		"summary": {profile(long), profile(bad), profile("\x00")},
		"name topic": {
			second(alice.Topics.Create(ctx, "", "")), second(alice.Topics.Create(ctx, long, "")), second(alice.Topics.Create(ctx, bad, "")),
			second(alice.Topics.Subscribe(ctx, "")), second(alice.Topics.Subscribe(ctx, bad)),
			second(alice.Topics.Unsubscribe(ctx, "")), second(alice.Topics.Unsubscribe(ctx, bad)),
		},
		"description": {second(alice.Topics.Create(ctx, "ops", long)), second(alice.Topics.Create(ctx, "ops", bad))},
	}
	for names, failures := range wrong {
		for i, err := range failures {
			refused(t, fmt.Sprintf("%s, value %d", names, i), strings.Fields(names), err)
		}
	}
	if _, err := alice.Send(ctx, "bob", "still fine", claudemesh.WithMeta(nil), claudemesh.WithMentions()); err != nil {
		t.Error(err)
	}
}

func refused(t *testing.T, about string, names []string, err error) {
	t.Helper()
	var failure *claudemesh.Error
	if !errors.As(err, &failure) {
		t.Errorf("%s: %v", about, err)
		return
	}
	if failure.Code != claudemesh.ErrInvalidArgument && failure.Code != claudemesh.ErrIdempotencyKeyInvalid || len(failure.FieldViolations) != 1 {
		t.Errorf("%s: %v, of %v", about, err, failure.FieldViolations)
		return
	}
	for _, name := range names {
		if failure.FieldViolations[0].GetField() == name {
			return
		}
	}
	t.Errorf("%s: %v names %q", about, err, failure.FieldViolations[0].GetField())
}

func TestWrongPlacesAreRefusedByName(t *testing.T) {
	token := claudemesh.WithToken("x")
	for name, wrong := range map[string][]claudemesh.Option{
		"options":    {nil},
		"timeout":    {claudemesh.WithTimeout(-time.Second)},
		"socket":     {claudemesh.WithSocket("a\x00b")},
		"address":    {claudemesh.WithAddress("127.0.0.1:99999"), token},
		"token":      {claudemesh.WithAddress("127.0.0.1:1"), claudemesh.WithToken("a\nb")},
		"token_file": {claudemesh.WithAddress("127.0.0.1:1"), claudemesh.WithTokenFile("a\x00b")},
		"mesh":       {claudemesh.WithMesh("../elsewhere")},
	} {
		mesh, err := claudemesh.Connect(wrong...)
		if err == nil {
			_ = mesh.Close()
		}
		refused(t, name, []string{name}, err)
	}
}
