package claudemesh

import (
	"context"

	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc/metadata"
)

// traceContext gives the headers of the span that ctx is in; none without one.
func traceContext(ctx context.Context) map[string]string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier
}

// traced lets the current trace context go along in the metadata.
func traced(ctx context.Context) context.Context {
	for name, value := range traceContext(ctx) {
		ctx = metadata.AppendToOutgoingContext(ctx, name, value)
	}
	return ctx
}
