package claudemesh_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	claudemesh "github.com/claudemesh/claudemesh/sdk/go"
	pb "github.com/claudemesh/claudemesh/sdk/go/gen/claudemesh/v1"
	"github.com/claudemesh/claudemesh/sdk/go/meshtest"
)

// What only reads or sends shares one mesh.
func TestTwoMembers(t *testing.T) {
	alice, bob := meshtest.Pair(t)
	for _, test := range []struct {
		name string
		run  func(t *testing.T, alice, bob *meshtest.Member)
	}{
		{"what is sent arrives as it was written", arrives},
		{"an answer is told of its question", replies},
		{"a send under a known id is the same send", sameID},
		{"errors have their code, and what belongs to it", codesOfErrors},
		{"a text that is too large harms no other send", tooLarge},
		{"many messages keep their order", manyInOrder},
		{"the inbox is read in pages", inboxPages},
		{"a topic has its posts", topicPosts},
		{"the profile is seen by others", profile},
		{"events come in order and end with the loop", eventsInOrder},
		{"the end of a context is the caller's", contexts},
		{"over TCP the token is read again when it is refused", overTCP},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, alice, bob) })
	}
}

func arrives(t *testing.T, alice, bob *meshtest.Member) {
	sent, err := alice.Send(t.Context(), "bob", "hello\nworld ☃", claudemesh.WithPriority(claudemesh.PriorityNow),
		claudemesh.WithMeta(map[string]any{"build": 42, "tags": []string{"a", "b"}}),
		claudemesh.WithMentions("bob"), claudemesh.WaitDelivered())
	if err != nil {
		t.Fatal(err)
	}
	if sent.GetStatus() != pb.SendStatus_SEND_STATUS_DELIVERED || sent.GetBrokerMessageId() == "" || sent.GetDeliveredAt() == nil {
		t.Errorf("waited for delivery and got %v", sent)
	}
	got := find(t, bob.Inbox(t.Context(), claudemesh.InboxFilter{Sender: "alice"}), sent.GetClientMessageId())
	if got.GetBody() != "hello\nworld ☃" || got.GetPriority() != claudemesh.PriorityNow || got.GetSenderPubkey() != alice.Pubkey {
		t.Errorf("got %v", got)
	}
	if meta := got.GetMeta().AsMap(); meta["build"] != 42.0 || fmt.Sprint(meta["tags"]) != "[a b]" {
		t.Errorf("meta is %v", meta)
	}
	if !slices.Contains(got.GetMentions(), bob.MemberID) {
		t.Errorf("mentions are %v", got.GetMentions())
	}
	known, err := alice.GetSend(t.Context(), sent.GetClientMessageId())
	if err != nil || known.GetStatus() != pb.SendStatus_SEND_STATUS_DELIVERED {
		t.Errorf("asked for the send: %v, %v", known, err)
	}
}

// find gives the message of a send out of the inbox.
func find(t *testing.T, inbox iter.Seq2[*pb.InboxMessage, error], id string) *pb.InboxMessage {
	t.Helper()
	for message, err := range inbox {
		if err != nil {
			t.Fatal(err)
		}
		if message.GetClientMessageId() == id {
			return message
		}
	}
	t.Fatalf("no message %s in the inbox", id)
	return nil
}

func replies(t *testing.T, alice, bob *meshtest.Member) {
	asked, err := alice.Send(t.Context(), "bob", "ready?", claudemesh.WaitDelivered())
	if err != nil {
		t.Fatal(err)
	}
	question := find(t, bob.Inbox(t.Context(), claudemesh.InboxFilter{}), asked.GetClientMessageId())
	answered, err := bob.Send(t.Context(), question.GetSenderPubkey(), "yes", claudemesh.WithReplyTo(question.GetId()), claudemesh.WaitDelivered())
	if err != nil {
		t.Fatal(err)
	}
	reply := find(t, alice.Inbox(t.Context(), claudemesh.InboxFilter{NewestFirst: true}), answered.GetClientMessageId())
	if reply.GetReplyToId() != asked.GetClientMessageId() {
		t.Errorf("it answers %q, want %q", reply.GetReplyToId(), asked.GetClientMessageId())
	}
}

func sameID(t *testing.T, alice, bob *meshtest.Member) {
	const id = "release-42"
	for range 3 {
		sent, err := alice.Send(t.Context(), "bob", "once", claudemesh.WithID(id), claudemesh.WaitDelivered())
		if err != nil || sent.GetClientMessageId() != id {
			t.Fatalf("%v, %v", sent, err)
		}
	}
	_, err := alice.Send(t.Context(), "bob", "another", claudemesh.WithID(id))
	if !errors.Is(err, claudemesh.ErrOutboxDoneFingerprintMismatch) {
		t.Errorf("another text under the id: %v", err)
	}
	seen := 0
	for message, err := range bob.Inbox(t.Context(), claudemesh.InboxFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if message.GetClientMessageId() == id {
			seen++
		}
	}
	if seen != 1 {
		t.Errorf("it is %d times in the inbox", seen)
	}
}

func codesOfErrors(t *testing.T, alice, _ *meshtest.Member) {
	_, err := alice.Send(t.Context(), "bbo", "hi")
	var failure *claudemesh.Error
	if !errors.Is(err, claudemesh.ErrUnknownPeer) || !errors.As(err, &failure) {
		t.Fatalf("an unknown peer: %v", err)
	}
	if errors.Is(err, claudemesh.ErrAmbiguousPeer) {
		t.Error("it is of another code too")
	}
	if status.Code(err) != codes.NotFound || failure.GRPCCode != codes.NotFound {
		t.Errorf("its status is %s", status.Code(err))
	}
	if len(failure.ClientMessageID) != 26 || !strings.HasSuffix(failure.URL, "/docs/errors/unknown_peer.md") {
		t.Errorf("%+v", failure)
	}
	if !slices.ContainsFunc(failure.Candidates, func(c *pb.Candidate) bool { return c.GetName() == "bob" }) {
		t.Errorf("bob is not among the candidates: %v", failure.Candidates)
	}
	for name, call := range map[claudemesh.Code]func() error{
		claudemesh.ErrTopicNotFound: func() error { _, err := alice.Post(t.Context(), "nowhere", "hi"); return err },
		claudemesh.ErrSendNotFound:  func() error { _, err := alice.GetSend(t.Context(), "never-sent"); return err },
		claudemesh.ErrInvalidArgument: func() error {
			for _, err := range alice.Inbox(t.Context(), claudemesh.InboxFilter{After: "nonsense"}) {
				return err
			}
			return nil
		},
	} {
		if err := call(); !errors.Is(err, name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, wrong := range []claudemesh.SendOption{
		claudemesh.WithMeta(map[string]any{"f": func() {}}), claudemesh.WithReplyTo("\xff"), claudemesh.WithPriority(99),
	} {
		if _, err := alice.Send(t.Context(), "bob", "hi", wrong); !errors.Is(err, claudemesh.ErrInvalidArgument) {
			t.Errorf("a wrong argument: %v", err)
		}
	}
	if _, err := alice.Post(t.Context(), "ops", "hi", claudemesh.WaitDelivered()); !errors.Is(err, claudemesh.ErrInvalidArgument) {
		t.Errorf("a post until it is delivered: %v", err)
	}
}

func tooLarge(t *testing.T, alice, _ *meshtest.Member) {
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			if _, err := alice.Send(t.Context(), "bob", "small"); err != nil {
				t.Errorf("a small one: %v", err)
			}
		})
	}
	for _, size := range []int{1<<20 + 1, 9 << 20} {
		wait.Go(func() {
			if _, err := alice.Send(t.Context(), "bob", strings.Repeat("x", size)); !errors.Is(err, claudemesh.ErrPayloadTooLarge) {
				t.Errorf("%d bytes: %v", size, err)
			}
		})
	}
	wait.Wait()
}

func manyInOrder(t *testing.T, alice, bob *meshtest.Member) {
	messages := make([]claudemesh.Message, 300)
	for i := range messages {
		messages[i] = claudemesh.Message{To: "bob", Text: fmt.Sprint("many ", i)}
	}
	messages[7].To = "nobody"
	results := alice.SendMany(t.Context(), messages)
	for i, result := range results {
		if i == 7 {
			if !errors.Is(result.Err, claudemesh.ErrUnknownPeer) || result.ID == "" {
				t.Errorf("to nobody: %+v", result)
			}
		} else if result.Err != nil || result.Response.GetClientMessageId() != result.ID {
			t.Fatalf("%d: %+v", i, result)
		}
	}
	if _, err := alice.Send(t.Context(), "bob", "many end", claudemesh.WaitDelivered()); err != nil {
		t.Fatal(err)
	}
	next := 0
	for message, err := range bob.Inbox(t.Context(), claudemesh.InboxFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if next == 7 {
			next++
		}
		if strings.HasPrefix(message.GetBody(), "many ") && next < len(messages) {
			if message.GetBody() != messages[next].Text {
				t.Fatalf("got %q, want %q", message.GetBody(), messages[next].Text)
			}
			next++
		}
	}
	if next != len(messages) {
		t.Errorf("only %d came", next)
	}
}

func inboxPages(t *testing.T, _, bob *meshtest.Member) {
	read := func(filter claudemesh.InboxFilter) (ids []string) {
		for message, err := range bob.Inbox(t.Context(), filter) {
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, message.GetEventId())
		}
		return ids
	}
	all := read(claudemesh.InboxFilter{})
	if len(all) < 250 {
		t.Fatalf("only %d messages", len(all))
	}
	if some := read(claudemesh.InboxFilter{Limit: 205}); !slices.Equal(some, all[:205]) {
		t.Errorf("the first 205 are %d others", len(some))
	}
	if rest := read(claudemesh.InboxFilter{After: all[9]}); !slices.Equal(rest, all[10:]) {
		t.Errorf("after the tenth come %d others", len(rest))
	}
	newest := read(claudemesh.InboxFilter{NewestFirst: true, Limit: 3})
	slices.Reverse(newest)
	if !slices.Equal(newest, all[len(all)-3:]) {
		t.Errorf("the newest are %v", newest)
	}
	if later := read(claudemesh.InboxFilter{Since: time.Now().Add(time.Hour)}); len(later) != 0 {
		t.Errorf("%d of the future", len(later))
	}
}

func topicPosts(t *testing.T, alice, bob *meshtest.Member) {
	made, err := alice.Topics.Create(t.Context(), "ops", "what we do")
	if err != nil || made.GetName() != "ops" || !made.GetSubscribed() {
		t.Fatalf("%v, %v", made, err)
	}
	if _, err := alice.Topics.Create(t.Context(), "ops", ""); !errors.Is(err, claudemesh.ErrTopicExists) {
		t.Errorf("made again: %v", err)
	}
	if _, err := bob.Topics.Subscribe(t.Context(), "#ops"); err != nil {
		t.Fatal(err)
	}
	posted, err := alice.Post(t.Context(), "ops", "deploying", claudemesh.WaitAccepted())
	if err != nil || posted.GetBrokerMessageId() == "" {
		t.Fatalf("%v, %v", posted, err)
	}
	eventually(t, func() bool {
		for message, err := range bob.Inbox(t.Context(), claudemesh.InboxFilter{Topic: "ops"}) {
			return err == nil && message.GetBody() == "deploying"
		}
		return false
	})
	if topics, err := bob.Topics.List(t.Context(), true); err != nil || len(topics) != 1 || topics[0].GetName() != "ops" {
		t.Errorf("bob's topics: %v, %v", topics, err)
	}
	for _, want := range []bool{true, false} {
		if was, err := bob.Topics.Unsubscribe(t.Context(), "ops"); err != nil || was != want {
			t.Errorf("unsubscribed: %t, %v", was, err)
		}
	}
}

// eventually waits until what is asked for is so.
func eventually(t *testing.T, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not become so in time")
		}
	}
}

func profile(t *testing.T, alice, bob *meshtest.Member) {
	summary, working := "releasing", claudemesh.StatusWorking
	set, err := alice.Profile(t.Context(), claudemesh.Profile{Summary: &summary, Status: &working})
	if err != nil || set.GetSummary() != summary {
		t.Fatalf("%v, %v", set, err)
	}
	eventually(t, func() bool {
		peers, err := bob.Peers(t.Context(), claudemesh.PeerFilter{})
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(peers, func(p *pb.Peer) bool {
			return p.GetMemberId() == alice.MemberID && p.GetSummary() == summary && p.GetStatus() == working
		})
	})
	sessions, err := bob.Peers(t.Context(), claudemesh.PeerFilter{IncludeOffline: true, Roles: []pb.PeerRole{pb.PeerRole_PEER_ROLE_SESSION}})
	if err != nil || len(sessions) != 0 {
		t.Errorf("sessions: %v, %v", sessions, err)
	}
}

func eventsInOrder(t *testing.T, alice, bob *meshtest.Member) {
	follow, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	// What was sent before has to be there.
	if _, err := alice.Send(t.Context(), "bob", "before", claudemesh.WaitDelivered()); err != nil {
		t.Fatal(err)
	}
	next := 0
	for event, err := range bob.Events(follow, claudemesh.EventFilter{Types: []pb.EventType{pb.EventType_EVENT_TYPE_MESSAGE}}) {
		if err != nil {
			t.Fatal(err)
		}
		switch value := event.Value.(type) {
		case *pb.CaughtUp:
			if event.Kind != "caught_up" || event.EventID == "" {
				t.Errorf("%+v", event)
			}
			for i := range 5 {
				if _, err := alice.Send(t.Context(), "bob", fmt.Sprint("event ", i)); err != nil {
					t.Fatal(err)
				}
			}
		case *pb.InboxMessage:
			if want := fmt.Sprint("event ", next); value.GetBody() != want || event.Kind != "message" || event.EventID != value.GetEventId() {
				t.Errorf("got %+v, want %s", event, want)
			}
			next++
		}
		if next == 5 {
			break
		}
	}
	for event, err := range bob.Events(follow, claudemesh.EventFilter{}) {
		if event.Kind == "caught_up" {
			stop()
		} else if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	}
}

func contexts(t *testing.T, alice, _ *meshtest.Member) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := alice.Send(cancelled, "bob", "hi")
	if !errors.Is(err, claudemesh.ErrCancelled) || !errors.Is(err, context.Canceled) || status.Code(err) != codes.Canceled {
		t.Errorf("cancelled: %v", err)
	}
	late, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if _, err := alice.Peers(late, claudemesh.PeerFilter{}); !errors.Is(err, claudemesh.ErrDeadlineExceeded) ||
		!errors.Is(err, context.DeadlineExceeded) || status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("too late: %v", err)
	}
}

func overTCP(t *testing.T, alice, _ *meshtest.Member) {
	t.Setenv("http_proxy", "http://127.0.0.1:9")
	t.Setenv("https_proxy", "http://127.0.0.1:9")
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("wrong")
	mesh, err := claudemesh.Connect(claudemesh.WithAddress(alice.Address), claudemesh.WithTokenFile(file))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mesh.Close() }()
	if _, err := mesh.Send(t.Context(), "bob", "hi"); !errors.Is(err, claudemesh.ErrUnauthenticated) {
		t.Fatalf("a wrong token: %v", err)
	}
	right, err := os.ReadFile(alice.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	write(string(right))
	if _, err := mesh.Send(t.Context(), "bob", "over TCP"); err != nil {
		t.Errorf("the right token: %v", err)
	}
	for event, err := range mesh.Events(t.Context(), claudemesh.EventFilter{}) {
		if err != nil {
			t.Errorf("events: %v", err)
		}
		_ = event
		break
	}
	given, err := claudemesh.Connect(claudemesh.WithAddress(alice.Address), claudemesh.WithToken(strings.TrimSpace(string(right))))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = given.Close() }()
	if _, err := given.Health(t.Context()); err != nil {
		t.Errorf("a given token: %v", err)
	}
}
