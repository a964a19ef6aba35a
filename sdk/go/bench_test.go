//go:build bench

package claudemesh_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	pb "github.com/claudemesh/claudemesh/sdk/go/gen/claudemesh/v1"
	"github.com/claudemesh/claudemesh/sdk/go/meshtest"
)

// TestBench compares Send with the generated client's unary call. Run it by
// bench.sh.
func TestBench(t *testing.T) {
	alice, _ := meshtest.Pair(t)
	// Without a link only this host's disk is measured.
	alice.Cut()
	send := func(ctx context.Context) error {
		_, err := alice.Send(ctx, "bob", "hello")
		return err
	}
	raw := func(ctx context.Context) error {
		_, err := alice.Raw().Messaging.Send(ctx, &pb.SendRequest{To: "bob", Message: "hello", ClientMessageId: ulid.Make().String()})
		return err
	}
	for _, test := range []struct {
		callers, each int
		least         float64
	}{{1, 300, 1 / 1.10}, {64, 60, 1.5}} {
		// In turns, so that both meet the same noise.
		var ours, theirs []float64
		for range 7 {
			ours = append(ours, rate(t, send, test.callers, test.each))
			theirs = append(theirs, rate(t, raw, test.callers, test.each))
		}
		slices.Sort(ours)
		slices.Sort(theirs)
		a, b := ours[len(ours)/2], theirs[len(theirs)/2]
		t.Logf("%2d callers: Send %.0f/s, raw client %.0f/s, ratio %.2f, wanted %.2f", test.callers, a, b, a/b, test.least)
		if a/b < test.least {
			t.Errorf("the ratio with %d callers is too low", test.callers)
		}
	}
}

// rate gives calls in a second.
func rate(t *testing.T, call func(context.Context) error, callers, each int) float64 {
	t.Helper()
	begun := time.Now()
	var wait sync.WaitGroup
	for range callers {
		wait.Go(func() {
			for range each {
				if err := call(t.Context()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	return float64(callers*each) / time.Since(begun).Seconds()
}
