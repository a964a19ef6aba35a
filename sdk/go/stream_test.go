package claudemesh_test

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"

	claudemesh "github.com/claudemesh/claudemesh/sdk/go"
	pb "github.com/claudemesh/claudemesh/sdk/go/gen/claudemesh/v1"
)

// recorder is a daemon that shows what reaches it on the wire, and sends what no
// daemon of this version sends.
type recorder struct {
	pb.UnimplementedMessagingServiceServer
	pb.UnimplementedControlServiceServer
	pb.UnimplementedEventServiceServer

	mu       sync.Mutex
	opened   int
	open     int
	versions int
	traces   []string
}

func record(t *testing.T) (*recorder, *claudemesh.Mesh) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server, r := grpc.NewServer(), &recorder{}
	pb.RegisterMessagingServiceServer(server, r)
	pb.RegisterControlServiceServer(server, r)
	pb.RegisterEventServiceServer(server, r)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return r, connect(t, claudemesh.WithSocket(socket))
}

func (r *recorder) note(note func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	note()
}

func (r *recorder) GetVersion(context.Context, *pb.GetVersionRequest) (*pb.GetVersionResponse, error) {
	r.note(func() { r.versions++ })
	return &pb.GetVersionResponse{IpcApi: "v1", IpcFeatures: []string{"send", "topic", "events"}}, nil
}

func (r *recorder) PostTopic(ctx context.Context, _ *pb.PostTopicRequest) (*pb.PostTopicResponse, error) {
	headers, _ := metadata.FromIncomingContext(ctx)
	r.note(func() { r.traces = append(r.traces, strings.Join(headers.Get("traceparent"), ",")) })
	return &pb.PostTopicResponse{}, nil
}

func (r *recorder) SendStream(stream grpc.BidiStreamingServer[pb.SendStreamRequest, pb.SendStreamResponse]) error {
	r.note(func() { r.opened++; r.open++ })
	defer r.note(func() { r.open-- })
	for {
		request, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		r.note(func() { r.traces = append(r.traces, request.GetTraceContext()["traceparent"]) })
		answer := &pb.SendResponse{ClientMessageId: request.GetSend().GetClientMessageId()}
		if err := stream.Send(&pb.SendStreamResponse{
			Index: request.GetIndex(), Result: &pb.SendStreamResponse_Response{Response: answer},
		}); err != nil {
			return err
		}
	}
}

func (r *recorder) StreamEvents(_ *pb.StreamEventsRequest, stream grpc.ServerStreamingServer[pb.StreamEventsResponse]) error {
	later := &pb.StreamEventsResponse{EventId: "g-1"}
	later.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 999, protowire.BytesType), []byte{8, 1}))
	if err := stream.Send(later); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func TestAllSendsShareOneStreamThatIsClosedWhenIdle(t *testing.T) {
	r, mesh := record(t)
	for range 2 {
		var wait sync.WaitGroup
		for range 50 {
			wait.Go(func() {
				if _, err := mesh.Send(t.Context(), "bob", "hi"); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
	}
	r.note(func() {
		if r.opened != 1 || r.open != 1 || r.versions != 1 {
			t.Errorf("%d streams were opened and %d are open, the version was asked for %d times", r.opened, r.open, r.versions)
		}
	})
	closed := func() (is bool) {
		r.note(func() { is = r.open == 0 })
		return is
	}
	eventually(t, closed)
	if _, err := mesh.Send(t.Context(), "bob", "hi"); err != nil {
		t.Error(err)
	}
	r.note(func() {
		if r.opened != 2 {
			t.Errorf("%d streams were opened", r.opened)
		}
	})
}

func TestTheTraceContextGoesAlong(t *testing.T) {
	r, mesh := record(t)
	span := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled,
	})
	inSpan := trace.ContextWithSpanContext(t.Context(), span)
	for _, ctx := range []context.Context{inSpan, t.Context()} {
		if _, err := mesh.Send(ctx, "bob", "hi"); err != nil {
			t.Fatal(err)
		}
		if _, err := mesh.Post(ctx, "ops", "hi"); err != nil {
			t.Fatal(err)
		}
	}
	const want = "00-01000000000000000000000000000000-0200000000000000-01"
	r.note(func() {
		if got := strings.Join(r.traces, ";"); got != want+";"+want+";;" {
			t.Errorf("got %s", got)
		}
	})
}

func TestAnEventOfALaterVersionPassesThrough(t *testing.T) {
	_, mesh := record(t)
	for event, err := range mesh.Events(t.Context(), claudemesh.EventFilter{}) {
		if err != nil || event.Kind != "unknown" || event.Value != nil || event.EventID != "g-1" || len(event.Raw.ProtoReflect().GetUnknown()) == 0 {
			t.Errorf("%+v, %v", event, err)
		}
		return
	}
}
