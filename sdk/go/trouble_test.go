package claudemesh_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
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

func connect(t *testing.T, options ...claudemesh.Option) *claudemesh.Mesh {
	t.Helper()
	mesh, err := claudemesh.Connect(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mesh.Close() })
	return mesh
}

func TestWithoutADaemonTheFirstCallSaysSoAtOnce(t *testing.T) {
	for _, name := range []string{"CLAUDEMESH_DAEMON_SOCK", "CLAUDEMESH_ADDR", "CLAUDEMESH_MESH"} {
		t.Setenv(name, "")
	}
	t.Setenv("CLAUDEMESH_HOME", t.TempDir())
	t.Chdir(t.TempDir())
	for about, mesh := range map[string]*claudemesh.Mesh{
		"none runs":        connect(t),
		"no socket":        connect(t, claudemesh.WithMesh("demo")),
		"nobody at a port": connect(t, claudemesh.WithAddress("127.0.0.1:1"), claudemesh.WithToken("x")),
	} {
		begun := time.Now()
		_, err := mesh.Send(t.Context(), "bob", "hi")
		if !errors.Is(err, claudemesh.ErrDaemonNotRunning) || status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", about, err)
		}
		for _, err := range mesh.Events(t.Context(), claudemesh.EventFilter{}) {
			if !errors.Is(err, claudemesh.ErrDaemonNotRunning) {
				t.Errorf("%s: events: %v", about, err)
			}
		}
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("%s: it took %s", about, took)
		}
	}
}

func TestAPeerThatSaysNothingHangsNobody(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	mesh := connect(t, claudemesh.WithSocket(socket))
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := mesh.Send(ctx, "bob", "hi"); !errors.Is(err, claudemesh.ErrDaemonNotRunning) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a deadline: %v", err)
	}
	begun := time.Now()
	if _, err := mesh.Health(t.Context()); !errors.Is(err, claudemesh.ErrDaemonNotRunning) {
		t.Errorf("with none: %v", err)
	}
	if took := time.Since(begun); took > 11*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestASocketThatMayNotBeUsedIsTold(t *testing.T) {
	if os.Getenv("CLAUDEMESH_TEST_SOCKET") != "" {
		mesh := connect(t, claudemesh.WithSocket(os.Getenv("CLAUDEMESH_TEST_SOCKET")))
		if _, err := mesh.Health(t.Context()); !errors.Is(err, claudemesh.ErrPermissionDenied) {
			t.Errorf("got %v", err)
		}
		return
	}
	// Under /tmp, since another user has to reach it.
	dir, err := os.MkdirTemp("", "claudemesh")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	socket := filepath.Join(dir, "sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(socket, 0)); err != nil {
		t.Fatal(err)
	}
	asAnotherUser(t, dir, "CLAUDEMESH_TEST_SOCKET="+socket)
}

func TestAPausedDaemonIsWaitedForUntilTheDeadline(t *testing.T) {
	alice, bob := meshtest.Pair(t)
	if _, err := alice.Health(t.Context()); err != nil {
		t.Fatal(err)
	}
	alice.Pause()
	const id = "while-paused"
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := alice.Send(ctx, "bob", "patience", claudemesh.WithID(id))
	var failure *claudemesh.Error
	if !errors.Is(err, claudemesh.ErrDeadlineExceeded) || !errors.As(err, &failure) || failure.ClientMessageID != id {
		t.Errorf("got %v", err)
	}
	alice.Resume()
	if _, err := alice.Send(t.Context(), "bob", "patience", claudemesh.WithID(id), claudemesh.WaitDelivered()); err != nil {
		t.Fatal(err)
	}
	if got := bodies(t, bob, "patience"); len(got) != 1 {
		t.Errorf("it came %d times", len(got))
	}
}

// bodies are the texts in the inbox that begin so, in order.
func bodies(t *testing.T, of *meshtest.Member, prefix string) (found []string) {
	t.Helper()
	for message, err := range of.Inbox(t.Context(), claudemesh.InboxFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(message.GetBody(), prefix) {
			found = append(found, message.GetBody())
		}
	}
	return found
}

func TestWithoutALinkAWaitIsInVainAndTheMessageStays(t *testing.T) {
	alice, bob := meshtest.Pair(t)
	alice.Cut()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := alice.Send(ctx, "bob", "later", claudemesh.WithID("later"), claudemesh.WaitAccepted())
	if !errors.Is(err, claudemesh.ErrWaitTimeout) || status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	alice.Mend()
	if _, err := alice.Send(t.Context(), "bob", "later", claudemesh.WithID("later"), claudemesh.WaitDelivered()); err != nil {
		t.Fatal(err)
	}
	if got := bodies(t, bob, "later"); len(got) != 1 {
		t.Errorf("it came %d times", len(got))
	}
}

func TestACloseEndsWhatWaits(t *testing.T) {
	alice, _ := meshtest.Pair(t)
	before := runtime.NumGoroutine()
	mesh := connect(t, claudemesh.WithSocket(alice.Socket))
	if _, err := mesh.Send(t.Context(), "bob", "hi"); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	following := make(chan struct{})
	wait.Go(func() {
		for event, err := range mesh.Events(context.Background(), claudemesh.EventFilter{}) {
			if err != nil {
				t.Errorf("events: %v", err)
			}
			if event.Kind == "caught_up" {
				close(following)
			}
		}
	})
	<-following
	alice.Pause()
	for range 3 {
		wait.Go(func() {
			if _, err := mesh.Send(context.Background(), "bob", "hi"); !errors.Is(err, claudemesh.ErrClientClosed) {
				t.Errorf("a send: %v", err)
			}
		})
		wait.Go(func() {
			if _, err := mesh.Peers(context.Background(), claudemesh.PeerFilter{}); !errors.Is(err, claudemesh.ErrClientClosed) {
				t.Errorf("a call: %v", err)
			}
		})
	}
	if err := errors.Join(mesh.Close(), mesh.Close()); err != nil {
		t.Error(err)
	}
	wait.Wait()
	alice.Resume()
	if _, err := mesh.Send(t.Context(), "bob", "hi"); !errors.Is(err, claudemesh.ErrClientClosed) {
		t.Errorf("a later send: %v", err)
	}
	eventually(t, func() bool { return runtime.NumGoroutine() <= before })
}

func TestADaemonThatStartsLaterIsFound(t *testing.T) {
	alice, _ := meshtest.Pair(t)
	for _, name := range []string{"CLAUDEMESH_DAEMON_SOCK", "CLAUDEMESH_ADDR", "CLAUDEMESH_MESH"} {
		t.Setenv(name, "")
	}
	t.Setenv("CLAUDEMESH_HOME", alice.Home)
	t.Chdir(t.TempDir())
	alice.Stop()
	mesh := connect(t)
	if _, err := mesh.Health(t.Context()); !errors.Is(err, claudemesh.ErrDaemonNotRunning) {
		t.Errorf("while it is stopped: %v", err)
	}
	ready := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		health, err := mesh.WaitReady(ctx, claudemesh.Connected())
		if err == nil && !health.GetConnected() {
			err = fmt.Errorf("%v", health)
		}
		ready <- err
	}()
	alice.Start()
	if err := <-ready; err != nil {
		t.Error(err)
	}
}

// reach waits until a count that grows has come as far as wanted.
func reach(t *testing.T, wanted int, count func() int) {
	t.Helper()
	last, moved := -1, time.Now()
	for {
		now := count()
		if now >= wanted {
			return
		}
		if now > last {
			last, moved = now, time.Now()
		}
		if time.Since(moved) > 30*time.Second {
			t.Fatalf("it stays at %d of %d", now, wanted)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Sends and events go on through kills and restarts: nothing is lost, nothing is
// repeated, and no caller sees an error.
func TestRestartsAreNotSeenByCallers(t *testing.T) {
	alice, bob := meshtest.Pair(t)
	total := 2000
	if text := os.Getenv("CLAUDEMESH_SOAK_MESSAGES"); text != "" {
		var err error
		if total, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	const senders = 8
	total -= total % senders

	follow, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	started := make(chan struct{})
	var progress sync.Mutex
	var came []string // ids of the events
	connects := 0
	go func() {
		ended <- func() error {
			types := []pb.EventType{pb.EventType_EVENT_TYPE_MESSAGE}
			for event, err := range bob.Events(follow, claudemesh.EventFilter{Types: types}) {
				if err != nil {
					return err
				}
				switch event.Kind {
				case "caught_up":
					if connects++; connects == 1 {
						close(started)
					}
				case "message":
					progress.Lock()
					came = append(came, event.EventID)
					done := len(came) == total
					progress.Unlock()
					if done {
						return nil
					}
				default:
					return fmt.Errorf("there came %v", event.Raw)
				}
			}
			return errors.New("the events ended")
		}()
	}()
	<-started

	var wait sync.WaitGroup
	var sent int
	for sender := range senders {
		wait.Go(func() {
			for i := range total / senders {
				if _, err := alice.Send(t.Context(), "bob", fmt.Sprintf("s%d %d", sender, i)); err != nil {
					t.Errorf("sender %d, message %d: %v", sender, i, err)
					return
				}
				progress.Lock()
				sent++
				progress.Unlock()
			}
		})
	}
	for round := range 10 {
		// Spread over the run.
		reach(t, total*(2*round+1)/20, func() int {
			progress.Lock()
			defer progress.Unlock()
			if t.Failed() {
				return total
			}
			return sent
		})
		switch round % 4 {
		case 0:
			alice.Kill()
			alice.Start()
		case 1:
			bob.Kill()
			bob.Start()
		case 2:
			alice.Restart()
		case 3:
			bob.Restart()
		}
	}
	wait.Wait()
	if t.Failed() {
		return
	}
	reach(t, total, func() int {
		progress.Lock()
		defer progress.Unlock()
		if len(ended) > 0 {
			return total
		}
		return len(came)
	})
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if connects < 2 {
		t.Error("the events were never connected again")
	}
	var stored []string
	texts := map[string]bool{}
	for message, err := range bob.Inbox(t.Context(), claudemesh.InboxFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, message.GetEventId())
		texts[message.GetBody()] = true
	}
	if len(texts) != total || !slices.Equal(came, stored) {
		t.Errorf("%d different messages, %d stored and %d events, want %d, with events in the order of the inbox",
			len(texts), len(stored), len(came), total)
	}
}
