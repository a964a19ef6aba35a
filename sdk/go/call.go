package claudemesh

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/claudemesh/claudemesh/sdk/go/gen/claudemesh/v1"
)

const (
	firstPause   = 50 * time.Millisecond
	longestPause = 500 * time.Millisecond
	jitter       = 0.25
)

// pauses are the times between attempts.
type pauses struct{ last time.Duration }

// next gives the time until the next attempt, which the daemon may have asked
// for.
func (p *pauses) next(asked time.Duration) time.Duration {
	p.last = min(max(2*p.last, firstPause), longestPause)
	if asked > 0 {
		return asked
	}
	return time.Duration(float64(p.last) * (1 - jitter + 2*jitter*rand.Float64()))
}

func (p *pauses) reset() { p.last = 0 }

// bounded gives a context that has a deadline. That there is none at all is told
// by what makes the call.
func (m *Mesh) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx == nil {
		return nil, func() {}
	}
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, m.timeout)
}

// call makes a unary call by the rule of retries.
func call[Request, Answer any](
	ctx context.Context, m *Mesh, feature string,
	method func(context.Context, Request, ...grpc.CallOption) (Answer, error), request Request,
) (Answer, error) {
	var answer Answer
	failure := m.repeat(ctx, feature, func(ctx context.Context, options ...grpc.CallOption) (err error) {
		answer, err = method(ctx, request, options...)
		return err
	})
	if failure != nil {
		return answer, failure
	}
	return answer, nil
}

// repeat attempts what needs the feature until it does not end with UNAVAILABLE,
// or the deadline.
func (m *Mesh) repeat(ctx context.Context, feature string, attempt func(context.Context, ...grpc.CallOption) error) *Error {
	if ctx == nil {
		return noContext()
	}
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	var pause pauses
	refused := false
	for {
		err := m.require(ctx, feature)
		if err == nil {
			err = attempt(ctx, m.patience())
		}
		if err == nil {
			return nil
		}
		failure := m.explain(ctx, err)
		if failure.Code == ErrUnauthenticated && !refused && m.token.forget() {
			refused = true
			continue
		}
		if !m.mayRepeat(failure) {
			return failure
		}
		if !m.sleep(ctx, pause.next(failure.RetryAfter)) {
			return m.outOfTime(ctx, failure)
		}
	}
}

// patience lets a client that had a connection wait for the next one. The first
// one is not waited for, so that a daemon that does not run is told at once.
func (m *Mesh) patience() grpc.CallOption { return grpc.WaitForReady(m.watch.connected.Load()) }

func (m *Mesh) mayRepeat(failure *Error) bool {
	return failure.GRPCCode == codes.Unavailable && (m.watch.connected.Load() || !failure.lost())
}

// explain says why an attempt failed.
func (m *Mesh) explain(ctx context.Context, err error) *Error {
	if m.ctx.Err() != nil {
		return m.closed()
	}
	if cause := ctx.Err(); cause != nil {
		if errors.Is(cause, context.DeadlineExceeded) && !m.linked() {
			return m.notRunning(err).because(cause)
		}
		return fromContext(ctx)
	}
	failure := fromRPC(err)
	if failure.lost() && failure.status != nil {
		return m.notRunning(err)
	}
	if failure.Code == ErrDeadlineExceeded {
		failure.cause = context.DeadlineExceeded
	}
	return failure
}

// outOfTime says what a call ends with whose deadline leaves no further attempt.
func (m *Mesh) outOfTime(ctx context.Context, last *Error) *Error {
	switch {
	case m.ctx.Err() != nil:
		return m.closed()
	case errors.Is(ctx.Err(), context.Canceled):
		return fromContext(ctx)
	case last.lost() || !m.linked():
		return m.notRunning(last).because(context.DeadlineExceeded)
	default:
		return last
	}
}

// notRunning says why there is no connection; what grpc-go said is the cause.
func (m *Mesh) notRunning(err error) *Error {
	m.mu.Lock()
	addr := m.addr
	m.mu.Unlock()
	start := "claudemesh daemon up"
	if addr.mesh != "" {
		start += " --mesh " + addr.mesh
	}
	absent := newError(ErrDaemonNotRunning, "no daemon answers at %s; start it with `%s`", addr, start)
	if _, own := err.(*Error); !own {
		absent.cause = err
	}
	switch {
	case addr.socket != "":
		if failure := addr.fits(); failure != nil {
			return failure
		}
		// grpc-go tells of a failed connection in words only.
		probe, dialErr := net.DialTimeout("unix", addr.socket, 100*time.Millisecond)
		if dialErr == nil {
			_ = probe.Close()
		} else if errors.Is(dialErr, os.ErrPermission) {
			return newError(ErrPermissionDenied, "the socket %s belongs to another user: run as the user who runs the daemon, or use TCP with a token", addr)
		}
		return absent
	case addr.tcp != "":
		absent.Message += "; its port is in the file http.port of its directory"
		return absent
	default:
		return fromRPC(err)
	}
}

// sleep waits, and tells whether there is time left then.
func (m *Mesh) sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	case <-m.ctx.Done():
		return false
	}
}

// version is what the daemon said of itself, on the connection before which so
// many others had ended.
type version struct {
	*pb.GetVersionResponse
	ended uint64
}

// require asks the daemon what it serves, once on each connection.
func (m *Mesh) require(ctx context.Context, feature string) error {
	if feature == "" {
		return nil
	}
	serves := m.asked()
	if serves == nil {
		select {
		case m.asking <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		defer func() { <-m.asking }()
		if serves = m.asked(); serves == nil {
			var err error
			if serves, err = m.ask(ctx); err != nil {
				return err
			}
		}
	}
	if api := serves.GetIpcApi(); api != "v1" {
		return newError(ErrVersionUnsupported, "the daemon, version %s, speaks %q and this client v1: use a client of the daemon's version",
			serves.GetDaemonVersion(), api)
	}
	if !slices.Contains(serves.GetIpcFeatures(), feature) {
		return newError(ErrNotServed, "the daemon, version %s, does not serve %q: update it", serves.GetDaemonVersion(), feature)
	}
	return nil
}

func (m *Mesh) ask(ctx context.Context) (*version, error) {
	within, cancel := m.bounded(ctx)
	defer cancel()
	ended := m.watch.ended.Load()
	answer, err := m.raw.Control.GetVersion(within, &pb.GetVersionRequest{}, m.patience())
	if err != nil {
		if within.Err() != nil && ctx.Err() == nil {
			// The time is this one's own, not its caller's.
			return nil, status.Error(codes.Unavailable, "the daemon did not answer in time")
		}
		return nil, err
	}
	serves := &version{answer, ended}
	m.version.Store(serves)
	return serves, nil
}

func (m *Mesh) asked() *version {
	if said := m.version.Load(); said != nil && said.ended == m.watch.ended.Load() {
		return said
	}
	return nil
}
