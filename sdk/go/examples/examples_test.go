// Package examples runs the example programs against real daemons.
package examples

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	claudemesh "github.com/claudemesh/claudemesh/sdk/go"
	pb "github.com/claudemesh/claudemesh/sdk/go/gen/claudemesh/v1"
	"github.com/claudemesh/claudemesh/sdk/go/meshtest"
)

// build gives the path of an example's program.
func build(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if output, err := exec.Command("go", "build", "-o", path, "./"+name).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return path
}

// output is what a program wrote; it may still be writing.
type output struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (o *output) Write(text []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.Write(text)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.String()
}

// start runs an example at a member until the test ends.
func start(t *testing.T, of *meshtest.Member, name string, args ...string) (*exec.Cmd, *output) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	command := exec.CommandContext(ctx, build(t, name), args...)
	command.Env = append(os.Environ(), "CLAUDEMESH_DAEMON_SOCK="+of.Socket)
	said := &output{}
	command.Stdout, command.Stderr = said, said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	return command, said
}

// expect follows the messages of a member until one is as wanted.
func expect(t *testing.T, of *meshtest.Member, after string, is func(*pb.InboxMessage) bool) *pb.InboxMessage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for event, err := range of.Events(ctx, claudemesh.EventFilter{After: after, FromStart: after == ""}) {
		if err != nil {
			t.Fatalf("it did not come: %v", err)
		}
		if message, ok := event.Value.(*pb.InboxMessage); ok && is(message) {
			return message
		}
	}
	panic("unreachable")
}

func says(text string) func(*pb.InboxMessage) bool {
	return func(m *pb.InboxMessage) bool { return m.GetBody() == text }
}

func TestTheWorkerReportsAndRetries(t *testing.T) {
	alice, bob := meshtest.Pair(t)
	_, said := start(t, alice, "worker", "bob")
	done := expect(t, bob, "", says("100 % done"))
	if done.GetMeta().AsMap()["percent"] != 100.0 {
		t.Errorf("meta is %v", done.GetMeta())
	}
	if _, err := bob.Send(t.Context(), "alice", "retry"); err != nil {
		t.Fatal(err)
	}
	expect(t, bob, done.GetEventId(), says("100 % done"))
	if text := said.String(); text != "" {
		t.Errorf("it said %s", text)
	}
}

func TestTheBotAnswersMentions(t *testing.T) {
	alice, bob := meshtest.Pair(t)
	start(t, alice, "bot")
	// The bot follows from when it is there, so it is asked until it answers.
	stop := time.After(30 * time.Second)
	for answered := false; !answered; {
		select {
		case <-stop:
			t.Fatal("no answer")
		case <-time.After(100 * time.Millisecond):
		}
		if _, err := bob.Send(t.Context(), "alice", "hi bot", claudemesh.WithMentions("alice")); err != nil {
			t.Fatal(err)
		}
		for message, err := range bob.Inbox(t.Context(), claudemesh.InboxFilter{}) {
			if err != nil {
				t.Fatal(err)
			}
			answered = answered || message.GetBody() == "You said: hi bot" && message.GetReplyToId() != ""
		}
	}
}

func TestTheAlertWaitsForAnAnswer(t *testing.T) {
	alice, bob := meshtest.Pair(t)
	program, said := start(t, alice, "alert", "bob", "Grow it?")
	question := expect(t, bob, "", says("Grow it?"))
	if question.GetPriority() != claudemesh.PriorityNow {
		t.Errorf("its priority is %s", question.GetPriority())
	}
	for text, options := range map[string][]claudemesh.SendOption{
		"something else": nil,
		"yes":            {claudemesh.WithReplyTo(question.GetId())},
	} {
		if _, err := bob.Send(t.Context(), "alice", text, options...); err != nil {
			t.Fatal(err)
		}
	}
	if err := program.Wait(); err != nil || strings.TrimSpace(said.String()) != "yes" {
		t.Errorf("%v: it said %q", err, said)
	}
}
