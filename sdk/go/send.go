package claudemesh

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	pb "github.com/claudemesh/claudemesh/sdk/go/gen/claudemesh/v1"
)

// Priorities of a message.
const (
	// PriorityNow interrupts the receiver.
	PriorityNow = pb.Priority_PRIORITY_NOW
	// PriorityNext is read at the receiver's next opportunity. The default.
	PriorityNext = pb.Priority_PRIORITY_NEXT
	// PriorityLow is read when there is nothing else to do.
	PriorityLow = pb.Priority_PRIORITY_LOW
)

// Message is one message of [Mesh.SendMany]. To and Text are required.
type Message struct {
	// To is a member's name or key, the first 16 or more digits of a key, #topic,
	// * or @group.
	To   string
	Text string
	// ID is the id of the send; empty: a new ULID.
	ID       string
	Priority pb.Priority
	// Meta is free-form data for the receiver: what encoding/json can write.
	Meta map[string]any
	// ReplyTo is the id of the message that this one answers.
	ReplyTo string
	// Mentions are members to draw the attention of.
	Mentions []string
	// AllowUnencrypted accepts that the text leaves this host unencrypted, where
	// the destination cannot be reached otherwise.
	AllowUnencrypted bool
}

// SendResult is how one message of [Mesh.SendMany] went.
type SendResult struct {
	// ID is the id of the send, also when it failed.
	ID       string
	Response *pb.SendResponse
	Err      error
}

type sending struct {
	Message
	wait pb.SendStatus
}

// SendOption changes how [Mesh.Send] and [Mesh.Post] send.
type SendOption func(*sending)

// WithID gives the send an id of the caller's: 1 to 128 visible ASCII characters.
// Repeating a send under its id never sends it twice.
func WithID(id string) SendOption { return func(s *sending) { s.ID = id } }

// WithPriority says how urgent the message is.
func WithPriority(priority pb.Priority) SendOption {
	return func(s *sending) { s.Priority = priority }
}

// WithMeta adds free-form data for the receiver: what encoding/json can write.
func WithMeta(meta map[string]any) SendOption { return func(s *sending) { s.Meta = meta } }

// WithReplyTo names the message that this one answers, by its Id,
// BrokerMessageId or ClientMessageId.
func WithReplyTo(id string) SendOption { return func(s *sending) { s.ReplyTo = id } }

// WithMentions draws the attention of members.
func WithMentions(members ...string) SendOption { return func(s *sending) { s.Mentions = members } }

// AllowUnencrypted accepts that the text leaves this host unencrypted, where the
// destination cannot be reached otherwise.
func AllowUnencrypted() SendOption { return func(s *sending) { s.AllowUnencrypted = true } }

// WaitAccepted returns when the broker has the message, within the deadline.
func WaitAccepted() SendOption {
	return func(s *sending) { s.wait = pb.SendStatus_SEND_STATUS_ACCEPTED }
}

// WaitDelivered returns when the receiver's daemon has stored the message, within
// the deadline.
func WaitDelivered() SendOption {
	return func(s *sending) { s.wait = pb.SendStatus_SEND_STATUS_DELIVERED }
}

// Send queues a message for a member, a topic, a group or everyone. It returns
// when the message is on this host's disk, unless an option waits for more. When
// it fails, the message may be there too: [Error.ClientMessageID] tells its id, to
// send it again or to ask with [Mesh.GetSend].
func (m *Mesh) Send(ctx context.Context, to, text string, options ...SendOption) (*pb.SendResponse, error) {
	send, failure := newSending(to, text, options)
	if failure != nil {
		return nil, failure.of(send.ID)
	}
	if strings.HasPrefix(to, "#") {
		if failure := send.waitsForOne(); failure != nil {
			return nil, failure.of(send.ID)
		}
	}
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	result := m.sendAll(ctx, []Message{send.Message})[0]
	if result.Err != nil || send.wait == pb.SendStatus_SEND_STATUS_UNSPECIFIED {
		return result.Response, result.Err
	}
	came, failure := m.await(ctx, result.ID, send.wait, result.Response.GetStatus())
	if failure != nil {
		return nil, failure.of(result.ID)
	}
	answer := result.Response
	answer.Status, answer.DeliveredAt = came.GetStatus(), came.GetDeliveredAt()
	answer.BrokerMessageId, answer.HistoryId = came.GetBrokerMessageId(), came.GetHistoryId()
	return answer, nil
}

// SendMany queues messages and gives a result for each, in the order given.
func (m *Mesh) SendMany(ctx context.Context, messages []Message) []SendResult {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	return m.sendAll(ctx, messages)
}

// Post queues a message to a topic. It can be waited for until it is accepted.
func (m *Mesh) Post(ctx context.Context, topic, text string, options ...SendOption) (*pb.PostTopicResponse, error) {
	send, failure := newSending(topic, text, options)
	if failure != nil {
		return nil, failure.of(send.ID)
	}
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	answer, failure := m.post(ctx, send)
	if failure != nil {
		return nil, failure.of(send.ID)
	}
	return answer, nil
}

func (m *Mesh) post(ctx context.Context, send *sending) (*pb.PostTopicResponse, *Error) {
	request, failure := send.request()
	if failure != nil {
		return nil, failure
	}
	if failure := send.waitsForOne(); failure != nil {
		return nil, failure
	}
	answer, err := call(ctx, m, "topic", m.raw.Messaging.PostTopic, &pb.PostTopicRequest{
		Topic:            request.GetTo(),
		Message:          request.GetMessage(),
		Priority:         request.GetPriority(),
		Mentions:         request.GetMentions(),
		Meta:             request.GetMeta(),
		ReplyToId:        request.GetReplyToId(),
		ClientMessageId:  request.GetClientMessageId(),
		AllowUnencrypted: request.GetAllowUnencrypted(),
	})
	if err != nil {
		return nil, fromRPC(err)
	}
	if send.wait == pb.SendStatus_SEND_STATUS_UNSPECIFIED {
		return answer, nil
	}
	came, failure := m.await(ctx, send.ID, send.wait, answer.GetStatus())
	if failure != nil {
		return nil, failure
	}
	answer.Status, answer.DeliveredCount = came.GetStatus(), came.DeliveredCount
	answer.BrokerMessageId, answer.HistoryId = came.GetBrokerMessageId(), came.GetHistoryId()
	return answer, nil
}

// GetSend tells how far a send or a post has come.
func (m *Mesh) GetSend(ctx context.Context, id string) (*pb.GetSendResponse, error) {
	if failure := texts("id", id); failure != nil {
		return nil, failure
	}
	answer, err := call(ctx, m, "send", m.raw.Messaging.GetSend, &pb.GetSendRequest{ClientMessageId: id})
	if err != nil {
		return nil, fromRPC(err).of(id)
	}
	return answer, nil
}

// of is the failure as one of the send with this id.
func (e *Error) of(id string) *Error {
	failure := *e
	failure.ClientMessageID = id
	return &failure
}

// newSending is a send with its options, under its id.
func newSending(to, text string, options []SendOption) (*sending, *Error) {
	send := &sending{Message: Message{To: to, Text: text}}
	var failure *Error
	for _, option := range options {
		if option == nil {
			failure = invalid("options", "must not hold nil")
			continue
		}
		option(send)
	}
	send.mint()
	return send, failure
}

// mint gives the message its id, before the first attempt.
func (m *Message) mint() {
	if m.ID == "" {
		m.ID = ulid.MustNew(ulid.Now(), rand.Reader).String()
	}
}

// waitsForOne refuses to wait for the receiver of what has many.
func (s *sending) waitsForOne() *Error {
	if s.wait == pb.SendStatus_SEND_STATUS_DELIVERED {
		return invalid("wait", "a post has many receivers and can be waited for until it is accepted")
	}
	return nil
}

// request is the message as it is sent, with its id. What could not be written
// would break the stream that all sends share, so it is refused here.
func (m *Message) request() (*pb.SendRequest, *Error) {
	m.mint()
	request := &pb.SendRequest{
		To:               m.To,
		Message:          m.Text,
		Priority:         m.Priority,
		ReplyToId:        m.ReplyTo,
		ClientMessageId:  m.ID,
		AllowUnencrypted: m.AllowUnencrypted,
		Mentions:         m.Mentions,
	}
	if failure := known("priority", m.Priority); failure != nil {
		return nil, failure
	}
	if failure := texts("to", m.To, "text", m.Text, "id", m.ID, "reply_to", m.ReplyTo); failure != nil {
		return nil, failure
	}
	for _, mention := range m.Mentions {
		if failure := texts("mentions", mention); failure != nil {
			return nil, failure
		}
	}
	if len(m.Meta) > 0 {
		meta, err := json.Marshal(m.Meta)
		if err != nil {
			return nil, invalid("meta", "holds something else than JSON values: %v", err)
		}
		request.Meta = &structpb.Struct{}
		if err := request.Meta.UnmarshalJSON(meta); err != nil {
			return nil, invalid("meta", "is no object of JSON values: %v", err)
		}
	}
	// The rest is for the frame around it.
	if size := proto.Size(request); size > maxMessage-4096 {
		return nil, newError(ErrPayloadTooLarge, "the message has %d bytes; a text of up to 1 MiB is taken", size)
	}
	return request, nil
}

// sendAll sends messages over the shared stream, in the order given.
func (m *Mesh) sendAll(ctx context.Context, messages []Message) []SendResult {
	results := make([]SendResult, len(messages))
	requests := make([]*pb.SendRequest, 0, len(messages))
	places := make([]int, 0, len(messages))
	for i, message := range messages {
		request, failure := message.request()
		results[i].ID = message.ID
		if failure != nil {
			results[i].Err = failure.of(message.ID)
			continue
		}
		requests, places = append(requests, request), append(places, i)
	}
	if len(requests) == 0 {
		return results
	}
	failure := m.repeat(ctx, "send", func(ctx context.Context, _ ...grpc.CallOption) error {
		var unavailable error
		left := 0
		for i, pending := range m.sender.submit(ctx, requests) {
			got := m.sender.wait(ctx, pending)
			if got.failure != nil && got.failure.GRPCCode == codes.Unavailable {
				requests[left], places[left] = requests[i], places[i]
				left++
				unavailable = got.failure
				continue
			}
			results[places[i]].Response = got.response
			if got.failure != nil {
				results[places[i]].Err = got.failure.of(results[places[i]].ID)
			}
		}
		requests, places = requests[:left], places[:left]
		return unavailable
	})
	if failure != nil {
		for _, place := range places {
			results[place].Err = failure.of(results[place].ID)
		}
	}
	return results
}

const (
	firstLook   = 50 * time.Millisecond
	longestLook = 500 * time.Millisecond
)

// await looks until the send, which has come as far as known, is as far as wanted.
func (m *Mesh) await(ctx context.Context, id string, wanted, known pb.SendStatus) (*pb.GetSendResponse, *Error) {
	for pause := firstLook; ; pause = min(2*pause, longestLook) {
		came, err := call(ctx, m, "send", m.raw.Messaging.GetSend, &pb.GetSendRequest{ClientMessageId: id})
		if err != nil {
			failure := fromRPC(err)
			// UNAVAILABLE is tried again until the time is up.
			if failure.GRPCCode == codes.Unavailable || failure.GRPCCode == codes.DeadlineExceeded {
				return nil, notThere(id, known)
			}
			return nil, failure
		}
		switch status := came.GetStatus(); status {
		case wanted, pb.SendStatus_SEND_STATUS_DELIVERED:
			return came, nil
		case pb.SendStatus_SEND_STATUS_REJECTED:
			return nil, ended(ErrMessageRejected, "the receiver's daemon could not use the message and set it aside", came)
		case pb.SendStatus_SEND_STATUS_EXPIRED:
			return nil, ended(ErrDeliveryExpired, "the receiver did not take the message in time", came)
		case pb.SendStatus_SEND_STATUS_DEAD, pb.SendStatus_SEND_STATUS_ABORTED:
			return nil, ended("", "the send was given up", came)
		}
		known = came.GetStatus()
		if !m.sleep(ctx, pause) {
			switch {
			case m.ctx.Err() != nil:
				return nil, m.closed()
			case ctx.Err() == context.Canceled:
				return nil, fromContext(ctx)
			}
			return nil, notThere(id, known)
		}
	}
}

// notThere says that the time of a wait is up, and what is known of the message.
func notThere(id string, status pb.SendStatus) *Error {
	state := strings.ToLower(strings.TrimPrefix(status.String(), "SEND_STATUS_"))
	known := "in the state " + state
	switch status {
	case pb.SendStatus_SEND_STATUS_ACCEPTED:
		known = "accepted by the broker, not yet delivered"
	case pb.SendStatus_SEND_STATUS_QUEUED, pb.SendStatus_SEND_STATUS_INFLIGHT:
		known = "on this host's disk, not yet accepted by the broker"
	}
	failure := newError(ErrWaitTimeout, "the time is up, and the message is %s; it goes on by itself, and its id tells how far it is", known)
	failure.Metadata = map[string]string{"client_message_id": id, "status": state}
	return failure.because(context.DeadlineExceeded)
}

// ended says why a send will come no further. Without a code of its own the
// failure has the one that the daemon gives.
func ended(code Code, message string, came *pb.GetSendResponse) *Error {
	said := fromDetail(came.GetError())
	if code == "" {
		code = said.Code
	}
	if code == "" {
		code = ErrMessageRejected
	}
	failure := newError(code, "%s", message)
	if said.Message != "" {
		failure.Message += ": " + said.Message
	}
	failure.Metadata, failure.Candidates, failure.FieldViolations = said.Metadata, said.Candidates, said.FieldViolations
	return failure
}
