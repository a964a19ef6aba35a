package claudemesh

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/claudemesh/claudemesh/sdk/go/gen/claudemesh/v1"
)

// Event is one thing that happened.
type Event struct {
	// Kind is the name of the field that is set in the oneof of
	// StreamEventsResponse, such as message; unknown for a kind of a later version.
	Kind string
	// EventID is the place in the inbox, the After of a later call. Stored messages
	// and caught_up have one.
	EventID string
	// Time is when it happened, by this host's clock.
	Time time.Time
	// Value is the message of that field, such as *pb.InboxMessage; nil when the
	// kind is unknown.
	Value proto.Message
	// Raw is the event as it came.
	Raw *pb.StreamEventsResponse
}

// EventFilter says which events to follow, and from where. The zero value follows
// all from now on.
type EventFilter struct {
	// After resumes after this event id.
	After string
	// FromStart begins with the oldest stored message.
	FromStart bool
	// Types are the kinds to follow, besides gap and caught_up; empty: all.
	Types []pb.EventType
	// Topic and Sender restrict messages and shared files.
	Topic  string
	Sender string
}

// Events follows what happens until the loop is left or the client is closed. The
// end of ctx, and a failure that cannot be cured, come last. It survives
// restarts of the daemon: it resumes after the last event that had an id, so that
// stored messages come once each, in order. A caught_up comes after each connect;
// after one that is not the first, live-only events may be missing.
func (m *Mesh) Events(ctx context.Context, filter EventFilter) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		failure := texts("after", filter.After, "topic", filter.Topic, "sender", filter.Sender)
		if ctx == nil {
			failure = noContext()
		}
		if failure == nil {
			failure = known("types", filter.Types...)
		}
		if failure != nil {
			yield(Event{}, failure)
			return
		}
		if m.ctx.Err() != nil {
			yield(Event{}, m.closed())
			return
		}
		follow := &follower{mesh: m, request: &pb.StreamEventsRequest{
			After: filter.After, FromStart: filter.FromStart, Types: filter.Types, Topic: filter.Topic, Sender: filter.Sender,
		}}
		for {
			err := follow.once(ctx, yield)
			if err == errLeft {
				return
			}
			failure := m.explain(ctx, err)
			if follow.again(failure) {
				if m.sleep(ctx, follow.pause.next(failure.RetryAfter)) {
					continue
				}
				failure = m.outOfTime(ctx, failure)
			}
			if failure.Code != ErrClientClosed {
				yield(Event{}, failure)
			}
			return
		}
	}
}

// errLeft says that the loop over the events was left.
var errLeft = errors.New("left")

// follower is one iteration, over all of its streams.
type follower struct {
	mesh    *Mesh
	request *pb.StreamEventsRequest
	pause   pauses
	refused bool
}

// once follows one stream until it breaks.
func (f *follower) once(ctx context.Context, yield func(Event, error) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := f.mesh.require(ctx, "events"); err != nil {
		return err
	}
	stream, err := f.mesh.raw.Events.StreamEvents(ctx, f.request, f.mesh.patience())
	if err != nil {
		return err
	}
	// The headers come when the subscription is in force.
	late := time.AfterFunc(silence, cancel)
	if _, err := stream.Header(); !late.Stop() {
		return status.Error(codes.Unavailable, "the daemon did not begin the stream in time")
	} else if err != nil {
		return err
	}
	for {
		raw, err := stream.Recv()
		if err == io.EOF || status.Code(err) == codes.Canceled {
			// Nobody here ended it, or the caller of this asks ctx.
			return status.Error(codes.Unavailable, "the daemon ended the stream")
		}
		if err != nil {
			return err
		}
		f.pause.reset()
		f.refused = false
		if id := raw.GetEventId(); id != "" {
			f.request.After, f.request.FromStart = id, false
		}
		if !yield(eventOf(raw), nil) {
			return errLeft
		}
	}
}

func (f *follower) again(failure *Error) bool {
	if failure.Code == ErrUnauthenticated && !f.refused {
		f.refused = true
		return f.mesh.token.forget()
	}
	return f.mesh.mayRepeat(failure)
}

func eventOf(raw *pb.StreamEventsResponse) Event {
	event := Event{Kind: "unknown", EventID: raw.GetEventId(), Raw: raw}
	if at := raw.GetTime(); at != nil {
		event.Time = at.AsTime()
	}
	message := raw.ProtoReflect()
	field := message.WhichOneof(message.Descriptor().Oneofs().ByName("event"))
	if field != nil {
		event.Kind = string(field.Name())
		event.Value = message.Get(field).Message().Interface()
	}
	return event
}
