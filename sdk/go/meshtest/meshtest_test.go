package meshtest_test

import (
	"errors"
	"os"
	"testing"
	"time"

	claudemesh "github.com/claudemesh/claudemesh/sdk/go"
	"github.com/claudemesh/claudemesh/sdk/go/meshtest"
)

// until waits for what is asked for to be so.
func until(t *testing.T, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not become so in time")
		}
	}
}

func connected(t *testing.T, member *meshtest.Member) bool {
	t.Helper()
	health, err := member.Health(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return health.GetConnected()
}

func TestMembersAndTheirBrokerDoAsTheyAreTold(t *testing.T) {
	mesh := meshtest.New(t, "alice")
	alice := mesh.Member("alice")
	carol := mesh.Add("carol")
	if _, err := alice.Send(t.Context(), "carol", "welcome", claudemesh.WaitDelivered()); err != nil {
		t.Fatal(err)
	}
	mesh.StopBroker()
	until(t, func() bool { return !connected(t, alice) && !connected(t, carol) })
	if _, err := alice.Send(t.Context(), "carol", "later", claudemesh.WithID("later")); err != nil {
		t.Error(err)
	}
	mesh.StartBroker()
	if _, err := alice.Send(t.Context(), "carol", "later", claudemesh.WithID("later"), claudemesh.WaitDelivered()); err != nil {
		t.Error(err)
	}
	for _, hinder := range []func(){alice.Cut, alice.Stall} {
		hinder()
		if _, err := carol.Send(t.Context(), "alice", "still there?"); err != nil {
			t.Error(err)
		}
		alice.Mend()
		until(t, func() bool { return connected(t, alice) })
	}
	carol.Kill()
	carol.Start()
	carol.Restart()
	if _, err := alice.Send(t.Context(), "carol", "back?", claudemesh.WaitDelivered()); err != nil {
		t.Error(err)
	}
}

func TestEverythingEndsWithTheTest(t *testing.T) {
	var alice *meshtest.Member
	var dir string
	t.Run("inner", func(t *testing.T) {
		mesh := meshtest.New(t, "alice", "bob")
		alice, dir = mesh.Member("alice"), mesh.Dir
	})
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	outside, err := claudemesh.Connect(claudemesh.WithAddress(alice.Address), claudemesh.WithToken("any"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = outside.Close() }()
	if _, err := outside.Health(t.Context()); !errors.Is(err, claudemesh.ErrDaemonNotRunning) {
		t.Errorf("the daemon still answers: %v", err)
	}
}

func TestTheClockMoves(t *testing.T) {
	mesh := meshtest.NewWithClock(t, "alice", "bob")
	alice := mesh.Member("alice")
	before, err := alice.Send(t.Context(), "bob", "now")
	if err != nil {
		t.Fatal(err)
	}
	mesh.Advance(3 * time.Hour)
	after, err := alice.Send(t.Context(), "bob", "later")
	if err != nil {
		t.Fatal(err)
	}
	if moved := after.GetQueuedAt().AsTime().Sub(before.GetQueuedAt().AsTime()); moved < 3*time.Hour || moved > 4*time.Hour {
		t.Errorf("the clock moved by %s", moved)
	}
}
