// The runner of the conformance cases: reads calls as JSON lines, makes them with
// the package, and writes what came of them. See sdk/conformance/README.md.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	claudemesh "github.com/claudemesh/claudemesh/sdk/go"
	pb "github.com/claudemesh/claudemesh/sdk/go/gen/claudemesh/v1"
)

type request struct {
	ID     json.Number `json:"id"`
	Client string      `json:"client"`
	Op     string      `json:"op"`
	Args   arguments   `json:"args"`
}

type arguments struct {
	Socket    string `json:"socket"`
	Address   string `json:"address"`
	TokenFile string `json:"token_file"`
	Token     string `json:"token"`
	Mesh      string `json:"mesh"`

	message
	Topic    string    `json:"topic"`
	Wait     string    `json:"wait"`
	Messages []message `json:"messages"`
	Timeout  *float64  `json:"timeout"`

	Since       *time.Time `json:"since"`
	Sender      string     `json:"sender"`
	After       string     `json:"after"`
	Limit       int        `json:"limit"`
	NewestFirst bool       `json:"newest_first"`

	Stream    string   `json:"stream"`
	FromStart bool     `json:"from_start"`
	Types     []string `json:"types"`

	IncludeOffline bool     `json:"include_offline"`
	Roles          []string `json:"roles"`

	Summary *string `json:"summary"`
	Status  *string `json:"status"`
	Visible *bool   `json:"visible"`

	Name           string      `json:"name"`
	Description    string      `json:"description"`
	SubscribedOnly bool        `json:"subscribed_only"`
	Connected      bool        `json:"connected"`
	Call           json.Number `json:"call"`
}

type message struct {
	To               string         `json:"to"`
	Text             string         `json:"text"`
	ID               string         `json:"id"`
	Priority         string         `json:"priority"`
	Meta             map[string]any `json:"meta"`
	ReplyTo          string         `json:"reply_to"`
	Mentions         []string       `json:"mentions"`
	AllowUnencrypted bool           `json:"allow_unencrypted"`
}

type runner struct {
	codes []claudemesh.Code

	out sync.Mutex

	mu      sync.Mutex
	clients map[string]*claudemesh.Mesh
	streams map[string]*stream
	calls   map[json.Number]context.CancelFunc
}

// stream is one iteration over events, drawn by a goroutine of its own.
type stream struct {
	events chan item
	cancel context.CancelFunc
	done   chan struct{}
}

type item struct {
	event claudemesh.Event
	err   error
}

func main() {
	r := &runner{
		codes:   table(os.Args[1]),
		clients: map[string]*claudemesh.Mesh{},
		streams: map[string]*stream{},
		calls:   map[json.Number]context.CancelFunc{},
	}
	r.write(map[string]any{"ready": true, "runner": "go", "version": claudemesh.Version})
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var asked request
		if err := json.Unmarshal(line, &asked); err != nil {
			log.Fatalf("%v: %s", err, line)
		}
		ctx, cancel := context.WithCancel(context.Background())
		if asked.Args.Timeout != nil {
			ctx, cancel = context.WithTimeout(context.Background(), seconds(*asked.Args.Timeout))
		}
		r.mu.Lock()
		r.calls[asked.ID] = cancel
		r.mu.Unlock()
		if asked.Op == "connect" {
			r.serve(ctx, asked)
		} else {
			go r.serve(ctx, asked)
		}
	}
}

// table reads the names of all codes.
func table(path string) (names []claudemesh.Code) {
	content, err := os.ReadFile(path)
	var read struct {
		Codes []struct{ Code claudemesh.Code }
	}
	if err == nil {
		err = json.Unmarshal(content, &read)
	}
	if err != nil {
		log.Fatal(err)
	}
	for _, entry := range read.Codes {
		names = append(names, entry.Code)
	}
	return names
}

func (r *runner) write(line any) {
	content, err := json.Marshal(line)
	if err != nil {
		log.Fatal(err)
	}
	r.out.Lock()
	defer r.out.Unlock()
	if _, err := os.Stdout.Write(append(content, '\n')); err != nil {
		os.Exit(0) // whoever asked is gone
	}
}

func (r *runner) serve(ctx context.Context, asked request) {
	result, err := r.call(ctx, asked)
	r.mu.Lock()
	r.calls[asked.ID]()
	delete(r.calls, asked.ID)
	r.mu.Unlock()
	if err != nil {
		r.write(map[string]any{"id": asked.ID, "error": r.failure(err)})
		return
	}
	r.write(map[string]any{"id": asked.ID, "result": result})
}

var nothing = map[string]any{}

func (r *runner) call(ctx context.Context, asked request) (any, error) {
	args := asked.Args
	switch asked.Op {
	case "connect":
		return r.connect(asked.Client, args)
	case "cancel":
		r.mu.Lock()
		defer r.mu.Unlock()
		if cancel := r.calls[args.Call]; cancel != nil {
			cancel()
		}
		return nothing, nil
	}
	r.mu.Lock()
	mesh := r.clients[asked.Client]
	r.mu.Unlock()
	if mesh == nil {
		return nil, fmt.Errorf("there is no client %q", asked.Client)
	}
	switch asked.Op {
	case "close":
		return nothing, mesh.Close()
	case "send":
		return one(mesh.Send(ctx, args.To, args.Text, args.options()...))
	case "post":
		return one(mesh.Post(ctx, args.Topic, args.Text, args.options()...))
	case "send_many":
		return r.sendMany(ctx, mesh, args.Messages), nil
	case "get_send":
		return one(mesh.GetSend(ctx, args.ID))
	case "inbox":
		return inbox(ctx, mesh, args)
	case "events.open":
		return nothing, r.open(asked.Client, mesh, args)
	case "events.next":
		return r.next(ctx, asked.Client, args)
	case "events.close":
		return nothing, r.closeStream(asked.Client, args)
	case "peers":
		return many(mesh.Peers(ctx, claudemesh.PeerFilter{
			IncludeOffline: args.IncludeOffline, Roles: enums[pb.PeerRole]("PEER_ROLE_", args.Roles),
		}))
	case "profile":
		change := claudemesh.Profile{Summary: args.Summary, Visible: args.Visible}
		if args.Status != nil {
			status := enums[pb.PeerStatus]("PEER_STATUS_", []string{*args.Status})[0]
			change.Status = &status
		}
		return one(mesh.Profile(ctx, change))
	case "topics.list":
		return many(mesh.Topics.List(ctx, args.SubscribedOnly))
	case "topics.create":
		return one(mesh.Topics.Create(ctx, args.Name, args.Description))
	case "topics.subscribe":
		return one(mesh.Topics.Subscribe(ctx, args.Name))
	case "topics.unsubscribe":
		was, err := mesh.Topics.Unsubscribe(ctx, args.Name)
		return map[string]any{"was_subscribed": was}, err
	case "health":
		return one(mesh.Health(ctx))
	case "version":
		return one(mesh.Version(ctx))
	case "wait_ready":
		var options []claudemesh.ReadyOption
		if args.Connected {
			options = append(options, claudemesh.Connected())
		}
		return one(mesh.WaitReady(ctx, options...))
	case "raw":
		return one(mesh.Raw().Control.GetVersion(ctx, &pb.GetVersionRequest{}))
	}
	return nil, fmt.Errorf("there is no op %q", asked.Op)
}

func (r *runner) connect(name string, args arguments) (any, error) {
	var options []claudemesh.Option
	for value, option := range map[*string]func(string) claudemesh.Option{
		&args.Socket: claudemesh.WithSocket, &args.Address: claudemesh.WithAddress, &args.TokenFile: claudemesh.WithTokenFile,
		&args.Token: claudemesh.WithToken, &args.Mesh: claudemesh.WithMesh,
	} {
		if *value != "" {
			options = append(options, option(*value))
		}
	}
	mesh, err := claudemesh.Connect(options...)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clients[name] = mesh
	return nothing, nil
}

func (a arguments) options() (options []claudemesh.SendOption) {
	m := a.message.build()
	options = append(options, claudemesh.WithID(m.ID), claudemesh.WithPriority(m.Priority), claudemesh.WithMeta(m.Meta),
		claudemesh.WithReplyTo(m.ReplyTo), claudemesh.WithMentions(m.Mentions...))
	if m.AllowUnencrypted {
		options = append(options, claudemesh.AllowUnencrypted())
	}
	switch a.Wait {
	case "accepted":
		options = append(options, claudemesh.WaitAccepted())
	case "delivered":
		options = append(options, claudemesh.WaitDelivered())
	}
	return options
}

func (m message) build() claudemesh.Message {
	built := claudemesh.Message{
		To: m.To, Text: m.Text, ID: m.ID, Meta: m.Meta, ReplyTo: m.ReplyTo, Mentions: m.Mentions, AllowUnencrypted: m.AllowUnencrypted,
	}
	if m.Priority != "" {
		built.Priority = enums[pb.Priority]("PRIORITY_", []string{m.Priority})[0]
	}
	return built
}

func (r *runner) sendMany(ctx context.Context, mesh *claudemesh.Mesh, asked []message) any {
	messages := make([]claudemesh.Message, len(asked))
	for i, message := range asked {
		messages[i] = message.build()
	}
	results := make([]any, 0, len(asked))
	for _, sent := range mesh.SendMany(ctx, messages) {
		result := map[string]any{"id": sent.ID}
		if sent.Err != nil {
			result["error"] = r.failure(sent.Err)
		} else {
			result["response"] = toJSON(sent.Response)
		}
		results = append(results, result)
	}
	return results
}

func inbox(ctx context.Context, mesh *claudemesh.Mesh, args arguments) (any, error) {
	filter := claudemesh.InboxFilter{
		Topic: args.Topic, Sender: args.Sender, After: args.After, Limit: args.Limit, NewestFirst: args.NewestFirst,
	}
	if args.Since != nil {
		filter.Since = *args.Since
	}
	all := []any{}
	for message, err := range mesh.Inbox(ctx, filter) {
		if err != nil {
			return nil, err
		}
		all = append(all, toJSON(message))
	}
	return all, nil
}

func (r *runner) open(client string, mesh *claudemesh.Mesh, args arguments) error {
	ctx, cancel := context.WithCancel(context.Background())
	opened := &stream{make(chan item), cancel, make(chan struct{})}
	events := mesh.Events(ctx, claudemesh.EventFilter{
		After: args.After, FromStart: args.FromStart, Types: enums[pb.EventType]("EVENT_TYPE_", args.Types),
		Topic: args.Topic, Sender: args.Sender,
	})
	r.mu.Lock()
	r.streams[client+"/"+args.Stream] = opened
	r.mu.Unlock()
	go func() {
		defer close(opened.done)
		for event, err := range events {
			if err != nil && ctx.Err() != nil {
				return // closed by events.close
			}
			select {
			case opened.events <- item{event, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return nil
}

func (r *runner) stream(client, name string) (*stream, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if found := r.streams[client+"/"+name]; found != nil {
		return found, nil
	}
	return nil, fmt.Errorf("there is no stream %q", name)
}

func (r *runner) next(ctx context.Context, client string, args arguments) (any, error) {
	opened, err := r.stream(client, args.Stream)
	if err != nil {
		return nil, err
	}
	select {
	case got := <-opened.events:
		if got.err != nil {
			return nil, got.err
		}
		event := map[string]any{
			"kind": got.event.Kind, "event_id": got.event.EventID, "time": got.event.Time.Format(time.RFC3339Nano),
		}
		if got.event.Value != nil {
			event["value"] = toJSON(got.event.Value)
		}
		return event, nil
	case <-opened.done:
		return map[string]any{"ended": true}, nil
	case <-ctx.Done():
		return map[string]any{"timeout": true}, nil
	}
}

func (r *runner) closeStream(client string, args arguments) error {
	opened, err := r.stream(client, args.Stream)
	if err != nil {
		return err
	}
	opened.cancel()
	<-opened.done
	return nil
}

func (r *runner) failure(err error) any {
	var failure *claudemesh.Error
	if !errors.As(err, &failure) {
		return map[string]any{"unexpected": err.Error()}
	}
	is := ""
	for _, code := range r.codes {
		if errors.Is(err, code) {
			is = string(code)
		}
	}
	metadata := failure.Metadata
	if metadata == nil {
		metadata = map[string]string{}
	}
	told := map[string]any{
		"code": failure.Code, "message": failure.Message, "retryable": failure.Retryable, "retry_after": nil,
		"grpc_code": failure.GRPCCode, "client_message_id": failure.ClientMessageID, "metadata": metadata,
		"candidates": list(failure.Candidates), "field_violations": list(failure.FieldViolations),
		"url": failure.URL, "type": is,
	}
	if failure.RetryAfter > 0 {
		told["retry_after"] = failure.RetryAfter.Seconds()
	}
	return told
}

func one[M proto.Message](message M, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return toJSON(message), nil
}

func many[M proto.Message](messages []M, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return list(messages), nil
}

func list[M proto.Message](messages []M) []any {
	all := make([]any, 0, len(messages))
	for _, message := range messages {
		all = append(all, toJSON(message))
	}
	return all
}

func toJSON(message proto.Message) json.RawMessage {
	content, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(message)
	if err != nil {
		log.Fatal(err)
	}
	return content
}

// enums turns short names into values; one that there is not becomes a number
// that no value has.
func enums[E interface {
	~int32
	protoreflect.Enum
}](prefix string, names []string) (values []E) {
	for _, name := range names {
		var zero E
		number := protoreflect.EnumNumber(math.MaxInt32)
		if value := zero.Descriptor().Values().ByName(protoreflect.Name(prefix + strings.ToUpper(name))); value != nil {
			number = value.Number()
		}
		values = append(values, E(number))
	}
	return values
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
