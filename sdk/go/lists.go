package claudemesh

import (
	"context"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/claudemesh/claudemesh/sdk/go/gen/claudemesh/v1"
)

// What each page of a list asks for.
const pageSize = 100

// InboxFilter says which stored messages to read. The zero value reads all.
type InboxFilter struct {
	// Since leaves out what was stored before.
	Since time.Time
	// Topic and Sender restrict the messages.
	Topic  string
	Sender string
	// After leaves out everything up to this event id.
	After string
	// Limit is the greatest number of messages in all; 0: no limit.
	Limit int
	// NewestFirst turns the order round.
	NewestFirst bool
}

// Inbox reads stored messages, a page at a time. A failure is the last that comes.
func (m *Mesh) Inbox(ctx context.Context, filter InboxFilter) iter.Seq2[*pb.InboxMessage, error] {
	return func(yield func(*pb.InboxMessage, error) bool) {
		failure := texts("topic", filter.Topic, "sender", filter.Sender, "after", filter.After)
		if filter.Limit < 0 {
			failure = invalid("limit", "must be 0 or more, not %d", filter.Limit)
		}
		if failure != nil {
			yield(nil, failure)
			return
		}
		request := &pb.ListMessagesRequest{Topic: filter.Topic, Sender: filter.Sender, After: filter.After}
		if !filter.Since.IsZero() {
			request.Since = timestamppb.New(filter.Since)
		}
		if filter.NewestFirst {
			request.Order = pb.MessageOrder_MESSAGE_ORDER_NEWEST_FIRST
		}
		for left := filter.Limit; ; {
			request.Limit = pageSize
			if filter.Limit > 0 {
				request.Limit = uint32(min(left, pageSize))
			}
			page, err := call(ctx, m, "inbox", m.raw.Inbox.ListMessages, request)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, message := range page.GetMessages() {
				if !yield(message, nil) {
					return
				}
				if left--; left == 0 {
					return
				}
			}
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				return
			}
		}
	}
}

// PeerFilter says which members to list.
type PeerFilter struct {
	// IncludeOffline lists members without a live connection too.
	IncludeOffline bool
	// Roles are the kinds of connection to list; empty: all.
	Roles []pb.PeerRole
}

// Peers lists members of the mesh by name, this one included.
func (m *Mesh) Peers(ctx context.Context, filter PeerFilter) ([]*pb.Peer, error) {
	if failure := known("roles", filter.Roles...); failure != nil {
		return nil, failure
	}
	request := &pb.ListPeersRequest{IncludeOffline: filter.IncludeOffline, Roles: filter.Roles, Limit: pageSize}
	return pages(ctx, m, func(ctx context.Context, token string) ([]*pb.Peer, string, error) {
		request.PageToken = token
		page, err := call(ctx, m, "peers", m.raw.Peers.ListPeers, request)
		return page.GetPeers(), page.GetNextPageToken(), err
	})
}

// pages gathers a list.
func pages[Item any](
	ctx context.Context, m *Mesh, fetch func(ctx context.Context, token string) ([]Item, string, error),
) ([]Item, error) {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	var all []Item
	token := ""
	for {
		items, next, err := fetch(ctx, token)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		if token = next; token == "" {
			return all, nil
		}
	}
}

// Statuses of a member.
const (
	// StatusIdle is free.
	StatusIdle = pb.PeerStatus_PEER_STATUS_IDLE
	// StatusWorking is busy.
	StatusWorking = pb.PeerStatus_PEER_STATUS_WORKING
	// StatusDND does not want to be disturbed.
	StatusDND = pb.PeerStatus_PEER_STATUS_DND
)

// Profile is what other members see of this one. What is nil stays as it is.
type Profile struct {
	// Summary says what this member works on.
	Summary *string
	// Status says what it is doing.
	Status *pb.PeerStatus
	// Visible says whether others see it in their lists.
	Visible *bool
}

// Profile changes what other members see of this one.
func (m *Mesh) Profile(ctx context.Context, change Profile) (*pb.SetProfileResponse, error) {
	if change.Status != nil {
		if failure := known("status", *change.Status); failure != nil {
			return nil, failure
		}
	}
	if change.Summary != nil {
		if failure := texts("summary", *change.Summary); failure != nil {
			return nil, failure
		}
	}
	return call(ctx, m, "profile", m.raw.Peers.SetProfile,
		&pb.SetProfileRequest{Summary: change.Summary, Status: change.Status, Visible: change.Visible})
}

// Topics are the named channels of a mesh; see [Mesh].
type Topics struct{ mesh *Mesh }

// List lists the topics that this member may see, by name; only those it is
// subscribed to when that is asked for.
func (t Topics) List(ctx context.Context, subscribedOnly bool) ([]*pb.Topic, error) {
	request := &pb.ListTopicsRequest{SubscribedOnly: subscribedOnly, Limit: pageSize}
	return pages(ctx, t.mesh, func(ctx context.Context, token string) ([]*pb.Topic, string, error) {
		request.PageToken = token
		page, err := call(ctx, t.mesh, "topic", t.mesh.raw.Topics.ListTopics, request)
		return page.GetTopics(), page.GetNextPageToken(), err
	})
}

// Create makes an encrypted topic and subscribes this member. It is never
// repeated: a repeat could not tell its own topic from somebody else's.
func (t Topics) Create(ctx context.Context, name, description string) (*pb.Topic, error) {
	if failure := texts("name", name, "description", description); failure != nil {
		return nil, failure
	}
	var answer *pb.CreateTopicResponse
	var err error
	failure := t.mesh.repeat(ctx, "topic", func(ctx context.Context, options ...grpc.CallOption) error {
		request := &pb.CreateTopicRequest{Topic: name, Description: description}
		if answer, err = t.mesh.raw.Topics.CreateTopic(ctx, request, options...); err != nil {
			err = t.mesh.explain(ctx, err)
		}
		return nil
	})
	if failure != nil {
		return nil, failure
	}
	return answer.GetTopic(), err
}

// Subscribe subscribes this member to a topic.
func (t Topics) Subscribe(ctx context.Context, name string) (*pb.Topic, error) {
	if failure := texts("name", name); failure != nil {
		return nil, failure
	}
	answer, err := call(ctx, t.mesh, "topic", t.mesh.raw.Topics.SubscribeTopic, &pb.SubscribeTopicRequest{Topic: name})
	return answer.GetTopic(), err
}

// Unsubscribe ends a subscription, and tells whether there was one.
func (t Topics) Unsubscribe(ctx context.Context, name string) (bool, error) {
	if failure := texts("name", name); failure != nil {
		return false, failure
	}
	answer, err := call(ctx, t.mesh, "topic", t.mesh.raw.Topics.UnsubscribeTopic, &pb.UnsubscribeTopicRequest{Topic: name})
	return answer.GetWasSubscribed(), err
}
