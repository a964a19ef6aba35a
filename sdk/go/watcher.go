package claudemesh

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc/stats"
)

// watcher counts the connections of a client, as grpc-go reports them.
type watcher struct {
	// Some call reached a connection.
	connected atomic.Bool
	// Connections that ended.
	ended atomic.Uint64
}

func (w *watcher) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (w *watcher) HandleRPC(_ context.Context, event stats.RPCStats) {
	if _, ok := event.(*stats.OutHeader); ok {
		w.connected.Store(true)
	}
}

func (w *watcher) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (w *watcher) HandleConn(_ context.Context, event stats.ConnStats) {
	if _, ok := event.(*stats.ConnEnd); ok {
		w.ended.Add(1)
	}
}
