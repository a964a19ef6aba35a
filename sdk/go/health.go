package claudemesh

import (
	"context"
	"errors"

	pb "github.com/claudemesh/claudemesh/sdk/go/gen/claudemesh/v1"
)

// Health tells whether the daemon is connected and how much waits.
func (m *Mesh) Health(ctx context.Context) (*pb.GetHealthResponse, error) {
	return call(ctx, m, "", m.raw.Control.GetHealth, &pb.GetHealthRequest{})
}

// Version tells the version of the daemon and what it serves.
func (m *Mesh) Version(ctx context.Context) (*pb.GetVersionResponse, error) {
	return call(ctx, m, "", m.raw.Control.GetVersion, &pb.GetVersionRequest{})
}

// ReadyOption changes what [Mesh.WaitReady] waits for.
type ReadyOption func(*readiness)

type readiness struct{ connected bool }

// Connected waits for the link to the broker too.
func Connected() ReadyOption { return func(r *readiness) { r.connected = true } }

// WaitReady returns the health once the daemon answers and is ready. A daemon
// that does not run yet is waited for.
func (m *Mesh) WaitReady(ctx context.Context, options ...ReadyOption) (*pb.GetHealthResponse, error) {
	var wanted readiness
	for _, option := range options {
		if option == nil {
			return nil, invalid("options", "must not hold nil")
		}
		option(&wanted)
	}
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	var pause pauses
	for {
		health, err := m.Health(ctx)
		ready := err == nil && health.GetState() == pb.HealthState_HEALTH_STATE_READY
		if ready && (health.GetConnected() || !wanted.connected) {
			return health, nil
		}
		if err != nil && (!errors.Is(err, ErrDaemonNotRunning) || ctx.Err() != nil) {
			return nil, err
		}
		if m.sleep(ctx, pause.next(0)) {
			continue
		}
		if err == nil {
			err = newError(ErrDeadlineExceeded, "the daemon is %s, connected: %t", health.GetState(), health.GetConnected()).
				because(context.DeadlineExceeded)
		}
		return nil, m.outOfTime(ctx, fromRPC(err))
	}
}
